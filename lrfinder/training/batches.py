"""Endless batches from any iterable, through a clone of the user's loader."""

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

from lrfinder.errors import ArgumentError
from lrfinder.snapshot import samplers
from lrfinder.training.loaders import check_loader, clone, is_one_shot, shut_down
from lrfinder.training.moving import batch_size
from lrfinder.training.one_pass import held_iterators

__all__ = [
    "Batches",
    "batch_size",
]

_END = object()  # what a loader that has ended gives


class Batches:
    """An endless stream of batches: when the loader ends, its next epoch begins.

    Args:
        loader: Any iterable of batches. An iterator is read once.
        remember: Keep the batches of an iterator in memory, so that `restart` can replay them.
        name: The argument that the loader was passed as, for messages.

    Attributes:
        one_shot: Whether the loader is an iterator.
        consumed: The number of batches read so far.
        epochs: How often the loader was started again.
        batch_size: The size of the first batch, None where it is unknown.
        epoch_length: The number of batches in an epoch, None where none has ended.
        source: The loader as it was passed.

    Raises:
        ArgumentError: The loader is no iterable of batches.

    Example:
        >>> batches = Batches([1, 2, 3])
        >>> batches.take(2), batches.take(2)
        ([1, 2], [3, 1])
    """

    def __init__(self, loader: Any, *, remember: bool = False, name: str = "loader") -> None:
        check_loader(loader, name)
        self.one_shot = is_one_shot(loader)
        self.consumed = 0
        self.epochs = 0
        self.batch_size: int | None = None
        self.epoch_length: int | None = None
        self._in_epoch = 0
        self._name = name
        self.source = loader
        self._held = held_iterators(loader)
        self._own_iterator = ""
        self._loader = clone(loader)
        self._iterator: Iterator[Any] | None = None
        self._seen: list[Any] | None = [] if self.one_shot and remember else None
        self._replay: deque[Any] = deque()

    @property
    def held_iterator(self) -> str:
        """The name of an iterator that the loader reads from in every epoch, or "" if it starts again."""
        now = [id(each) for each in held_iterators(self.source).values()] if self._held else []
        return next((name for name, each in self._held.items() if id(each) in now), self._own_iterator)

    def _iterate(self) -> Iterator[Any]:
        attributes = dict(getattr(self._loader, "__dict__", {}))
        iterator: Iterator[Any] = iter(self._loader)
        if not self.one_shot:
            held = [f"{type(self._loader).__name__}.{name}" for name, each in attributes.items() if each is iterator]
            self._own_iterator = next(iter(held), "")
        return iterator

    def take(self, count: int) -> list[Any] | None:
        """Return the next batches, or None when an iterator has no more.

        Args:
            count: The number of batches that one training step needs.

        Returns:
            `count` batches, or None where fewer are left.
        """
        taken = []
        for _ in range(count):
            batch = self._replay.popleft() if self._replay else self._next()
            if batch is _END:
                return None
            taken.append(batch)
        return taken

    def take_first(self, count: int) -> list[Any]:
        """Return the first batches of an epoch.

        Args:
            count: The number of batches.

        Returns:
            At most `count` batches, at least one.
        """
        try:
            self._iterator = self._iterate()
            taken = list(islice(self._iterator, count))
        finally:
            self.close()
        self._require(len(taken) > 0)
        return taken

    def _require(self, some: bool) -> None:  # noqa: FBT001 - a condition, as for assert
        if not some:
            raise ArgumentError(
                f"{self._name} must give at least one batch, got an empty {type(self._loader).__name__}; "
                "check the data set's length, batch_size and drop_last."
            )

    def _next(self) -> Any:
        if self._iterator is None:
            self._iterator = self._iterate()
        # No `except StopIteration`: what starting over raises would carry it as its context.
        batch = next(self._iterator, _END)
        if batch is _END:
            self._require(self.consumed > 0)
            if self.one_shot:
                return _END
            self._start_over()
            batch = next(self._iterator, _END)
            if batch is _END:
                return _END
        if self.consumed == 0:
            self.batch_size = batch_size(batch)
        self.consumed += 1
        self._in_epoch += 1
        if self._seen is not None:
            self._seen.append(batch)
        return batch

    def _start_over(self) -> None:
        self.epochs += 1
        self.epoch_length, self._in_epoch = self._in_epoch, 0
        if not getattr(self._loader, "persistent_workers", False):
            self._shut_down()
        for owner in [self._loader, *samplers(self._loader)]:
            if callable(getattr(owner, "set_epoch", None)) and isinstance(getattr(owner, "epoch", None), int):
                owner.set_epoch(owner.epoch + 1)
                break
        self._iterator = self._iterate()

    def restart(self) -> None:
        """Begin again with the first batch; the batches of an iterator are replayed from memory."""
        self.epochs = self._in_epoch = 0
        if self.one_shot:
            self._replay = deque(self._seen or ())
            self._seen = None
        else:
            self.close()
            self._loader = clone(self.source)

    def close(self) -> None:
        """Stop the workers that this stream started."""
        if not self.one_shot:
            self._shut_down()

    def _shut_down(self) -> None:
        iterator, self._iterator = self._iterator, None
        shut_down(self._loader, iterator)
