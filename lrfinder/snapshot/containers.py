"""Put the contents of containers back in place, writing only what differs."""

import mmap
import operator
from collections import OrderedDict, deque
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import numpy as np

__all__ = ["array_restorer", "dict_class", "restore_dict", "sequence_restorer", "set_restorer", "size_of_array"]


def dict_class(target: dict[Any, Any]) -> type[dict[Any, Any]]:
    """Return the class whose methods read and write a dict: a subclass of it may forbid or extend assignment.

    Args:
        target: The dict.
    """
    return OrderedDict if isinstance(target, OrderedDict) else dict


def restore_dict(target: dict[Any, Any], keys: list[Any], values: list[Any]) -> None:
    """Put keys, values and order back. An unchanged dict is not written to, because compiled graphs guard on dicts.

    Args:
        target: The dict.
        keys: Its keys, in order.
        values: Its values, in the order of the keys.
    """
    kind = dict_class(target)
    if not _are_same(kind.keys(target), keys):
        kind.clear(target)
        for key, value in zip(keys, values, strict=True):
            kind.__setitem__(target, key, value)
    elif not _are_same(kind.values(target), values):
        for key, value, current in zip(keys, values, list(kind.values(target)), strict=True):
            if current is not value:
                kind.__setitem__(target, key, value)


def sequence_restorer(value: Any, items: list[Any]) -> Callable[[], None] | None:
    """Return a function that puts the items of a list or a deque back, None for a tuple.

    Args:
        value: A list, a deque or a tuple.
        items: Its items.
    """
    if isinstance(value, list):
        return partial(_restore_list, value, items)
    return partial(_restore_deque, value, items) if isinstance(value, deque) else None


def set_restorer(value: Any, items: set[Any]) -> Callable[[], None] | None:
    """Return a function that puts the members of a set back, None for a frozenset.

    Args:
        value: A set or a frozenset.
        items: Its members.
    """
    return partial(_restore_set, value, items) if isinstance(value, set) else None


def array_restorer(value: Any) -> Callable[[], None] | None:
    """Return a function that writes the present bits of an array back, None for one that is read-only or a mapped file.

    Args:
        value: A NumPy array, a bytearray, or an `array.array`.
    """
    if isinstance(value, np.ndarray):
        is_writable = value.flags.writeable and not _is_mapped(value)
        return partial(_restore_ndarray, value, value.copy()) if is_writable else None
    return partial(_restore_bytes, value, value[:])


def size_of_array(value: Any) -> int:
    """Return how many bytes an array takes.

    Args:
        value: A NumPy array, a bytearray, or an `array.array`.
    """
    return int(value.nbytes) if isinstance(value, np.ndarray) else len(value) * memoryview(value).itemsize


def _are_same(found: Collection[Any], wanted: Collection[Any]) -> bool:
    """Return whether two collections hold the same objects in the same order."""
    return len(found) == len(wanted) and all(map(operator.is_, found, wanted))


def _restore_list(target: list[Any], saved: list[Any]) -> None:
    if not _are_same(target, saved):
        list.__setitem__(target, slice(None), saved)


def _restore_deque(target: deque[Any], saved: list[Any]) -> None:
    if not _are_same(target, saved):
        deque.clear(target)
        deque.extend(target, saved)


def _restore_set(target: set[Any], saved: set[Any]) -> None:
    if target != saved:
        set.clear(target)
        set.update(target, saved)


def _is_mapped(value: Any) -> bool:
    while isinstance(value, np.ndarray):
        if isinstance(value, np.memmap):
            return True
        value = value.base
    return isinstance(value, mmap.mmap)


def _restore_ndarray(target: Any, saved: Any) -> None:
    if target.tobytes() != saved.tobytes():  # compares bits, because NaN != NaN
        target[...] = saved


def _restore_bytes(target: Any, saved: Any) -> None:
    if bytes(target) != bytes(saved):
        target[:] = saved
