"""News of a failure on another rank that needs no meeting: a notice in the store, or what a collective raises."""

import re
from contextlib import suppress
from typing import Any

import torch.distributed as dist

__all__ = ["FailureStore", "is_cut_off", "quote"]

# What a collective raises when a peer has gone or does not answer in time names the backend.
_CUT_OFF = re.compile(r"gloo|NCCL|c10d|ProcessGroup|pair closure|Connection (closed|reset) by peer")
_QUOTED = 1000  # characters of another rank's message


class FailureStore:
    """A notice in the process group's store, which can be posted and read without meeting anybody.

    Args:
        group: A group that exists for one find; its name keeps notices apart.
    """

    def __init__(self, group: Any) -> None:
        """Look for the store; it has no public name."""
        self._key = f"lrfinder/{group.group_name}/failure"
        find = getattr(dist.distributed_c10d, "_get_default_store", None)
        self._store = None if find is None else find()

    def post(self, rank: int, error: BaseException) -> None:
        """Say which rank failed and why, if nobody else has.

        Args:
            rank: The rank.
            error: What it raised.
        """
        with suppress(RuntimeError):  # the store may have gone with the rank that kept it
            if self._store is not None:
                self._store.compare_set(self._key, "", f"{rank} {quote(error)}")

    def read(self) -> tuple[int, str] | None:
        """Return the first notice, without waiting for one.

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
    """Tell whether an error is but the consequence of another rank's leaving, or not coming.

    Args:
        error: Any exception.

    Returns:
        True for what torch's collectives and stores raise when a peer has gone or time is up.

    Example:
        >>> is_cut_off(RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer"))
        True
    """
    if isinstance(error, getattr(dist, "DistError", ())):
        return True
    return isinstance(error, RuntimeError) and _CUT_OFF.search(str(error)) is not None
