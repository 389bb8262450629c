"""State of frameworks: what their objects hold is captured, and put back."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lrfinder.errors import RestoreError
from lrfinder.snapshot import ErrorCollector, ObjectGraph, RandomStreams, interrupts_deferred

__all__ = ["kept"]


@contextmanager
def kept(objects: Iterable[Any], leave: Iterable[Any] = (), devices: Iterable[torch.device] = ()) -> Iterator[None]:
    """Put back, on every way out of a block, what objects hold and where the random streams are.

    Around `LRFinder.find` this undoes what getting ready for it changes: objects that a framework makes, wraps or
    registers. Values of tensors are not copied, those that the sweep writes are `find`'s own business.

    Args:
        objects: Kept with all that is reached from their attributes through modules, optimizers and plain containers.
        leave: What is not entered on the way there, such as data sets.
        devices: The accelerators in use.

    Yields:
        Nothing.

    Raises:
        RestoreError: Something could not be put back; everything else was.

    Example:
        >>> class Trainer:
        ...     optimizer, hooks = None, []
        >>> trainer = Trainer()
        >>> with kept([trainer]):
        ...     trainer.optimizer = "made for the sweep"
        >>> trainer.optimizer is None
        True
    """
    contents = ObjectGraph(leave)
    for each in objects:
        contents.add(type(each).__name__, each)
    streams = RandomStreams(contents.generators, devices)
    try:
        yield
    finally:
        failures = ErrorCollector()
        with interrupts_deferred():
            contents.restore(failures)
            streams.restore(failures)
        if failures:
            parts = "; ".join(f"{name} ({type(error).__name__}: {error})" for name, error in failures)
            raise RestoreError(f"Could not put back: {parts}. Everything else is as it was.") from failures[0][1]
