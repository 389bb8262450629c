"""What Python objects hold: a walk through nested state that keeps the shallow contents of every object it meets."""

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
from lrfinder.snapshot.rng import is_generator

__all__ = ["SIMPLE_TYPES", "ObjectGraph"]

# Types of values that hold nothing to restore. The walk ignores them at once, so that a large vocabulary is cheap.
SIMPLE_TYPES = frozenset({
    bool, bytes, complex, float, int, str, torch.device, torch.dtype, torch.Size, type, types.BuiltinFunctionType,
    types.FunctionType, types.MethodType, types.NoneType, weakref.ref,
})  # fmt: skip
_OBJECTS = (nn.Module, torch.optim.Optimizer, torch.amp.GradScaler, types.SimpleNamespace)
_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")
_STRING = frozenset({str})
_PLAIN_DICTS = frozenset({dict, OrderedDict})
_UNNAMED = frozenset({"_parameters", "_buffers", "_modules"})  # not part of names: `Net.fc.weight`, as torch writes


class ObjectGraph:
    """The contents of modules, optimizers, scalers and of the plain containers in them, at one moment.

    Every object reached is kept by reference with a shallow copy of what it held. As the items of the copies are the
    original objects, putting back each object alone puts back the whole graph, with identities, aliases and cycles.
    The walk enters modules, optimizers, gradient scalers, dataclasses, namespaces and the attributes of tensors; dicts,
    lists, deques, sets, tuples and arrays. Any other object is kept by reference only.

    Args:
        roots: Where the walk begins. The attributes of these objects are kept whatever their class.
        skip: Objects that are kept by reference only, such as data sets, which may be long lists.

    Attributes:
        tensors: The tensors found, with the names that messages use.
        generators: The random number generators found, with their names.
        optimizers: The optimizers found.
        modules: The modules found.

    Example:
        >>> from torch import nn
        >>> model = nn.Linear(2, 1)
        >>> model.history = [0.5]
        >>> graph = ObjectGraph([model])
        >>> model.history.append(0.4); model.extra = 1
        >>> graph.restore(ErrorCollector())
        >>> model.history, hasattr(model, "extra")
        ([0.5], False)
    """

    def __init__(self, roots: Iterable[Any] = (), skip: Iterable[Any] = ()) -> None:
        self.tensors: list[tuple[str, Tensor]] = []
        self.generators: list[tuple[str, Any]] = []
        self.optimizers: list[Any] = []
        self.modules: list[nn.Module] = []
        self._seen: dict[int, Any] = {id(each): each for each in skip}  # keeps a reference, so that an id stays unique
        self._names: dict[int, str] = {}
        self._restorers: list[tuple[str, Callable[[], None]]] = []
        self._empty_dicts: list[dict[Any, Any]] = []
        for root in roots:
            self._walk(type(root).__name__, root)

    def _walk(self, name: str, root: Any) -> None:
        if not _is_entered(root) and hasattr(root, "__dict__"):  # even if it was met on the way from another root
            self._seen[id(root)] = root
            root = vars(root)
        pending = deque([(name, root)])
        while pending:
            path, value = pending.popleft()
            if id(value) not in self._seen:
                self._seen[id(value)] = value
                pending.extend(self._enter(path, value))

    def restore(self, errors: ErrorCollector) -> None:
        """Put the contents of every object back in place; may be called any number of times.

        Args:
            errors: Collects what could not be put back.
        """
        for found in self._empty_dicts:
            if found:
                found.clear()
        for name, put_back in self._restorers:
            errors.attempt(name, put_back)

    def _enter(self, path: str, value: Any) -> list[tuple[str, Any]]:
        """Return what one object holds, with names; its contents are kept."""
        if isinstance(value, dict):  # first, because most objects are dicts
            return self._enter_dict(path, value)
        if isinstance(value, Tensor):
            self.tensors.append((path, value))
            return self._enter_tensor(path, value)
        if isinstance(value, (list, deque, tuple)):
            return self._enter_sequence(path, value)
        if isinstance(value, set):
            saved = set(value)
            self._restorers.append((path, partial(_restore_set, value, saved)))
            return [(path, item) for item in saved if type(item) not in SIMPLE_TYPES]
        if isinstance(value, (np.ndarray, bytearray)):
            self._keep_array(path, value)
            return []
        if is_generator(value):
            self.generators.append((path, value))
            return []
        if isinstance(value, torch.jit.ScriptModule):
            return self._enter_script_module(path, value)
        if isinstance(value, nn.Module):
            self.modules.append(value)
        if isinstance(value, torch.optim.Optimizer):
            self.optimizers.append(value)
        return [(path, vars(value))] if _is_object(value) else []

    def _enter_tensor(self, path: str, tensor: Tensor) -> list[tuple[str, Any]]:
        """Return the attributes and hooks of a tensor; they are kept."""
        self._names[id(tensor)] = path
        attributes = dict(vars(tensor))
        hooks = {name: getattr(tensor, name) for name in _HOOKS}
        self._restorers.append((path, partial(_restore_tensor, tensor, attributes, hooks)))
        parts = [(f"{path}.{key}", item) for key, item in attributes.items() if type(item) not in SIMPLE_TYPES]
        return parts + [(f"{path}.{name}", held) for name, held in hooks.items() if held is not None]

    def _enter_script_module(self, path: str, module: nn.Module) -> list[tuple[str, Any]]:
        """Return the tensors and children of a scripted module; its training flag is kept."""
        self._restorers.append((path, partial(setattr, module, "training", module.training)))
        tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        return [(f"{path}.{name}", item) for name, item in [*tensors, *module.named_children()]]

    def _enter_dict(self, path: str, value: dict[Any, Any]) -> list[tuple[str, Any]]:
        kind = _kind(value)
        keys, items = list(kind.keys(value)), list(kind.values(value))
        self._restorers.append((path, partial(_restore_dict, value, keys, items)))
        parts: list[tuple[str, Any]] = []
        if not _STRING.issuperset(map(type, keys)):
            parts += [(path, key) for key in keys if isinstance(key, Tensor)]
        for key, item in zip(keys, items, strict=True):
            if type(item) in SIMPLE_TYPES:
                continue
            if type(item) not in _PLAIN_DICTS or item:
                parts.append((self._child(path, key), item))
            elif id(item) not in self._seen:  # most of a module's dicts of hooks
                self._empty_dicts.append(item)
        return parts

    def _child(self, path: str, key: Any) -> str:
        if isinstance(key, Tensor):
            return f"{path}[{self._names.get(id(key), 'tensor')}]"
        if key in _UNNAMED:
            return path
        return f"{path}.{key}"

    def _enter_sequence(self, path: str, value: Any) -> list[tuple[str, Any]]:
        saved = list(value)
        if isinstance(value, list):
            self._restorers.append((path, partial(_restore_list, value, saved)))
        elif isinstance(value, deque):
            self._restorers.append((path, partial(_restore_deque, value, saved)))
        return [(f"{path}[{index}]", item) for index, item in enumerate(saved) if type(item) not in SIMPLE_TYPES]

    def _keep_array(self, path: str, value: Any) -> None:
        if isinstance(value, np.ndarray) and not value.flags.writeable:
            return
        self._restorers.append((path, partial(_restore_array, value, value.copy())))


def _is_object(value: Any) -> bool:
    return isinstance(value, _OBJECTS) or (
        is_dataclass(value) and not isinstance(value, type) and hasattr(value, "__dict__")
    )


def _is_entered(value: Any) -> bool:
    return _is_object(value) or is_generator(value) or isinstance(value, (Tensor, dict, list, tuple, set, deque))


def _kind(target: dict[Any, Any]) -> type[dict[Any, Any]]:
    """Return the class whose methods are used: a subclass of it may forbid or extend assignment."""
    return OrderedDict if isinstance(target, OrderedDict) else dict


def _restore_dict(target: dict[Any, Any], keys: list[Any], values: list[Any]) -> None:
    """Put keys, values and order back. Only what differs is written, because compiled graphs guard on dicts."""
    kind = _kind(target)
    if not _are_same(kind.keys(target), keys):
        kind.clear(target)
        for key, value in zip(keys, values, strict=True):
            kind.__setitem__(target, key, value)
    elif not _are_same(kind.values(target), values):
        for key, value, current in zip(keys, values, list(kind.values(target)), strict=True):
            if current is not value:
                kind.__setitem__(target, key, value)


def _are_same(found: Collection[Any], wanted: Collection[Any]) -> bool:
    """Return whether two collections hold the same objects in the same order."""
    return len(found) == len(wanted) and all(map(operator.is_, found, wanted))


def _restore_list(target: list[Any], saved: list[Any]) -> None:
    if not _are_same(target, saved):
        list.__setitem__(target, slice(None), saved)


def _restore_deque(target: deque[Any], saved: list[Any]) -> None:
    if not _are_same(target, saved):
        target.clear()
        target.extend(saved)


def _restore_set(target: set[Any], saved: set[Any]) -> None:
    if target != saved:
        target.clear()
        target.update(saved)


def _restore_array(target: Any, saved: Any) -> None:
    if bytes(target) != bytes(saved):  # compares bits, because NaN != NaN
        target[... if isinstance(target, np.ndarray) else slice(None)] = saved


def _restore_tensor(tensor: Tensor, attributes: dict[str, Any], hooks: dict[str, Any]) -> None:
    now = vars(tensor)
    if now or attributes:
        # The marks of torch.compile stay, or it would compile again.
        marks = {key: value for key, value in now.items() if key not in attributes and key.startswith("_dynamo")}
        saved = attributes | marks
        _restore_dict(now, list(saved), list(saved.values()))
    for name, held in hooks.items():
        added = getattr(tensor, name)
        if held is None and added:
            added.clear()  # a dict that existed before is kept like any other
