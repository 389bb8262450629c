"""A second find on objects that one find is using is refused."""

import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from lrfinder.errors import LRFinderError
from lrfinder.snapshot import interrupts_deferred

__all__ = ["use_exclusively"]


class _User:
    """A find that uses objects, by the name of its thread."""

    def __init__(self) -> None:
        self.thread = threading.current_thread().name


_lock = threading.Lock()
# By the id of an object in use. Weak, so that a find that an interrupt has ended at the wrong moment holds nothing.
_users: "weakref.WeakValueDictionary[int, _User]" = weakref.WeakValueDictionary()


@contextmanager
def use_exclusively(objects: Iterable[Any]) -> Iterator[None]:
    """Within this context no other find may use the same objects, in any thread.

    Two finds on one model would write its parameters at the same time, or restore what the other is working on.

    Args:
        objects: The parameters, and the optimizer.

    Raises:
        LRFinderError: Another find is using one of them.
    """
    held = {id(each): each for each in objects}  # holding the objects keeps their ids from being used again
    user = _User()
    try:
        with interrupts_deferred(), _lock:
            other = next((_users[key] for key in held if key in _users), None)
            if other is not None:
                raise LRFinderError(
                    f"LRFinder.find() is already running on this model or optimizer, in thread {other.thread!r}; wait "
                    "until it has returned. It cannot be called from its own on_step, step or loss function."
                )
            _users.update(dict.fromkeys(held, user))
        yield
    finally:
        with interrupts_deferred(), _lock:
            for key in held:
                if _users.get(key) is user:
                    del _users[key]
