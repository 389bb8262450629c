"""Endless batches from any iterable, through a clone of the user's loader, and their way to a device."""

import copy
import dataclasses
import operator
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from lrfinder.errors import ArgumentError
from lrfinder.loader import check_loader, clone, is_one_shot, samplers, shut_down

__all__ = ["Batches", "batch_size", "move"]

_END = object()  # what a loader that has ended gives


def move(batch: Any, device: torch.device) -> Any:
    """Return `batch` with every tensor in it on `device`.

    Tensors are found in tuples, named tuples, lists, mappings and dataclasses, nested as deep as they come, and what
    has a method `to` moves itself. Whatever else a batch holds is left alone, and the user's own containers are never
    written to: where nothing has to move, the batch itself comes back.

    Args:
        batch: A batch as the loader gave it.
        device: Where its tensors are wanted.

    Returns:
        The same object where nothing moved, else a shallow copy with the moved parts in place.

    Example:
        >>> batch = {"x": torch.zeros(2), "name": "left alone"}
        >>> move(batch, torch.device("meta"))["x"].device
        device(type='meta')
        >>> move(batch, torch.device("cpu")) is batch
        True
    """
    if type(batch) is tuple or type(batch) is list:  # first, being the most
        return _moved_sequence(batch, device)
    if isinstance(batch, Tensor):
        # A copy to an accelerator is ordered after its source is complete; a copy to the host is not.
        return batch if batch.device == device else batch.to(device, non_blocking=device.type != "cpu")
    if isinstance(batch, PackedSequence):
        return batch.to(device)  # type: ignore[arg-type]  # its stub knows dtypes only
    if isinstance(batch, (tuple, list)):
        return _moved_sequence(batch, device)
    if isinstance(batch, Mapping):
        return _moved_mapping(batch, device)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        return _moved_dataclass(batch, device)
    if callable(getattr(batch, "to", None)) and not isinstance(batch, type):
        twin = _shallow_copy(batch)
        moved = twin.to(device)
        return twin if moved is None else moved  # some move themselves and return nothing
    return batch


def _shallow_copy(container: Any) -> Any:
    # A container keeps its items in a list or a dictionary of its own, which the copy must not share.
    twin = copy.copy(container)
    if getattr(twin, "__dict__", None) and twin is not container:
        inner = {name: value for name, value in vars(twin).items() if isinstance(value, (dict, list))}
        vars(twin).update({name: copy.copy(value) for name, value in inner.items()})
    return twin


def _moved_sequence(batch: Any, device: torch.device) -> Any:
    for item in batch:
        if type(item) is not Tensor or item.device != device:
            break
    else:  # the usual case costs next to nothing
        return batch
    moved = [move(item, device) for item in batch]
    if all(map(operator.is_, moved, batch)):
        return batch
    if isinstance(batch, list):
        twin = _shallow_copy(batch)  # keeps what a subclass carries besides its items
        twin[:] = moved
        return twin
    return batch._make(moved) if hasattr(batch, "_make") else type(batch)(moved)


def _moved_mapping(batch: Any, device: torch.device) -> Any:
    moved = {key: move(value, device) for key, value in batch.items()}
    if all(moved[key] is value for key, value in batch.items()):
        return batch
    if type(batch) is dict:
        return moved
    if hasattr(batch, "__setitem__"):  # keeps what a subclass carries besides its items
        twin = _shallow_copy(batch)
        for key, value in moved.items():
            twin[key] = value
        return twin
    return type(batch)(moved)


def _moved_dataclass(batch: Any, device: torch.device) -> Any:
    moved = {f.name: move(getattr(batch, f.name), device) for f in dataclasses.fields(batch) if hasattr(batch, f.name)}
    if all(value is getattr(batch, name) for name, value in moved.items()):
        return batch
    twin = copy.copy(batch)
    for name, value in moved.items():
        object.__setattr__(twin, name, value)  # frozen dataclasses too
    return twin


def batch_size(batch: Any) -> int | None:
    """Return the length of the first dimension of the first tensor in `batch`, or None where there is none.

    Args:
        batch: A batch as the loader gave it.

    Returns:
        The number of samples, as far as it can be seen from outside.

    Example:
        >>> batch_size((torch.zeros(32, 8), torch.zeros(32)))
        32
    """
    if isinstance(batch, PackedSequence):
        return int(batch.batch_sizes[0])
    if isinstance(batch, Tensor):
        return batch.shape[0] if batch.dim() else None
    items: Iterable[Any] = ()
    if isinstance(batch, Mapping):
        items = batch.values()
    elif isinstance(batch, (tuple, list)):
        items = batch
    elif dataclasses.is_dataclass(batch):
        items = (getattr(batch, field.name, None) for field in dataclasses.fields(batch))
    return next((size for item in items if (size := batch_size(item)) is not None), None)


class Batches:
    """An endless stream of batches: where the loader ends, it is started again with its sampler's next epoch.

    Args:
        loader: Any iterable of batches. An iterator is read once; what it gave can be replayed, not rewound.
        remember: Keep what a one-shot iterator gives, so that `restart` can replay it.
        name: The argument that this loader came in, for messages.

    Example:
        >>> batches = Batches([1, 2, 3])
        >>> batches.take(2), batches.take(2)
        ([1, 2], [3, 1])
    """

    def __init__(self, loader: Any, *, remember: bool = False, name: str = "loader") -> None:
        """Look at the loader; nothing is read yet.

        Raises:
            ArgumentError: It is no iterable of batches.
        """  # noqa: DOC502 - raised by check_loader
        check_loader(loader, name)
        self.one_shot = is_one_shot(loader)
        self.consumed = 0
        self.epochs = 0
        self.batch_size: int | None = None
        self._name = name
        self.source = loader
        self._loader = clone(loader)
        self._iterator: Iterator[Any] | None = None
        self._seen: list[Any] | None = [] if self.one_shot and remember else None
        self._replay: deque[Any] = deque()

    def take(self, count: int) -> list[Any] | None:
        """Return the next `count` batches, or None once a one-shot iterator has no more.

        Args:
            count: How many batches one training step needs.

        Returns:
            A list of `count` batches, or None where fewer are left.
        """
        taken = []
        for _ in range(count):
            batch = self._replay.popleft() if self._replay else self._next()
            if batch is _END:
                return None
            taken.append(batch)
        return taken

    def take_first(self, count: int) -> list[Any]:
        """Return the first `count` batches, or all that there are in one pass.

        Args:
            count: How many are wanted.

        Returns:
            At least one batch.
        """
        try:
            self._iterator = iter(self._loader)
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
            self._iterator = iter(self._loader)
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
        if self._seen is not None:
            self._seen.append(batch)
        return batch

    def _start_over(self) -> None:
        self.epochs += 1
        if not getattr(self._loader, "persistent_workers", False):
            self._shut_down()
        for owner in [self._loader, *samplers(self._loader)]:
            if callable(getattr(owner, "set_epoch", None)) and isinstance(getattr(owner, "epoch", None), int):
                owner.set_epoch(owner.epoch + 1)
                break
        self._iterator = iter(self._loader)

    def restart(self) -> None:
        """Begin again with the first batch; a one-shot iterator's batches so far are replayed from memory."""
        self.epochs = 0
        if self.one_shot:
            self._replay = deque(self._seen or ())
            self._seen = None
        else:
            self.close()
            self._loader = clone(self.source)

    def close(self) -> None:
        """Stop the workers that this stream has started."""
        if not self.one_shot:
            self._shut_down()

    def _shut_down(self) -> None:
        iterator, self._iterator = self._iterator, None
        shut_down(self._loader, iterator)
