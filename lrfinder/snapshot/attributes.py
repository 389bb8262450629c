"""The attributes of objects: those in their `__dict__`, and those in slots."""

import types
from collections.abc import Iterator
from typing import Any

__all__ = ["MISSING", "Slot", "attributes_of", "slots_of"]

MISSING = object()  # the value of an attribute that is not set


class Slot:
    """One attribute of one object that is stored in a slot of its class.

    Args:
        owner: The object.
        name: The name of the attribute.
        member: The descriptor of the slot; through it no `__setattr__` of the class is called.
    """

    __slots__ = ("_member", "_owner", "name", "value")

    def __init__(self, owner: Any, name: str, member: Any) -> None:
        self._owner = owner
        self._member = member
        self.name = name
        self.value = self._read()

    def restore(self) -> None:
        """Put the captured value back."""
        now = self._read()
        if now is self.value:
            return
        if self.value is MISSING:
            self._member.__delete__(self._owner)
        else:
            self._member.__set__(self._owner, self.value)

    def _read(self) -> Any:
        try:
            return self._member.__get__(self._owner)
        except AttributeError:
            return MISSING


def attributes_of(value: Any) -> dict[str, Any] | None:
    """Return the `__dict__` of an object, None if it has none; no code of the object's class is run.

    Args:
        value: Any object.
    """
    try:
        found = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return None
    return found if isinstance(found, dict) else None


def slots_of(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield the name and the descriptor of every slot of a class.

    Args:
        cls: The class.

    Yields:
        Pairs of a name and a descriptor.
    """
    for each in cls.__mro__:
        if "__slots__" in vars(each):
            yield from (
                (name, slot) for name, slot in vars(each).items() if isinstance(slot, types.MemberDescriptorType)
            )
