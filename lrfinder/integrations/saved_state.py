"""A copy of state dicts, in host memory or in a file, for finders that can be reset later."""

import copy
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from lrfinder.errors import ArgumentError

__all__ = ["SavedState"]


class SavedState:
    """The state dicts of objects as they are now.

    Args:
        objects: What has `state_dict` and `load_state_dict`.
        in_memory: Keep the copies in host memory; otherwise in a file, which goes with this object.
        folder: Where the file is made; by default in the system's folder for temporary files.

    Raises:
        ArgumentError: The folder does not exist.

    Example:
        >>> model = torch.nn.Linear(2, 1)
        >>> saved, before = SavedState([model]), model.weight.tolist()
        >>> _ = torch.nn.init.zeros_(model.weight)
        >>> saved.restore([model])
        >>> model.weight.tolist() == before
        True
    """

    def __init__(self, objects: Sequence[Any], *, in_memory: bool = True, folder: str | None = None) -> None:
        self._states: list[Any] = [tree_map(_host_copy, each.state_dict()) for each in objects]
        self._path: Path | None = None
        if in_memory:
            return
        if folder is not None and not Path(folder).is_dir():
            raise ArgumentError(f"Given `cache_dir` is not a valid directory: {folder!r}. Create it, or leave it out.")
        with tempfile.NamedTemporaryFile(suffix=".pt", prefix="lrfinder_", dir=folder, delete=False) as file:
            self._path = Path(file.name)
            weakref.finalize(self, self._path.unlink, missing_ok=True)
            torch.save(self._states, file)
        self._states = []

    def restore(self, objects: Sequence[Any]) -> None:
        """Load the state dicts into the objects that differ from them; the others are not touched.

        Args:
            objects: Those whose state was saved, in the same order.
        """
        # Written by this object, so that unpickling is safe.
        states = self._states if self._path is None else torch.load(self._path, weights_only=False)
        for each, state in zip(objects, states, strict=True):
            if not _equal(tree_map(_host_copy, each.state_dict()), state):
                each.load_state_dict(copy.deepcopy(state))


def _host_copy(leaf: Any) -> Any:
    return leaf.detach().cpu().clone() if isinstance(leaf, Tensor) else copy.deepcopy(leaf)


def _equal(first: Any, second: Any) -> bool:
    (leaves, structure), (others, other_structure) = tree_flatten(first), tree_flatten(second)
    return structure == other_structure and all(map(_equal_leaves, leaves, others))


def _equal_leaves(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    return bool(first == second)
