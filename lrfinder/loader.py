"""What is known of a loader: whether it can start again, whether it shuffles, and what reading it changes."""

import copy
import random
from collections.abc import Callable, Generator, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, SequentialSampler

from lrfinder.contents import LEAVES
from lrfinder.errors import ArgumentError

__all__ = ["LoaderState", "check_loader", "clone", "is_one_shot", "is_ordered", "samplers", "shut_down"]

_MAX_DEPTH = 4  # a loader in a wrapper, its batch sampler, that one's sampler, and what a wrapper around it draws from


def check_loader(loader: Any, name: str = "loader") -> None:
    """Insist on an iterable of batches.

    Args:
        loader: What was handed over as one.
        name: The argument that it came in, for the message.

    Raises:
        ArgumentError: It cannot be iterated, or what it would give are rows, samples or keys, not batches.
    """
    if isinstance(loader, Dataset) and not isinstance(loader, IterableDataset):
        remedy = "its items are samples; pass DataLoader(dataset, batch_size=...)"
    elif isinstance(loader, (Tensor, np.ndarray)):
        remedy = "its items are rows; pass DataLoader(TensorDataset(inputs, targets), batch_size=...)"
    elif isinstance(loader, (Mapping, str, bytes, nn.Module)) or not (
        isinstance(loader, Iterable) or hasattr(loader, "__getitem__")
    ):
        remedy = "pass a DataLoader, a list of batches, or a generator"
    else:
        return
    raise ArgumentError(f"{name} must be an iterable of batches, got {type(loader).__name__}: {remedy}.")


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
        return any(
            isinstance(sampler, SequentialSampler) or getattr(sampler, "shuffle", True) is False
            for sampler in samplers(loader)
        )
    return isinstance(loader, (list, tuple))


def samplers(loader: Any) -> list[Any]:
    """Return the samplers of a loader.

    Args:
        loader: What the user trains on.

    Returns:
        Its batch sampler, then what that one draws from; none for what has no samplers.
    """
    batch_sampler = getattr(loader, "batch_sampler", None)
    # Beside a batch sampler of the user's, torch's loader has a sequential sampler that nobody reads.
    inner = getattr(loader if batch_sampler is None else batch_sampler, "sampler", None)
    return [sampler for sampler in (batch_sampler, inner) if sampler is not None]


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
        self._values: list[Callable[[], object] | None] = []
        self._collect(loader, depth=0)

    def _collect(self, owner: Any, depth: int) -> None:
        attributes = getattr(owner, "__dict__", None)
        if attributes is None or depth > _MAX_DEPTH or any(attributes is seen for seen, _ in self._attributes):
            return
        own_samplers = samplers(owner)
        values = {**attributes, **{f"sampler {i}": sampler for i, sampler in enumerate(own_samplers)}}
        held = [value for value in values.values() if type(value) not in LEAVES]
        if depth or isinstance(owner, DataLoader):
            self._attributes.append((attributes, dict(attributes)))
            data = {id(values[name]) for name in ("dataset", "data_source") if name in values}
            self._values += [_refill(value) for value in held if id(value) not in data]
        elif "epoch" in attributes:
            self._values.append(partial(setattr, owner, "epoch", attributes["epoch"]))
        for value in held:
            self._values.append(_rewind(value))
            if isinstance(value, (DataLoader, Sampler)) or any(value is sampler for sampler in own_samplers):
                self._collect(value, depth + 1)

    def restore(self) -> None:
        """Put the captured state back, in place."""
        for attributes, saved in self._attributes:
            attributes.clear()
            attributes.update(saved)
        for put_back in self._values:
            if put_back is not None:
                put_back()


def _rewind(value: Any) -> Callable[[], object] | None:
    """Return what puts a random generator back to where it is now."""
    if isinstance(value, torch.Generator):
        return partial(value.set_state, value.get_state())
    if isinstance(value, random.Random):
        return partial(value.setstate, value.getstate())
    if isinstance(value, np.random.Generator):
        return partial(setattr, value.bit_generator, "state", value.bit_generator.state)
    return None


def _refill(value: Any) -> Callable[[], object] | None:
    """Return what gives a list or an array of indices, which a sampler may shuffle in place, its present contents."""
    if isinstance(value, list):
        return partial(value.__setitem__, slice(None), list(value))
    if isinstance(value, np.ndarray) and value.flags.writeable:
        return partial(np.copyto, value, value.copy())
    if isinstance(value, Tensor) and not value.requires_grad and value.is_contiguous():
        return partial(value.copy_, value.clone())
    return None


def clone(loader: Any) -> Any:
    """Return what to iterate in place of a loader, so that the user's own workers and live iterators are left alone.

    Args:
        loader: A loader, or a wrapper that holds one in an attribute.

    Returns:
        A shallow copy without a live iterator; the same object where there is none to protect.
    """
    if issubclass(type(loader), DataLoader):  # Accelerate's wrapper says that it is one, but holds one
        twin = copy.copy(loader)
        # With persistent workers iter() would return, and reset, the user's live iterator.
        twin._iterator = None
        return twin
    inner = {name: value for name, value in getattr(loader, "__dict__", {}).items() if _has_live_workers(value)}
    if not inner:
        return loader
    twin = copy.copy(loader)
    twin.__dict__.update({name: clone(value) for name, value in inner.items()})
    return twin


def shut_down(twin: Any, iterator: Any) -> None:
    """Stop the workers that iterating a clone has started; the garbage collector might leave them running.

    Args:
        twin: What `clone` returned.
        iterator: What iterating it gave, None where it wasn't.
    """
    if isinstance(iterator, Generator):
        iterator.close()
    iterators = [iterator]
    for loader in [twin, *getattr(twin, "__dict__", {}).values()]:
        if isinstance(loader, DataLoader) and loader.persistent_workers:
            iterators.append(loader._iterator)
            loader._iterator = None
    for each in iterators:
        getattr(each, "_shutdown_workers", lambda: None)()


def _has_live_workers(value: Any) -> bool:
    return isinstance(value, DataLoader) and value.persistent_workers
