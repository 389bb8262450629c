"""Checks of loaders, and iterating over them without touching the user's own workers."""

import copy
from collections.abc import Generator, Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, SequentialSampler

from lrfinder.errors import ArgumentError
from lrfinder.snapshot import samplers

__all__ = ["check_loader", "clone", "is_one_shot", "is_ordered", "shut_down"]


def check_loader(loader: Any, name: str = "loader") -> None:
    """Check that a loader is an iterable of batches.

    Args:
        loader: What was passed as one.
        name: The argument that it was passed as, for the message.

    Raises:
        ArgumentError: It cannot be iterated, or it gives rows, samples or keys instead of batches; or its
            batch sampler cannot start again.
    """
    if any(hasattr(sampler, "sampler_iter") for sampler in samplers(loader)):  # torchdata before 0.11
        raise ArgumentError(
            f"{name} must have a batch sampler that can start again, got a {type(loader).__name__} whose batch sampler "
            "holds a running iterator, as those of torchdata before 0.11 do; install torchdata>=0.11."
        )
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
    """Return whether a loader is an iterator, which gives its batches once and cannot be started again.

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
    """Return whether a loader is known to give the same batches in the same order each time.

    Args:
        loader: What the user trains on.

    Returns:
        True for lists, tuples and a `DataLoader` that does not shuffle; False where it shuffles or is unknown.

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


def clone(loader: Any) -> Any:
    """Return what to iterate in place of a loader. The user's workers and iterators are not touched.

    Args:
        loader: A loader, or a wrapper that holds one in an attribute.

    Returns:
        A shallow copy without a live iterator; the same object where there is no iterator to protect.
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
    """Stop the workers that were started by iterating a clone; the garbage collector might leave them running.

    Args:
        twin: What `clone` returned.
        iterator: Its iterator, None where it was not iterated.
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
