"""The random number generators that a loader and its data set hold. The data are not looked at."""

from collections import deque
from collections.abc import Callable
from typing import Any

from torch.utils.data.dataloader import _BaseDataLoaderIter

from lrfinder.snapshot.attributes import attributes_of, slots_of
from lrfinder.snapshot.error_collector import ErrorCollector
from lrfinder.snapshot.functions import held_by_function, held_by_method
from lrfinder.snapshot.object_kinds import SIMPLE_TYPES, Kind, kind_of
from lrfinder.snapshot.rng import is_generator, rewinder
from lrfinder.snapshot.shared_generators import generators_of_class, generators_of_function

__all__ = ["DataGenerators"]

MOST_OBJECTS = 1000  # looked at
LONGEST = 64  # items of a container that is looked at; a longer one holds samples

_EPOCHS = frozenset({"epoch", "_epoch"})
_ENTERED = frozenset({Kind.MODULE, Kind.RECORD, Kind.OBJECT, Kind.DATA, Kind.FRAMEWORK, Kind.PARTIAL})
_CONTAINERS = frozenset({Kind.DICT, Kind.SEQUENCE, Kind.SET})


class DataGenerators:
    """The generators of a loader, its data set, transforms, samplers and collate function, and what is bound to them.

    An attribute that holds a generator is put back, too: some loaders bind it to a new generator at every epoch, some
    data sets make their generator when they are first read. So is an `epoch`, from which some data sets seed theirs.

    Args:
        loader: What the user trains on.

    Example:
        >>> import random
        >>> class Loader:
        ...     def __iter__(self):
        ...         self.rng = random.Random(self.rng.random())
        ...         yield self.rng.random()
        >>> loader = Loader()
        >>> loader.rng = random.Random(0)
        >>> generators = DataGenerators(loader)
        >>> first = list(loader)
        >>> generators.restore(ErrorCollector())
        >>> list(loader) == first
        True
    """

    def __init__(self, loader: Any) -> None:
        self._attributes: list[tuple[str, dict[str, Any], dict[str, Any]]] = []
        self._rewinders: list[tuple[str, Callable[[], object]]] = []
        self._seen: dict[int, Any] = {}
        self._kinds: dict[type, Kind] = dict.fromkeys(SIMPLE_TYPES, Kind.SIMPLE)
        self._pending: deque[tuple[str, Any]] = deque([(type(loader).__name__, loader)])
        while self._pending and len(self._seen) < MOST_OBJECTS:
            name, value = self._pending.popleft()
            if id(value) not in self._seen:
                self._seen[id(value)] = value
                self._pending.extend((name, part) for part in self._enter(name, value))

    def restore(self, errors: ErrorCollector) -> None:
        """Bind the same generators to the same attributes again, in their captured states.

        Args:
            errors: Collects what could not be put back.
        """
        for name, attributes, saved in self._attributes:
            errors.attempt(name, lambda: _restore_bindings(attributes, saved))  # noqa: B023 - called at once
        for name, rewind in self._rewinders:
            errors.attempt(name, rewind)

    def _enter(self, name: str, value: Any) -> list[Any]:
        """Return what an object holds, as far as it may lead to generators."""
        kind = self._kind(value)
        if kind is Kind.GENERATOR:
            self._rewinders.append((f"a random number generator of {name}", rewinder(value)))
        elif kind in _CONTAINERS:
            return list(value.values() if isinstance(value, dict) else value) if len(value) <= LONGEST else []
        elif kind is Kind.FUNCTION:
            self._pending.extend(generators_of_function(value))
            return [held for _, held in held_by_function(value)]
        elif kind is Kind.METHOD:
            return [held for _, held in held_by_method(value)]
        elif kind in _ENTERED and not isinstance(value, _BaseDataLoaderIter):
            return self._enter_object(kind, value)
        return []

    def _enter_object(self, kind: Kind, value: Any) -> list[Any]:
        held = [value.func, value.args, value.keywords] if kind is Kind.PARTIAL else []
        attributes = attributes_of(value)
        if attributes is not None:
            self._attributes.append((type(value).__name__, attributes, dict(attributes)))
            held += attributes.values()
        return held + [getattr(value, slot, None) for slot, _ in slots_of(type(value))]

    def _kind(self, value: Any) -> Kind:
        cls = type(value)
        if cls not in self._kinds:
            self._kinds[cls] = kind_of(cls)
            self._pending.extend(generators_of_class(cls))
        return self._kinds[cls]


def _restore_bindings(attributes: dict[str, Any], saved: dict[str, Any]) -> None:
    for name in {**saved, **attributes}:
        before, now = saved.get(name), attributes.get(name)
        if before is now or not (name in _EPOCHS or is_generator(before) or is_generator(now)):
            continue
        if name in saved:
            attributes[name] = before
        else:
            del attributes[name]
