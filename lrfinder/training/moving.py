"""Move a batch to a device."""

import copy
import dataclasses
import operator
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

__all__ = ["batch_size", "move"]


def move(batch: Any, device: torch.device) -> Any:
    """Return a batch with all its tensors on a device.

    Tensors are found in tuples, named tuples, lists, mappings and dataclasses at any depth. An object with a method
    `to` moves itself. Anything else in a batch stays as it is. The user's own containers are never written to.

    Args:
        batch: A batch as the loader gave it.
        device: The device.

    Returns:
        The same object where nothing had to move, else a shallow copy with the moved tensors.

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
