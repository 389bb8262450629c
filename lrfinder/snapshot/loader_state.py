"""What reading a loader changes: its random number generators, its epoch, and the attributes of its samplers."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from lrfinder.snapshot.data_generators import DataGenerators
from lrfinder.snapshot.error_collector import ErrorCollector
from lrfinder.snapshot.object_kinds import SIMPLE_TYPES

__all__ = [
    "LoaderState",
    "samplers",
]

_MAX_DEPTH = 4  # a wrapper's loader, its batch sampler, that one's sampler, and a sampler within that


def samplers(loader: Any) -> list[Any]:
    """Return the batch sampler of a loader, then the sampler that it draws from; those that exist.

    Args:
        loader: What the user trains on.
    """
    batch_sampler = getattr(loader, "batch_sampler", None)
    # A DataLoader that was given a batch sampler also has a sequential sampler that is never used.
    inner = getattr(loader if batch_sampler is None else batch_sampler, "sampler", None)
    return [sampler for sampler in (batch_sampler, inner) if sampler is not None]


class LoaderState:
    """What reading a loader changes outside the global random number generators.

    Captured are the random number generators of the loader, its data set, transforms, samplers and collate function;
    the attributes of torch's loaders and of samplers; lists of indices that a sampler may shuffle in place; and the
    `epoch` of any other loader.

    Args:
        loader: What the user trains on. Loaders that a wrapper holds in its attributes are found too.

    Example:
        >>> import torch
        >>> loader = DataLoader(range(4), shuffle=True, generator=torch.Generator())
        >>> state = LoaderState(loader)
        >>> first = [int(x) for x in loader]
        >>> state.restore(ErrorCollector())
        >>> first == [int(x) for x in loader]
        True
    """

    def __init__(self, loader: Any) -> None:
        self._restorers: list[tuple[str, Callable[[], object]]] = []
        self._seen: list[dict[str, Any]] = []
        self._collect(loader, depth=0)
        self._generators = DataGenerators(loader)

    def restore(self, errors: ErrorCollector) -> None:
        """Put the captured state back in place; may be called any number of times.

        Args:
            errors: Collects what could not be put back.
        """
        for name, put_back in self._restorers:
            errors.attempt(name, put_back)
        self._generators.restore(errors)

    def _collect(self, owner: Any, depth: int) -> None:
        attributes = getattr(owner, "__dict__", None)
        if attributes is None or depth > _MAX_DEPTH or any(attributes is seen for seen in self._seen):
            return
        self._seen.append(attributes)
        own_samplers = samplers(owner)
        values = {**attributes, **{f"sampler {i}": sampler for i, sampler in enumerate(own_samplers)}}
        held = {name: value for name, value in values.items() if type(value) not in SIMPLE_TYPES}
        owner_name = type(owner).__name__
        if depth or isinstance(owner, DataLoader):
            self._restorers.append((owner_name, partial(_restore_attributes, attributes, dict(attributes))))
            self._collect_indices(owner_name, held)
        elif "epoch" in attributes:
            self._restorers.append((f"{owner_name}.epoch", partial(setattr, owner, "epoch", attributes["epoch"])))
        for value in held.values():
            if isinstance(value, (DataLoader, Sampler)) or any(value is sampler for sampler in own_samplers):
                self._collect(value, depth + 1)

    def _collect_indices(self, owner_name: str, held: dict[str, Any]) -> None:
        data = {id(held[name]) for name in ("dataset", "data_source") if name in held}
        for name, value in held.items():
            refill = None if id(value) in data else _refiller(value)
            if refill is not None:
                self._restorers.append((f"{owner_name}.{name}", refill))


def _restore_attributes(attributes: dict[str, Any], saved: dict[str, Any]) -> None:
    attributes.clear()
    attributes.update(saved)


def _refiller(value: Any) -> Callable[[], object] | None:
    """Return a function that gives a list or an array of indices its present contents, or None for other values."""
    if isinstance(value, list):
        return partial(value.__setitem__, slice(None), list(value))
    if isinstance(value, np.ndarray) and value.flags.writeable:
        return partial(np.copyto, value, value.copy())
    if isinstance(value, Tensor) and not value.requires_grad and value.is_contiguous():
        return partial(value.copy_, value.clone())
    return None
