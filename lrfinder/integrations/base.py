"""State of frameworks: what their objects hold is captured, and put back."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lrfinder.snapshot import ErrorCollector, ObjectGraph, RandomStreams, interrupts_deferred

__all__ = ["kept"]


@contextmanager
def kept(objects: Iterable[Any], leave: Iterable[Any] = (), devices: Iterable[torch.device] = ()) -> Iterator[None]:
    """Put back, on every way out of a block, what objects hold and where the random streams are.

    Around `LRFinder.find` this undoes what getting ready for it changes: objects that a framework makes, wraps or
    registers. Values of tensors are not copied: `find` restores those that the sweep writes.

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
    """  # noqa: DOC502 - raised by the collector
    graph = ObjectGraph(objects, skip=leave)
    streams = RandomStreams(graph.generators, devices)
    try:
        yield
    finally:
        errors = ErrorCollector()
        with interrupts_deferred():
            graph.restore(errors)
            streams.restore(errors)
        errors.raise_if_any()
