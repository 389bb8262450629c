"""A list to which a training may append during a range test, which puts plain lists back."""

from collections.abc import Sequence

__all__ = ["Notes"]


class Notes(Sequence):
    """What a test records from within a training. Its items are kept in the class, which a snapshot does not enter."""

    __slots__ = ()
    _items = {}

    def __init__(self, *items):
        self._items[id(self)] = list(items)

    def __len__(self):
        return len(self._items[id(self)])

    def __getitem__(self, index):
        return self._items[id(self)][index]

    def __eq__(self, other):
        return list(self) == list(other)

    __hash__ = object.__hash__

    def append(self, item):
        self._items[id(self)].append(item)

    def clear(self):
        self._items[id(self)].clear()
