"""Training and validation batches from one loader: its first epoch, split in two."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch

from lrfinder.snapshot import ErrorCollector, LoaderState, RandomStreams
from lrfinder.training.batches import Batches
from lrfinder.training.loaders import clone

__all__ = ["Remaining", "epoch_length", "held_out_count"]

SHARE = 0.2  # of the batches of a short epoch, held out for validation


class Remaining(Batches):
    """A stream that repeats the first epoch of a loader without its first batches.

    A loader that shuffles would train on the held-out samples in its next epoch, in other batches. So each epoch is the
    first one again: the loader and the random state are put back while its order is drawn.

    Args:
        batches: The stream of the loader, restored to where its first epoch begins.
        held_out: The number of batches to leave out; fewer than an epoch has.
        devices: Accelerators whose random state a loader might use.

    Example:
        >>> remaining = Remaining(Batches([1, 2, 3]), held_out=1)
        >>> remaining.take(4)
        [2, 3, 2, 3]
    """

    def __init__(self, batches: Batches, held_out: int, devices: Sequence[torch.device] = ()) -> None:
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


def epoch_length(batches: Batches, enough: int) -> int:
    """Return the number of batches in an epoch, at most `enough`.

    Args:
        batches: A stream at its beginning; it is read where the loader does not know its length.
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
    """Return the number of batches of an epoch to hold out for validation.

    Args:
        length: The number of batches in the epoch.
        steps: The number of batches that a training takes.
        wanted: The number of validation batches, if there are enough.

    Returns:
        `wanted`, if the epoch has enough batches for both; else at most a fifth of it, 0 of fewer than five.

    Example:
        >>> held_out_count(1000, 125, 8), held_out_count(40, 125, 8), held_out_count(12, 125, 8)
        (8, 8, 2)
    """
    return wanted if length >= steps + wanted else min(wanted, int(SHARE * length))
