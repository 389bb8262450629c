"""What the ranks of a process group decide together: mean losses, when the data ends, who has failed.

Without an initialised process group there is nothing to decide, and `rank_group` yields None.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import IntEnum
from typing import Any

import torch
import torch.distributed as dist

from lrfinder.distributed.failure_store import FailureStore, is_cut_off, quote
from lrfinder.errors import ArgumentError, LRFinderError, RankError

__all__ = ["DataEnded", "Ranks", "rank_group"]


class DataEnded(Exception):  # noqa: N818 - no error: the loop catches it
    """The data of another rank have ended."""


class _Site(IntEnum):
    """Where in a find the ranks meet; 0 is for a rank that has failed."""

    FAILED = 0
    ARGUMENTS = 1
    BATCH = 2
    FORWARD = 3
    BACKWARD = 4
    SCALER = 5
    LOSS = 6
    VALIDATION = 7
    RESULT = 8


@contextmanager
def rank_group() -> Iterator["Ranks | None"]:
    """Let all ranks of the default process group go through a block together, or fail together.

    Where a rank raises outside of a collective, all ranks learn of it at their next meeting: the rank raises its own
    exception, the others a `RankError` that names the rank and quotes it; the process group goes on working. Where a
    rank raises inside of a collective it meets nobody any more: the others are released by its exit or by the group's
    timeout, and the group may be dead.

    Yields:
        The ranks, or None without a process group and in one of a single rank.

    Raises:
        RankError: Another rank failed.

    Example:
        >>> with rank_group() as ranks:
        ...     ranks is None
        True
    """  # noqa: DOC502 - raised at the meetings
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        yield None
        return
    ranks = Ranks()
    try:
        yield ranks
    except BaseException as error:
        failure = ranks.part(error)
        if failure is error:
            raise
        raise failure from error
    finally:
        ranks.close()


class Ranks:
    """The ranks of the default process group, meeting on a CPU group of their own.

    The users' collectives and these never share a group: a rank that has failed and one that waits in the user's
    collective would answer each other. Each meeting is one small all-reduce, so that whatever a rank waits for, it
    hears of a failure. A step under DDP has one, before the backward pass, or two, if the forward pass communicates.

    Attributes:
        rank: This rank.
        world_size: How many there are.
        collective_steps: Whether a whole step may communicate (FSDP2, a user's own step), not just its backward. Any
            other step has to call `before_backward`.
    """

    def __init__(self) -> None:
        """Meet for the first time: this waits for all ranks.

        Raises:
            RankError: Not all of them came.
        """
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()
        self.collective_steps = False
        self._inside = False
        self._settled: BaseException | None = None
        self._waiting: deque[float | None] = deque()
        self._means: list[float | None] = []
        try:
            self._group = dist.new_group(backend="gloo", timeout=_timeout())
        except RuntimeError as error:
            raise RankError(
                f"LRFinder.find() must be called on each of the {self.world_size} ranks, but rank {self.rank} could "
                f"not reach the others: {error}"
            ) from error
        self._notices = FailureStore(self._group)

    def same(self, arguments: Mapping[str, Any]) -> None:
        """Insist on the same arguments everywhere: other decisions would follow from others.

        Args:
            arguments: By name, anything with a `repr` that tells.

        Raises:
            ArgumentError: One differs; all ranks raise.
        """  # noqa: DOC502 - raised below, once all know of it
        self._meet(_Site.ARGUMENTS)
        everywhere = self._gather({name: repr(value) for name, value in arguments.items()})
        for name in arguments:
            for rank, theirs in enumerate(everywhere):
                if theirs[name] != everywhere[0][name]:
                    raise self._agreed(
                        ArgumentError(
                            f"LRFinder.find() needs the same {name} on every rank, got {everywhere[0][name]} on rank "
                            f"0 and {theirs[name]} on rank {rank}."
                        )
                    )

    def any_ended(self, ended: bool) -> bool:  # noqa: FBT001 - what is asked is the method's name
        """Return whether the data of this rank have ended, or of any, if it is known so early.

        Where a step has a meeting in it, the others hear of it there (`DataEnded`).
        """
        if ended or self.collective_steps:
            ended = any(row[1] for row in self._meet(_Site.BATCH, float(ended)))
        self._inside = self.collective_steps and not ended
        return ended

    def before_forward(self) -> None:
        """Wait until every rank has come to a forward pass that communicates.

        Raises:
            DataEnded: One of them has no more data.
        """  # noqa: DOC502 - raised at the meeting
        self._meet(_Site.FORWARD)

    def before_backward(self) -> None:
        """Wait until every rank has its loss: nobody begins a backward pass if one has failed.

        Raises:
            DataEnded: One of them has no more data.
        """  # noqa: DOC502 - raised at the meeting
        self._meet(_Site.BACKWARD)
        self._inside = True

    def after_backward(self) -> None:
        """Note that this rank has left the backward pass."""
        self._inside = self.collective_steps

    def any_skipped(self, skipped: bool) -> bool:  # noqa: FBT001 - what is asked is the method's name
        """Return whether the GradScaler of any rank has skipped the step."""
        return any(row[1] for row in self._meet(_Site.SCALER, float(skipped)))

    def after_validation_batch(self) -> None:
        """Wait until every rank has its loss on a held-out batch."""
        self._meet(_Site.VALIDATION)

    def means(self, losses: list[float | None], *, last: bool = False) -> list[float | None]:
        """Take losses of this rank after a step, and return means over all ranks as far as they are known.

        A loss travels with the next meeting, so that it costs none of its own.

        Args:
            losses: This rank's, as many as the other ranks', None for a skipped step.
            last: Whether to meet for those that still wait.

        Returns:
            The means not returned before, in order, the same numbers on every rank.
        """
        self._inside = False
        self._waiting.extend(losses)
        while last and self._waiting:
            self._meet(_Site.LOSS)
        means, self._means = self._means, []
        return means

    def share(self, value: Any) -> Any:
        """Return what rank 0 gives, once all ranks have come this far.

        Args:
            value: Anything that can be pickled.

        Returns:
            Rank 0's value.
        """
        self._meet(_Site.RESULT)
        return self._gather(value if self.rank == 0 else None)[0]

    def part(self, error: BaseException) -> BaseException:
        """Let the others know why this rank leaves, as far as that is possible without blocking.

        Args:
            error: What ended this rank's work.

        Returns:
            What this rank shall raise: the error, or a `RankError` where it is but the consequence of another's.
        """
        if error is self._settled:
            return error
        consequence = is_cut_off(error)
        if not consequence:
            self._notices.post(self.rank, error)
        try:
            if self._inside:
                # The others may wait in a collective of the user's: they would not come to a meeting.
                return self._cut_off(error) if consequence else error
            self._sum(_Site.FAILED)
            cause = self._first_cause((consequence, quote(error)))
        except RuntimeError:  # the others have gone
            return self._cut_off(error) if consequence else error
        return cause if consequence and cause is not None else error

    def close(self) -> None:
        """Give the group up; nothing is communicated."""
        dist.destroy_process_group(self._group)

    def _meet(self, site: _Site, flag: float = 0.0) -> list[list[float]]:
        """Return site, flag and loss of every rank, or raise if one of them has failed.

        Args:
            site: Where this rank is.
            flag: What it answers to the question of that site.

        Returns:
            A row for each rank.

        Raises:
            DataEnded: Another rank is at the end of its data, this one elsewhere.
        """
        loss = self._waiting[0] if self._waiting else None
        try:
            rows = self._sum(site, flag, 0.0 if loss is None else loss)
        except RuntimeError as error:
            raise self._agreed(self._cut_off(error)) from error
        if any(row[0] == _Site.FAILED for row in rows):
            raise self._agreed(self._first_cause(None))
        if self._waiting:
            self._waiting.popleft()
            self._means.append(None if loss is None else sum(row[2] for row in rows) / self.world_size)
        if site != _Site.BATCH and any(row[0] == _Site.BATCH and row[1] for row in rows):
            raise DataEnded
        has_ended = site == _Site.BATCH and flag
        if not has_ended and any(row[0] != site for row in rows):
            places = ", ".join(f"rank {rank}: {_Site(int(row[0])).name}" for rank, row in enumerate(rows))
            raise self._agreed(
                LRFinderError(
                    f"The ranks went different ways ({places}), as if one of them computed more often than another; "
                    "a closure that is called until a rank's own loss suits does so."
                )
            )
        return rows

    def _sum(self, site: _Site, flag: float = 0.0, loss: float = 0.0) -> list[list[float]]:
        # Each rank fills its own row: adding zeros is exact, in any order, so that all ranks read the same bits.
        rows = torch.zeros(self.world_size, 3, dtype=torch.float64, device="cpu")
        rows[self.rank] = torch.tensor([float(site), flag, loss], dtype=torch.float64, device="cpu")
        dist.all_reduce(rows, group=self._group)
        return rows.tolist()

    def _gather(self, value: Any) -> list[Any]:
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self._group)
        return values

    def _first_cause(self, own: tuple[bool, str] | None) -> RankError | None:
        """Exchange what happened where, and return what happened first on another rank.

        Args:
            own: Whether this rank's error is but the consequence of a lost connection, and its message.

        Returns:
            None if there was nothing on another rank, or nothing but consequences while this rank failed itself.
        """
        reports = enumerate(self._gather(own))
        found = [(*report, rank) for rank, report in reports if report is not None and rank != self.rank]
        consequence, message, rank = min(found, key=lambda report: (report[0], report[2]), default=(True, "", -1))
        return None if own is not None and consequence else _rank_error(rank, message)

    def _cut_off(self, error: BaseException) -> RankError:
        found = self._notices.read()
        if found is not None:
            return _rank_error(*found)
        return RankError(
            f"Another rank stopped answering; rank {self.rank} noticed by: {quote(error)}. "
            "Its own log says why it left; a rank that only takes long needs a longer timeout in init_process_group."
        )

    def _agreed(self, error: Any) -> Any:
        """Return the error; all ranks know of it, or cannot be told."""
        self._settled = error
        return error


def _rank_error(rank: int, message: str) -> RankError:
    return RankError(f"Rank {rank} failed, so this rank stopped too and put everything back. Rank {rank}: {message}")


def _timeout() -> Any:
    """Return the default group's timeout, which torch tells in private only; None is torch's own default."""
    with suppress(AttributeError, RuntimeError):
        group = dist.distributed_c10d._get_default_group()
        return group._get_backend(group._device_types[0]).options._timeout
    return None
