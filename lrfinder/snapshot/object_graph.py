"""What Python objects hold: a walk through nested state that keeps the shallow contents of every object it meets."""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from lrfinder.snapshot.attributes import Slot, attributes_of, slots_of
from lrfinder.snapshot.containers import (
    array_restorer,
    dict_class,
    restore_dict,
    sequence_restorer,
    set_restorer,
    size_of_array,
)
from lrfinder.snapshot.error_collector import ErrorCollector
from lrfinder.snapshot.fsdp import reshard
from lrfinder.snapshot.functions import cell_restorers, held_by_function, held_by_method
from lrfinder.snapshot.object_kinds import NOT_ENTERED, SIMPLE_TYPES, Kind, kind_of
from lrfinder.snapshot.shared_generators import generators_of_class, generators_of_function

__all__ = ["LARGEST", "MOST_OBJECTS", "ObjectGraph"]

MOST_OBJECTS = 20_000  # reached through ordinary objects and functions; the others are not entered
LONGEST = 2_000  # items of a container reached that way; the items of a longer one are not entered
LARGEST = 1 << 26  # bytes of a tensor or an array reached that way; a larger one is taken for data

_LONGEST_NAME = 200
_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")
_STRING = frozenset({str})
_PLAIN_DICTS = frozenset({dict, OrderedDict})
_PLAIN_CONTAINERS = frozenset({dict, OrderedDict, list, tuple, deque, set, frozenset})
_UNNAMED = frozenset({"_parameters", "_buffers", "_modules"})  # not part of names: `Net.fc.weight`, as torch writes
_STATE = frozenset({Kind.MODULE, Kind.SCRIPT_MODULE, Kind.OPTIMIZER})
_FUNCTIONS = frozenset({Kind.FUNCTION, Kind.METHOD, Kind.PARTIAL})
_LIMITED = _FUNCTIONS | {Kind.OBJECT}
_CONTAINERS = frozenset({Kind.DICT, Kind.SEQUENCE, Kind.SET})

_Named = list[tuple[str, Any]]


class ObjectGraph:
    """The contents of modules, optimizers, functions and ordinary objects, and of all that they hold, at one moment.

    Every object reached is kept by reference with a shallow copy of what it held. As the items of the copies are the
    original objects, putting back each object alone puts back the whole graph, with identities, aliases and cycles.
    `lrfinder.snapshot.object_kinds` says which objects are entered.

    Ordinary objects and functions may lead far away from the training. What is reached only through them is therefore
    entered within limits: a tensor or an array above 64 MiB that is also larger than every tensor of the modules and
    optimizers is taken for data; of a container with more than 2,000 items only the membership is kept; and after
    20,000 objects the walk ends.

    Args:
        roots: Where the walk begins. The attributes of these objects are kept whatever their class.
        skip: Objects that are kept by reference only.

    Attributes:
        tensors: The tensors found, with the names that messages use.
        generators: The random number generators found, with their names.
        optimizers: The optimizers found.
        modules: The modules found.
        large_tensors: The tensors that were taken for data, with their names.
        first_left_out: The name of the first object beyond the limit, None if all were entered.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> model.history = [0.5]
        >>> graph = ObjectGraph([model])
        >>> model.history.append(0.4); model.extra = 1
        >>> graph.restore(ErrorCollector())
        >>> model.history, hasattr(model, "extra")
        ([0.5], False)
    """

    def __init__(self, roots: Iterable[Any] = (), skip: Iterable[Any] = ()) -> None:
        self.tensors: _Named = []
        self.generators: _Named = []
        self.optimizers: list[Any] = []
        self.modules: list[nn.Module] = []
        self.large_tensors: _Named = []
        self.first_left_out: str | None = None
        self._seen: dict[int, Any] = {id(each): each for each in skip}  # keeps a reference, so that an id stays unique
        self._kinds: dict[type, Kind] = dict.fromkeys(SIMPLE_TYPES, Kind.SIMPLE)
        self._names: dict[int, str] = {}
        self._restorers: list[tuple[str, Callable[[], object]]] = []
        self._empty_dicts: list[dict[Any, Any]] = []
        self._largest = LARGEST
        self._entered = 0
        self._state: deque[tuple[str, Any]] = deque()
        self._reached: deque[tuple[str, Any]] = deque()
        for root in roots:
            self._begin(root)
            self._walk_state()
        self._walk_reached()

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

    # The walk. What the training itself consists of is entered first and without limits.

    def _begin(self, root: Any) -> None:
        kind = self._kind(root)
        name = root.__qualname__ if kind is Kind.FUNCTION else type(root).__name__
        if kind in _FUNCTIONS or (kind is Kind.OBJECT and callable(root)):
            self._reached.append((name, root))
        elif kind in NOT_ENTERED or kind is Kind.OBJECT:
            self._seen[id(root)] = root
            self._state.extend(self._enter_object(name, root))  # even if it was met on the way from another root
        else:
            self._state.append((name, root))

    def _walk_state(self) -> None:
        while self._state:
            path, value = _shortened(*self._state.popleft())
            if id(value) not in self._seen:
                self._seen[id(value)] = value
                for part in self._enter(path, value):
                    (self._reached if self._kind(part[1]) in _LIMITED else self._state).append(part)

    def _walk_reached(self) -> None:
        while self._reached and self.first_left_out is None:
            path, value = _shortened(*self._reached.popleft())
            if id(value) in self._seen or self._is_data(path, value):
                continue
            self._seen[id(value)] = value
            self._entered += 1
            if self._entered > MOST_OBJECTS:
                self.first_left_out = path
                break
            for part in self._enter(path, value, longest=LONGEST):
                (self._state if self._kind(part[1]) in _STATE else self._reached).append(part)
            self._walk_state()

    def _is_data(self, path: str, value: Any) -> bool:
        """Return whether an object reached through ordinary objects is a tensor or an array that is too large."""
        kind = self._kind(value)
        if kind is Kind.TENSOR and value.numel() * value.element_size() > self._largest:
            self.large_tensors.append((path, value))
            return True
        return kind is Kind.ARRAY and size_of_array(value) > self._largest

    def _kind(self, value: Any) -> Kind:
        cls = type(value)
        if cls not in self._kinds:
            self._kinds[cls] = kind = kind_of(cls)
            if kind not in NOT_ENTERED and kind is not Kind.TENSOR:
                self._reached.extend(generators_of_class(cls))
        return self._kinds[cls]

    # What single objects hold. Each of these keeps the contents of one object, and returns what may be entered next.

    def _enter(self, path: str, value: Any, longest: int | None = None) -> _Named:
        kind = self._kind(value)
        if kind in NOT_ENTERED:
            return []
        if kind in _CONTAINERS:
            return self._enter_container(kind, path, value, is_long=longest is not None and len(value) > longest)
        if kind is Kind.TENSOR:
            return self._enter_tensor(path, value)
        if kind is Kind.ARRAY:
            return self._enter_array(path, value)
        if kind is Kind.GENERATOR:
            self.generators.append((path, value))
            return []
        if kind is Kind.SCRIPT_MODULE:
            return self._enter_script_module(path, value)
        if kind in _FUNCTIONS:
            return self._enter_function(kind, path, value)
        if kind is Kind.MODULE:
            reshard([value])  # after a forward pass it may hold full weights in place of its shards
            self.modules.append(value)
        if kind is Kind.OPTIMIZER:
            self.optimizers.append(value)
        return self._enter_object(path, value)

    def _enter_object(self, path: str, value: Any) -> _Named:
        parts: _Named = []
        attributes = attributes_of(value)
        if attributes is not None and attributes is not value:
            self._keep(path, partial(_rebind_attributes, value, attributes))
            parts.append((path, attributes))
        for name, member in slots_of(type(value)):
            slot = Slot(value, name, member)
            self._keep(f"{path}.{name}", slot.restore)
            parts.append((f"{path}.{name}", slot.value))
        return parts

    def _enter_container(self, kind: Kind, path: str, value: Any, *, is_long: bool) -> _Named:
        if kind is Kind.DICT:
            parts = self._enter_dict(path, value, is_long=is_long)
        elif kind is Kind.SEQUENCE:
            items = list(value)
            self._keep(path, sequence_restorer(value, items))
            parts = [] if is_long else _numbered(path, items)
        else:
            members = set(value)
            self._keep(path, set_restorer(value, members))
            parts = [] if is_long else [(path, item) for item in members if type(item) not in SIMPLE_TYPES]
        return parts if type(value) in _PLAIN_CONTAINERS else parts + self._enter_object(path, value)

    def _enter_dict(self, path: str, value: dict[Any, Any], *, is_long: bool) -> _Named:
        cls = dict_class(value)
        keys, items = list(cls.keys(value)), list(cls.values(value))
        if len(keys) != len(items):  # another thread has written to it in between
            pairs = list(cls.items(value))
            keys, items = [key for key, _ in pairs], [item for _, item in pairs]
        self._keep(path, partial(restore_dict, value, keys, items))
        parts: _Named = []
        if is_long:
            return parts
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

    def _enter_tensor(self, path: str, tensor: Tensor) -> _Named:
        self.tensors.append((path, tensor))
        self._names[id(tensor)] = path
        self._largest = max(self._largest, tensor.numel() * tensor.element_size())
        attributes = dict(vars(tensor))
        hooks = {name: getattr(tensor, name) for name in _HOOKS}
        self._keep(path, partial(_restore_tensor, tensor, attributes, hooks))
        parts = [(f"{path}.{key}", item) for key, item in attributes.items() if type(item) not in SIMPLE_TYPES]
        return parts + [(f"{path}.{name}", held) for name, held in hooks.items() if held is not None]

    def _enter_array(self, path: str, value: Any) -> _Named:
        self._keep(path, array_restorer(value))
        return _numbered(path, value.ravel()) if isinstance(value, np.ndarray) and value.dtype.hasobject else []

    def _enter_script_module(self, path: str, module: nn.Module) -> _Named:
        self._keep(path, partial(setattr, module, "training", module.training))
        tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        return [(f"{path}.{name}", item) for name, item in [*tensors, *module.named_children()]]

    def _enter_function(self, kind: Kind, path: str, value: Any) -> _Named:
        if kind is Kind.PARTIAL:
            return [(path, value.func), (path, value.args), (path, value.keywords), *self._enter_object(path, value)]
        if kind is Kind.METHOD:
            held = held_by_method(value)
        else:
            held = held_by_function(value)
            self._reached.extend(generators_of_function(value))
            for name, restorer in cell_restorers(value):
                self._keep(f"{path}.{name}", restorer)
        return [(f"{path}.{name}" if name else path, item) for name, item in held]

    def _keep(self, path: str, restorer: Callable[[], object] | None) -> None:
        if restorer is not None:
            self._restorers.append((path, restorer))


def _shortened(path: str, value: Any) -> tuple[str, Any]:
    # Names in a long chain of objects would otherwise grow with its length.
    return (path if len(path) <= _LONGEST_NAME else f"...{path[-_LONGEST_NAME // 2 :]}"), value


def _numbered(path: str, items: Iterable[Any]) -> _Named:
    return [(f"{path}[{index}]", item) for index, item in enumerate(items) if type(item) not in SIMPLE_TYPES]


def _rebind_attributes(owner: Any, attributes: dict[str, Any]) -> None:
    if attributes_of(owner) is not attributes:
        object.__setattr__(owner, "__dict__", attributes)


def _restore_tensor(tensor: Tensor, attributes: dict[str, Any], hooks: dict[str, Any]) -> None:
    now = vars(tensor)
    if now or attributes:
        # The marks of torch.compile stay, or it would compile again.
        marks = {key: value for key, value in now.items() if key not in attributes and key.startswith("_dynamo")}
        saved = attributes | marks
        restore_dict(now, list(saved), list(saved.values()))
    for name, held in hooks.items():
        added = getattr(tensor, name)
        if held is None and added:
            added.clear()  # a dict that existed before is kept like any other
