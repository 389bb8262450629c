"""Loaders that can be started again, but read from an iterator that cannot."""

from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from lrfinder.snapshot import samplers
from lrfinder.training.loaders import is_one_shot

__all__ = ["held_iterators"]

_MAX_DEPTH = 4  # data sets within data sets


def held_iterators(loader: Any) -> dict[str, Any]:
    """Return the iterators that a loader reads from, by name: a second epoch goes on where the first one ended.

    They are looked for in the attributes of an `IterableDataset` that no worker reads (a worker process has its own
    copy), and among the samplers.

    Args:
        loader: What the user trains on; a `DataLoader` in its attributes is found too.

    Returns:
        The iterators; no entry for a loader that is an iterator itself.

    Example:
        >>> class Stream(IterableDataset):
        ...     def __init__(self):
        ...         self.source = iter([1, 2, 3])
        ...     def __iter__(self):
        ...         return self.source
        >>> list(held_iterators(DataLoader(Stream())))
        ['Stream.source']
    """
    if is_one_shot(loader):
        return {}
    if not isinstance(loader, DataLoader):
        inner = [each for each in getattr(loader, "__dict__", {}).values() if isinstance(each, DataLoader)]
        return {name: each for loader in inner for name, each in held_iterators(loader).items()}
    found = {f"{type(loader).__name__}.sampler": each for each in samplers(loader) if is_one_shot(each)}
    return found if loader.num_workers else found | _in_data_set(loader.dataset, 0)


def _in_data_set(data: Any, depth: int) -> dict[str, Any]:
    if not isinstance(data, IterableDataset) or depth > _MAX_DEPTH:
        return {}
    if is_one_shot(data) and not _does_anything(type(data).__iter__):
        return {type(data).__name__: data}
    return _in_attributes(data, depth)


def _does_anything(method: Any) -> bool:
    """Return whether a method reads or writes an attribute or calls something: `return self` does not."""
    code = getattr(method, "__code__", None)
    return code is None or bool(code.co_names)


def _in_attributes(owner: Any, depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in getattr(owner, "__dict__", {}).items():
        if isinstance(value, IterableDataset):
            found |= _in_data_set(value, depth + 1)
        elif hasattr(type(value), "__next__") and not hasattr(value, "seek"):  # a file can be read again
            found[f"{type(owner).__name__}.{name}"] = value
    return found
