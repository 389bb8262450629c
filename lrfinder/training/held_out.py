"""What refining trains on and what it scores on: a loader's first pass, split in two."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch

from lrfinder.snapshot import ErrorCollector, LoaderState, RandomStreams
from lrfinder.training.batches import Batches
from lrfinder.training.loaders import clone

__all__ = ["Remaining", "held_out_count", "pass_length"]

SHARE = 5
"""Of a pass that is too short for a training and what scores it, one batch in so many is held out."""


class Remaining(Batches):
    """A stream that goes through a loader's first pass over and over, and leaves its first batches out.

    A loader that shuffles would bring the samples that are held out back in its next pass, in other batches. So each
    pass is the first one again: the loader and the random streams are put back for as long as its order is drawn.

    Args:
        batches: The stream of the loader, restored to where its first pass begins.
        held_out: How many batches to leave out; fewer than a pass has.
        devices: Accelerators whose random streams a loader might use.

    Example:
        >>> remaining = Remaining(Batches([1, 2, 3]), held_out=1)
        >>> remaining.take(4)
        [2, 3, 2, 3]
    """

    def __init__(self, batches: Batches, held_out: int, devices: Sequence[torch.device] = ()) -> None:
        """Note where the first pass begins; nothing is read yet."""
        super().__init__(batches.source)
        self._held_out = held_out
        self._devices = devices
        self._state = LoaderState(self.source)
        self._streams = RandomStreams(devices=devices)

    def _next(self) -> Any:
        if self._iterator is None:
            self._begin()
        return super()._next()

    def _begin(self) -> None:
        self._iterator = iter(self._loader)
        for _ in range(self._held_out):
            next(self._iterator, None)

    def _start_over(self) -> None:
        errors = ErrorCollector()
        now = RandomStreams(devices=self._devices)
        self._shut_down()
        self._loader = clone(self.source)
        self._state.restore(errors)
        self._streams.restore(errors)
        self._begin()
        now.restore(errors)
        errors.raise_if_any()


def pass_length(batches: Batches, enough: int) -> int:
    """Return how many batches one pass has, or `enough` if it has as many.

    Args:
        batches: A stream at its beginning; it is read where the loader doesn't know its length.
        enough: Where to stop counting.

    Returns:
        The number of batches.
    """
    with suppress(TypeError, NotImplementedError):
        return min(len(batches.source), enough)
    count = 0
    while count < enough:
        batches.take(1)
        if batches.epochs:
            break
        count += 1
    return count


def held_out_count(length: int, steps: int, wanted: int) -> int:
    """Return how many of a pass's batches to hold out.

    Args:
        length: How many batches the pass has.
        steps: How many batches a training takes.
        wanted: How many shall score it, if there are enough.

    Returns:
        At most `wanted`, and of a pass that has less than both at most a fifth: 0 of fewer than five.

    Example:
        >>> held_out_count(1000, 125, 8), held_out_count(40, 125, 8), held_out_count(12, 125, 8)
        (8, 8, 2)
    """
    return wanted if length >= steps + wanted else min(wanted, length // SHARE)
