"""A second find on objects that one find is using is refused."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from lrfinder.errors import LRFinderError

__all__ = ["use_exclusively"]

_lock = threading.Lock()
_users: dict[int, str] = {}  # by the id of an object in use, the name of the thread that uses it


@contextmanager
def use_exclusively(objects: Iterable[Any]) -> Iterator[None]:
    """Within this context no other find may use the same objects, in any thread.

    Two finds on one model write its parameters at the same time, or put back what the other is working on.

    Args:
        objects: The parameters, and the optimizer.

    Raises:
        LRFinderError: Another find is using one of them.
    """
    held = {id(each): each for each in objects}  # holding the objects keeps their ids from being used again
    with _lock:
        user = next((_users[key] for key in held if key in _users), None)
        if user is not None:
            raise LRFinderError(
                f"LRFinder.find() is already running on this model or optimizer, in thread {user!r}; wait until it "
                "has returned. It cannot be called from its own on_step, step or loss function."
            )
        _users.update(dict.fromkeys(held, threading.current_thread().name))
    try:
        yield
    finally:
        with _lock:
            for key in held:
                _users.pop(key, None)
