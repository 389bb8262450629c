"""Endless batches from any iterable, through a clone of the user's loader, and their way to a device."""

import copy
import dataclasses
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import DataLoader, Sampler, SequentialSampler

from lrfinder.errors import ArgumentError

__all__ = ["Batches", "LoaderState", "batch_size", "is_one_shot", "is_ordered", "move"]

_MAX_DEPTH = 4  # a loader in a wrapper, its batch sampler, that one's sampler, and what a wrapper around it draws from


def move(batch: Any, device: torch.device) -> Any:
    """Return `batch` with every tensor in it on `device`.

    Tensors are found in tuples, named tuples, lists, mappings and dataclasses, nested as deep as they
    come. Whatever else a batch holds is left alone, and the user's own containers are never written to:
    where nothing has to move, the batch itself comes back.

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
    if isinstance(batch, Tensor):
        # A copy to an accelerator is ordered after its source is complete; a copy to the host is not.
        return batch.to(device, non_blocking=device.type != "cpu")
    if isinstance(batch, PackedSequence):
        return batch.to(device)  # type: ignore[arg-type]  # its stub knows dtypes only
    if isinstance(batch, (tuple, list)):
        return _moved_sequence(batch, device)
    if isinstance(batch, Mapping):
        return _moved_mapping(batch, device)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        return _moved_dataclass(batch, device)
    if callable(getattr(batch, "to", None)):
        return copy.copy(batch).to(device)
    return batch


def _moved_sequence(batch: Any, device: torch.device) -> Any:
    moved = [move(item, device) for item in batch]
    if all(new is old for new, old in zip(moved, batch, strict=True)):
        return batch
    if isinstance(batch, list):
        return moved if type(batch) is list else type(batch)(moved)
    return batch._make(moved) if hasattr(batch, "_make") else type(batch)(moved)


def _moved_mapping(batch: Any, device: torch.device) -> Any:
    moved = {key: move(value, device) for key, value in batch.items()}
    if all(moved[key] is value for key, value in batch.items()):
        return batch
    if type(batch) is dict:
        return moved
    if hasattr(batch, "__setitem__"):  # keeps what a subclass carries besides its items
        clone = copy.copy(batch)
        for key, value in moved.items():
            clone[key] = value
        return clone
    return type(batch)(moved)


def _moved_dataclass(batch: Any, device: torch.device) -> Any:
    moved = {f.name: move(getattr(batch, f.name), device) for f in dataclasses.fields(batch) if hasattr(batch, f.name)}
    if all(value is getattr(batch, name) for name, value in moved.items()):
        return batch
    clone = copy.copy(batch)
    for name, value in moved.items():
        object.__setattr__(clone, name, value)  # frozen dataclasses too
    return clone


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


def is_one_shot(loader: Any) -> bool:
    """Tell whether `loader` is an iterator, which gives its batches once and cannot be started again.

    Args:
        loader: What the user trains on.

    Returns:
        True for generators and other iterators, False for loaders, lists and other re-iterable objects.

    Example:
        >>> is_one_shot([1, 2]), is_one_shot(iter([1, 2]))
        (False, True)
    """
    return hasattr(loader, "__next__")


def is_ordered(loader: Any) -> bool:
    """Tell whether `loader` is known to give the same batches in the same order each time.

    Args:
        loader: What the user trains on.

    Returns:
        True for lists, tuples and a `DataLoader` that does not shuffle; False where it shuffles or cannot be known.

    Example:
        >>> is_ordered(DataLoader(range(4))), is_ordered(DataLoader(range(4), shuffle=True))
        (True, False)
    """
    if isinstance(loader, DataLoader):
        return any(isinstance(sampler, SequentialSampler) for sampler in _samplers(loader))
    return isinstance(loader, (list, tuple))


def _samplers(loader: Any) -> list[Any]:
    """Return the samplers of a loader, outermost first: its batch sampler, then what that draws from."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    found = [batch_sampler, getattr(batch_sampler, "sampler", None), getattr(loader, "sampler", None)]
    return [s for i, s in enumerate(found) if s is not None and all(s is not earlier for earlier in found[:i])]


class LoaderState:
    """What reading a loader changes outside the global RNGs: generators, epochs, and attributes of its samplers.

    Of a class that is not torch's only generators and `epoch` are captured: the rest is the user's business.

    Args:
        loader: What the user trains on. Loaders that a wrapper holds in its attributes are found too.

    Example:
        >>> loader = DataLoader(range(4), shuffle=True, generator=torch.Generator())
        >>> state = LoaderState(loader)
        >>> first = [int(x) for x in loader]
        >>> state.restore()
        >>> first == [int(x) for x in loader]
        True
    """

    def __init__(self, loader: Any) -> None:
        """Capture the state of `loader` as it is now."""
        self._attributes: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._values: list[Callable[[], object]] = []
        self._collect(loader, depth=0)

    def _collect(self, owner: Any, depth: int) -> None:
        attributes = getattr(owner, "__dict__", None)
        if attributes is None or depth > _MAX_DEPTH or any(attributes is seen for seen, _ in self._attributes):
            return
        samplers = _samplers(owner)
        if depth or isinstance(owner, DataLoader):
            self._attributes.append((attributes, dict(attributes)))
        elif "epoch" in attributes:
            self._values.append(partial(setattr, owner, "epoch", attributes["epoch"]))
        for value in [*attributes.values(), *samplers]:
            if isinstance(value, torch.Generator):
                self._values.append(partial(value.set_state, value.get_state()))
            elif isinstance(value, random.Random):
                self._values.append(partial(value.setstate, value.getstate()))
            elif isinstance(value, np.random.Generator):
                self._values.append(partial(setattr, value.bit_generator, "state", value.bit_generator.state))
            elif isinstance(value, (DataLoader, Sampler)) or any(value is sampler for sampler in samplers):
                self._collect(value, depth + 1)

    def restore(self) -> None:
        """Put the captured state back, in place."""
        for attributes, saved in self._attributes:
            attributes.clear()
            attributes.update(saved)
        for put_back in self._values:
            put_back()


def _clone(loader: Any) -> Any:
    """Return what to iterate in place of `loader`, so that the user's own workers and iterator are left alone."""
    if not isinstance(loader, DataLoader):
        return loader
    clone = copy.copy(loader)
    # With persistent workers iter() would return, and reset, the user's live iterator.
    clone._iterator = None
    return clone


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
            ArgumentError: It is not iterable.
        """
        if not isinstance(loader, Iterable) and not hasattr(loader, "__getitem__"):
            raise ArgumentError(f"{name} must be an iterable of batches, got {type(loader).__name__}.")
        self.one_shot = is_one_shot(loader)
        self.consumed = 0
        self.batch_size: int | None = None
        self._name = name
        self._loader = _clone(loader)
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
            if self._replay:
                taken.append(self._replay.popleft())
                continue
            try:
                taken.append(self._next())
            except StopIteration:
                return None
        return taken

    def take_first(self, count: int) -> list[Any]:
        """Return the first `count` batches, or all that there are in one pass.

        Args:
            count: How many are wanted.

        Returns:
            At least one batch.
        """
        taken = list(islice(iter(self._loader), count))
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
        try:
            batch = next(self._iterator)
        except StopIteration:
            self._require(self.consumed > 0)
            if self.one_shot:
                raise
            self._start_over()
            batch = next(self._iterator)
        if self.consumed == 0:
            self.batch_size = batch_size(batch)
        self.consumed += 1
        if self._seen is not None:
            self._seen.append(batch)
        return batch

    def _start_over(self) -> None:
        self._shut_down()
        for owner in [self._loader, *_samplers(self._loader)]:
            if callable(getattr(owner, "set_epoch", None)) and isinstance(getattr(owner, "epoch", None), int):
                owner.set_epoch(owner.epoch + 1)
                break
        self._iterator = iter(self._loader)

    def restart(self) -> None:
        """Begin again with the first batch; a one-shot iterator's batches so far are replayed from memory."""
        if self.one_shot:
            self._replay = deque(self._seen or ())
            self._seen = None
        else:
            self.close()

    def close(self) -> None:
        """Stop the workers that this stream has started."""
        if not self.one_shot:
            self._shut_down()

    def _shut_down(self) -> None:
        iterator, self._iterator = self._iterator, None
        if isinstance(self._loader, DataLoader):
            self._loader._iterator = None
            # Waiting for the garbage collector would leave worker processes behind.
            getattr(iterator, "_shutdown_workers", lambda: None)()
