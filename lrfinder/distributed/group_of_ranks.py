"""The ranks of a process group: they decide together, and they fail together."""

import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import IntEnum
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from lrfinder.distributed.exchange import gather_objects, gather_rows
from lrfinder.distributed.failure_store import FailureStore, is_cut_off, quote
from lrfinder.distributed.forward_hooks import before_forward
from lrfinder.errors import ArgumentError, LRFinderError, RankError

__all__ = ["DataEnded", "RankGroup"]

# One CPU group for each default process group, kept as long as that lives. Making and destroying one in each call
# deadlocks with torch before 2.8: destroying a gloo group joins a thread that waits for the GIL.
# `torch.distributed` owns the groups, and `destroy_process_group` ends them: a group that lived until the interpreter
# shuts down could abort the process. With each group stands how many finds have used it.
_cpu_groups: "weakref.WeakKeyDictionary[Any, tuple[weakref.ref[Any], int]]" = weakref.WeakKeyDictionary()


class DataEnded(Exception):  # noqa: N818 - not an error: the training loop catches it
    """The data of another rank have ended."""


class _Site(IntEnum):
    """Where in a find the ranks meet; 0 stands for a rank that has failed."""

    FAILED = 0
    START = 1
    ARGUMENTS = 2
    BATCH = 3
    FORWARD = 4
    BACKWARD = 5
    SCALER = 6
    LOSS = 7
    VALIDATION = 8
    RESULT = 9


class RankGroup:
    """The ranks of the default process group. They meet on a CPU group of their own.

    The user's collectives and these never share a group: a rank that has failed and a rank that waits in the user's
    collective would answer each other. Each meeting is one small all-reduce, so a waiting rank always hears of a
    failure. A step under DDP has one meeting, before the backward pass, or two if the forward pass communicates.

    Attributes:
        rank: The rank of this process.
        world_size: The number of ranks.
        is_distributed: True.
        collective_steps: Whether a whole step may communicate (FSDP2, a user's own step), not only its backward pass.
            Any other step has to call `before_backward`.
    """

    is_distributed = True

    def __init__(self) -> None:
        """Meet for the first time: this waits for all ranks.

        Raises:
            RankError: Some ranks did not come.
        """
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()
        self.collective_steps = False
        self._inside = False  # whether this rank may be inside of a collective of the user's
        self._settled: weakref.ref[BaseException] | None = None  # its traceback holds this object
        self._waiting: deque[float | None] = deque()
        self._means: list[float | None] = []
        try:
            self._group, find = _next_find()
            self._sum(_Site.START)
        except RuntimeError as error:
            self.abandon()
            raise RankError(
                f"LRFinder.find() must be called on each of the {self.world_size} ranks, but rank {self.rank} could "
                f"not reach the others: {error}"
            ) from error
        self._failures = FailureStore(self._group, find)

    def check_same_arguments(self, arguments: Mapping[str, Any]) -> None:
        """Check that the arguments are the same on all ranks: different arguments would lead to different decisions.

        Args:
            arguments: By name, anything with a `repr` that tells values apart.

        Raises:
            ArgumentError: An argument differs; all ranks raise.
        """  # noqa: DOC502 - raised below, once all ranks know of it
        self._meet(_Site.ARGUMENTS)
        everywhere = gather_objects({name: repr(value) for name, value in arguments.items()}, self._group)
        for name in arguments:
            for rank, theirs in enumerate(everywhere):
                if theirs[name] != everywhere[0][name]:
                    raise self._agreed(
                        ArgumentError(
                            f"LRFinder.find() needs the same {name} on every rank, got {everywhere[0][name]} on rank "
                            f"0 and {theirs[name]} on rank {rank}."
                        )
                    )

    @contextmanager
    def meet_before_forward(self, model: nn.Module) -> Iterator[None]:
        """Within this context all ranks meet before each forward pass in which DDP communicates.

        Args:
            model: A module that may be a `DistributedDataParallel`, or contain some.
        """

        def meet() -> None:
            self._meet(_Site.FORWARD)

        with before_forward(model, meet):
            yield

    def any_ended(self, ended: bool) -> bool:  # noqa: FBT001 - a question with its own answer
        """Return whether the data of this rank have ended, or those of any rank, where that is known so early.

        Where a step has a meeting in it, the other ranks hear of the end there (`DataEnded`).
        """
        if ended or self.collective_steps:
            ended = any(row[1] for row in self._meet(_Site.BATCH, float(ended)))
        self._inside = self.collective_steps and not ended
        return ended

    def before_backward(self) -> None:
        """Wait until every rank has its loss: no rank begins a backward pass if another has failed.

        Raises:
            DataEnded: Another rank has no more data.
        """  # noqa: DOC502 - raised at the meeting
        self._meet(_Site.BACKWARD)
        self._inside = True

    def after_backward(self) -> None:
        """Note that this rank has left the backward pass."""
        self._inside = self.collective_steps

    def any_skipped(self, skipped: bool) -> bool:  # noqa: FBT001 - a question with its own answer
        """Return whether the GradScaler of any rank has skipped the step."""
        return any(row[1] for row in self._meet(_Site.SCALER, float(skipped)))

    def after_validation_batch(self) -> None:
        """Wait until every rank has its loss on a validation batch."""
        self._meet(_Site.VALIDATION)

    def means(self, losses: list[float | None], *, last: bool = False) -> list[float | None]:
        """Take losses of this rank after a step, and return means over all ranks as far as they are known.

        A loss travels with the next meeting and needs none of its own.

        Args:
            losses: This rank's losses, as many as on the other ranks, None for a skipped step.
            last: Whether to meet for the losses that still wait.

        Returns:
            The means that were not returned before, in order, the same numbers on every rank.
        """
        self._inside = False
        self._waiting.extend(losses)
        while last and self._waiting:
            self._meet(_Site.LOSS)
        means, self._means = self._means, []
        return means

    def mean(self, value: float) -> float:
        """Return the mean of a number over all ranks.

        Args:
            value: This rank's number.

        Returns:
            The same mean on every rank.
        """
        return self.means([value], last=True)[0] or 0.0

    def minimum(self, count: int) -> int:
        """Return the smallest of a number over all ranks.

        Args:
            count: This rank's number.

        Returns:
            The same number on every rank.
        """
        self._meet(_Site.RESULT)
        return min(int(each) for each in gather_objects(count, self._group))

    def share(self, value: Any) -> Any:
        """Return what rank 0 gives, once all ranks have come this far.

        Args:
            value: Anything that can be pickled.

        Returns:
            Rank 0's value.
        """
        self._meet(_Site.RESULT)
        return gather_objects(value if self.rank == 0 else None, self._group)[0]

    def part(self, error: BaseException) -> BaseException:
        """Let the others know why this rank leaves, as far as that is possible without blocking.

        Args:
            error: What ended this rank's work.

        Returns:
            What this rank has to raise: the error, or a `RankError` where it only follows from another rank's error.
        """
        if self._settled is not None and error is self._settled():
            return error
        consequence = is_cut_off(error)
        if not consequence:
            self._failures.post(self.rank, error)
        try:
            if self._inside:
                # The others may wait in a collective of the user's: they would not come to a meeting.
                self.abandon()
                return self._cut_off(error) if consequence else error
            self._sum(_Site.FAILED)
            cause = self._first_cause((consequence, quote(error)))
        except RuntimeError:  # the others have gone
            self.abandon()
            return self._cut_off(error) if consequence else error
        return cause if consequence and cause is not None else error

    def abandon(self) -> None:
        """Never use this CPU group again: some ranks did not come to a meeting, so it is out of step."""
        if dist.is_initialized():
            _cpu_groups.pop(dist.group.WORLD, None)

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
            self.abandon()
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
                    f"The ranks went different ways ({places}): one of them computed more often than another. "
                    "A closure that is called until a rank's own loss suits does that; use the same number of calls."
                )
            )
        return rows

    def _sum(self, site: _Site, flag: float = 0.0, loss: float = 0.0) -> list[list[float]]:
        row = torch.tensor([float(site), flag, loss], dtype=torch.float64, device="cpu")
        rows: list[list[float]] = gather_rows(row, self._group).tolist()
        return rows

    def _first_cause(self, own: tuple[bool, str] | None) -> RankError | None:
        """Exchange what happened where, and return what happened first on another rank.

        Args:
            own: Whether this rank's error only follows from a lost connection, and its message.

        Returns:
            None if there was nothing on another rank, or only consequences while this rank failed itself.
        """
        reports = enumerate(gather_objects(own, self._group))
        found = [(*report, rank) for rank, report in reports if report is not None and rank != self.rank]
        consequence, message, rank = min(found, key=lambda report: (report[0], report[2]), default=(True, "", -1))
        return None if own is not None and consequence else _rank_error(rank, message)

    def _cut_off(self, error: BaseException) -> RankError:
        found = self._failures.read()
        if found is not None:
            return _rank_error(*found)
        return RankError(
            f"Another rank stopped answering; rank {self.rank} noticed by: {quote(error)}. "
            "Its own log says why it left. If it only takes long, set a longer timeout in init_process_group."
        )

    def _agreed(self, error: Any) -> Any:
        """Return the error; all ranks know of it, or cannot be told."""
        self._settled = weakref.ref(error)
        return error


def _rank_error(rank: int, message: str) -> RankError:
    return RankError(f"Rank {rank} failed, so this rank stopped too and restored everything. Rank {rank}: {message}")


def _next_find() -> tuple[Any, int]:
    """Return the CPU group of the default process group, made in its first find, and the number of this find."""
    default = dist.group.WORLD
    known, finds = _cpu_groups.get(default, (None, 0))
    group = known() if known is not None else None
    if group is None:
        group = dist.new_group(backend="gloo", timeout=_timeout())
    _cpu_groups[default] = weakref.ref(group), finds + 1
    return group, finds


def _timeout() -> Any:
    """Return the default group's timeout, which torch has in private only; None is torch's own default."""
    with suppress(AttributeError, RuntimeError):
        group = dist.distributed_c10d._get_default_group()
        return group._get_backend(group._device_types[0]).options._timeout
    return None
