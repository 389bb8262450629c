"""What Python objects hold: a walk through nested state that keeps the shallow contents of everything it meets."""

import operator
import types
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import is_dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lrfinder.snapshot.error_collector import ErrorCollector
from lrfinder.snapshot.rng import GENERATORS

__all__ = ["LEAVES", "ObjectGraph"]

# Leaves that hold nothing to restore: passed over without a further look, so that large vocabularies stay cheap.
LEAVES = frozenset({
    bool, bytes, complex, float, int, str, torch.device, torch.dtype, torch.Size, type, types.BuiltinFunctionType,
    types.FunctionType, types.MethodType, types.NoneType, weakref.ref,
})  # fmt: skip
_OBJECTS = (nn.Module, torch.optim.Optimizer, torch.amp.GradScaler, types.SimpleNamespace)
_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")
_NAMES = frozenset({str})
_PLAIN_DICTS = frozenset({dict, OrderedDict})
_TRANSPARENT = frozenset({"_parameters", "_buffers", "_modules"})  # left out of names: `Net.fc.weight`, as torch writes


class ObjectGraph:
    """The contents of modules, optimizers, scalers and of the plain containers in them, as found when added.

    Every object reached is kept by reference with a shallow copy of what it held. As the parts of the copy are the
    original objects, restoring each object on its own puts the whole graph back: identities, aliases and cycles too.
    The walk enters modules, optimizers, gradient scalers, dataclasses, namespaces and the attributes of tensors; dicts,
    lists, deques, sets, tuples and arrays. Any other object is kept by reference only.

    Args:
        leave: More that is kept by reference only, such as data sets, which may be long lists.

    Example:
        >>> from torch import nn
        >>> model = nn.Linear(2, 1)
        >>> model.history = [0.5]
        >>> contents = ObjectGraph()
        >>> contents.add("Linear", model)
        >>> model.history.append(0.4); model.extra = 1
        >>> contents.restore(ErrorCollector())
        >>> model.history, hasattr(model, "extra")
        ([0.5], False)
    """

    def __init__(self, leave: Iterable[Any] = ()) -> None:
        """Begin with nothing."""
        self.tensors: list[tuple[str, Tensor]] = []
        self.generators: list[tuple[str, Any]] = []
        self.optimizers: list[Any] = []
        self.modules: list[nn.Module] = []
        self._seen: dict[int, Any] = {id(each): each for each in leave}
        self._names: dict[int, str] = {}
        self._kept: list[tuple[str, Callable[[], None]]] = []
        self._empty: list[dict[Any, Any]] = []

    def add(self, name: str, root: Any) -> None:
        """Keep the contents of an object and of all that is reached from it.

        Args:
            name: What messages call the object, such as the name of its class.
            root: The object; its own attributes are kept whatever its class.
        """
        if not _is_walked(root) and hasattr(root, "__dict__"):  # even if it was met on the way from another
            self._seen[id(root)] = root
            root = vars(root)
        pending = deque([(name, root)])
        while pending:
            path, value = pending.popleft()
            if id(value) not in self._seen:
                self._seen[id(value)] = value  # held from here on, so that its id stays its own
                pending.extend(self._enter(path, value))

    def restore(self, failures: ErrorCollector) -> None:
        """Put the contents of every object back in place; may be called any number of times.

        Args:
            failures: Takes note of what could not be put back.
        """
        for found in self._empty:
            if found:
                found.clear()
        for name, put_back in self._kept:
            failures.attempt(name, put_back)

    def _enter(self, path: str, value: Any) -> list[tuple[str, Any]]:
        """Return what an object holds, by name, having kept the object itself."""
        if isinstance(value, dict):  # first, being the most
            return self._keep_dict(path, value)
        if isinstance(value, Tensor):
            self.tensors.append((path, value))
            return self._tensor_parts(path, value)
        if isinstance(value, (list, deque, tuple)):
            return self._keep_row(path, value)
        if isinstance(value, set):
            saved = set(value)
            self._kept.append((path, partial(_restore_set, value, saved)))
            return [(path, item) for item in saved if type(item) not in LEAVES]
        if isinstance(value, (np.ndarray, bytearray)):
            self._keep_array(path, value)
            return []
        if isinstance(value, GENERATORS):
            self.generators.append((path, value))
            return []
        if isinstance(value, torch.jit.ScriptModule):
            return self._script_parts(path, value)
        if isinstance(value, nn.Module):
            self.modules.append(value)
        if isinstance(value, torch.optim.Optimizer):
            self.optimizers.append(value)
        return [(path, vars(value))] if _is_object(value) else []

    def _tensor_parts(self, path: str, tensor: Tensor) -> list[tuple[str, Any]]:
        """Return what hangs on a tensor, by name: attributes and hooks, having kept their membership."""
        self._names[id(tensor)] = path
        attributes = dict(vars(tensor))
        hooks = {name: getattr(tensor, name) for name in _HOOKS}
        self._kept.append((path, partial(_restore_tensor, tensor, attributes, hooks)))
        parts = [(f"{path}.{key}", item) for key, item in attributes.items() if type(item) not in LEAVES]
        return parts + [(f"{path}.{name}", held) for name, held in hooks.items() if held is not None]

    def _script_parts(self, path: str, module: nn.Module) -> list[tuple[str, Any]]:
        """Return a scripted module's tensors and children: of its own only the training flag is kept."""
        self._kept.append((path, partial(setattr, module, "training", module.training)))
        tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        return [(f"{path}.{name}", item) for name, item in [*tensors, *module.named_children()]]

    def _keep_dict(self, path: str, value: dict[Any, Any]) -> list[tuple[str, Any]]:
        kind = _kind(value)
        keys, items = list(kind.keys(value)), list(kind.values(value))
        self._kept.append((path, partial(_restore_dict, value, keys, items)))
        parts: list[tuple[str, Any]] = []
        if not _NAMES.issuperset(map(type, keys)):
            parts += [(path, key) for key in keys if isinstance(key, Tensor)]
        for key, item in zip(keys, items, strict=True):
            if type(item) in LEAVES:
                continue
            if type(item) not in _PLAIN_DICTS or item:
                parts.append((self._child(path, key), item))
            elif id(item) not in self._seen:  # as most of a module's dicts of hooks
                self._empty.append(item)
        return parts

    def _child(self, path: str, key: Any) -> str:
        if isinstance(key, Tensor):
            return f"{path}[{self._names.get(id(key), 'tensor')}]"
        if key in _TRANSPARENT:
            return path
        return f"{path}.{key}"

    def _keep_row(self, path: str, value: Any) -> list[tuple[str, Any]]:
        saved = list(value)
        if isinstance(value, list):
            self._kept.append((path, partial(_restore_list, value, saved)))
        elif isinstance(value, deque):
            self._kept.append((path, partial(_restore_deque, value, saved)))
        return [(f"{path}[{index}]", item) for index, item in enumerate(saved) if type(item) not in LEAVES]

    def _keep_array(self, path: str, value: Any) -> None:
        if isinstance(value, np.ndarray) and not value.flags.writeable:
            return
        self._kept.append((path, partial(_restore_array, value, value.copy())))


def _is_object(value: Any) -> bool:
    return isinstance(value, _OBJECTS) or (
        is_dataclass(value) and not isinstance(value, type) and hasattr(value, "__dict__")
    )


def _is_walked(value: Any) -> bool:
    return _is_object(value) or isinstance(value, (Tensor, dict, list, tuple, set, deque, *GENERATORS))


def _kind(target: dict[Any, Any]) -> type[dict[Any, Any]]:
    """Return the class that does a dict's storing: one derived from it may forbid or extend assignment."""
    return OrderedDict if isinstance(target, OrderedDict) else dict


def _restore_dict(target: dict[Any, Any], keys: list[Any], values: list[Any]) -> None:
    """Put members, values and order back, writing only what differs: compiled graphs guard on untouched dicts."""
    kind = _kind(target)
    if not _are(kind.keys(target), keys):
        kind.clear(target)
        for key, value in zip(keys, values, strict=True):
            kind.__setitem__(target, key, value)
    elif not _are(kind.values(target), values):
        for key, value, current in zip(keys, values, list(kind.values(target)), strict=True):
            if current is not value:
                kind.__setitem__(target, key, value)


def _are(found: Collection[Any], wanted: Collection[Any]) -> bool:
    """Return whether both hold the same objects in the same order."""
    return len(found) == len(wanted) and all(map(operator.is_, found, wanted))


def _restore_list(target: list[Any], saved: list[Any]) -> None:
    if not _are(target, saved):
        list.__setitem__(target, slice(None), saved)


def _restore_deque(target: deque[Any], saved: list[Any]) -> None:
    if not _are(target, saved):
        target.clear()
        target.extend(saved)


def _restore_set(target: set[Any], saved: set[Any]) -> None:
    if target != saved:
        target.clear()
        target.update(saved)


def _restore_array(target: Any, saved: Any) -> None:
    if bytes(target) != bytes(saved):  # bits, since a NaN equals nothing
        target[... if isinstance(target, np.ndarray) else slice(None)] = saved


def _restore_tensor(tensor: Tensor, attributes: dict[str, Any], hooks: dict[str, Any]) -> None:
    now = vars(tensor)
    if now or attributes:
        # The marks of torch.compile stay: without them it would compile again.
        marks = {key: value for key, value in now.items() if key not in attributes and key.startswith("_dynamo")}
        saved = attributes | marks
        _restore_dict(now, list(saved), list(saved.values()))
    for name, held in hooks.items():
        added = getattr(tensor, name)
        if held is None and added:
            added.clear()  # where there were some, their dict is kept like any other
