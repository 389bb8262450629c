"""What is known of a loader: whether it can start again, whether it shuffles, and what reading it changes."""

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from lrfinder.snapshot.object_graph import LEAVES

__all__ = [
    "LoaderState",
    "samplers",
]

_MAX_DEPTH = 4  # a loader in a wrapper, its batch sampler, that one's sampler, and what a wrapper around it draws from


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
