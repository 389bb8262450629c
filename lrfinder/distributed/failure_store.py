"""News of a failure on another rank that needs no meeting: from the store, or from what a collective raises."""

import re
from contextlib import suppress
from typing import Any

import torch.distributed as dist

__all__ = ["FailureStore", "is_cut_off", "quote"]

# What a collective raises when a rank has left or does not answer in time names the backend.
_CUT_OFF = re.compile(r"gloo|NCCL|c10d|ProcessGroup|pair closure|Connection (closed|reset) by peer")
_QUOTED = 1000  # characters of another rank's message


class FailureStore:
    """The first failure of a find, in the process group's store. Reading and writing it waits for no other rank.

    Args:
        group: The CPU group of the ranks; its name keeps failures of different groups apart.
        find: The number of this find in the group, which keeps failures of different finds apart.
    """

    def __init__(self, group: Any, find: int) -> None:
        self._key = f"lrfinder/{group.group_name}/{find}/failure"
        default_store = getattr(dist.distributed_c10d, "_get_default_store", None)  # it has no public name
        self._store = None if default_store is None else default_store()

    def post(self, rank: int, error: BaseException) -> None:
        """Write which rank failed and why, unless another rank has done so before.

        Args:
            rank: The rank.
            error: What it raised.
        """
        with suppress(RuntimeError):  # the store may have gone with the rank that kept it
            if self._store is not None:
                self._store.compare_set(self._key, "", f"{rank} {quote(error)}")

    def read(self) -> tuple[int, str] | None:
        """Return the first failure, without waiting for one.

        Returns:
            Rank and message, or None.
        """
        with suppress(RuntimeError):
            if self._store is not None and self._store.check([self._key]):
                rank, message = self._store.get(self._key).decode().split(" ", 1)
                return int(rank), message
        return None


def quote(error: BaseException) -> str:
    """Return type and message of an error, the message cut where it is very long.

    Args:
        error: Any exception.

    Returns:
        One line, if the message is one.

    Example:
        >>> quote(ValueError("no"))
        'ValueError: no'
    """
    return f"{type(error).__name__}: {error}"[:_QUOTED]


def is_cut_off(error: BaseException) -> bool:
    """Return whether an error only follows from another rank that has left, or did not come.

    Args:
        error: Any exception.

    Returns:
        True for what torch's collectives and stores raise when a rank has gone or the time is up.

    Example:
        >>> is_cut_off(RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer"))
        True
    """
    if isinstance(error, getattr(dist, "DistError", ())):
        return True
    return isinstance(error, RuntimeError) and _CUT_OFF.search(str(error)) is not None
