"""What functions hold besides their code: the cells of their closures, their defaults, and their attributes."""

import types
from collections.abc import Callable
from functools import partial
from typing import Any

from lrfinder.snapshot.attributes import MISSING
from lrfinder.snapshot.object_kinds import TORCH_INTERNALS

__all__ = ["cell_restorers", "held_by_function", "held_by_method"]


def held_by_function(function: types.FunctionType) -> list[tuple[str, Any]]:
    """Return the objects that a function holds, with names; not its global variables.

    Of a function inside torch, such as a wrapper of the compiler, only the function that it wraps is returned; nothing
    of one inside this package, such as a hook.

    Args:
        function: The function.
    """
    attributes = vars(function)
    if _is_internal(function):
        names = ("__wrapped__", "_torchdynamo_orig_callable")
        return [("", attributes[name]) for name in names if name in attributes]
    held = [(name, _content(cell)) for name, cell in _cells(function)]
    count = len(function.__defaults__ or ())
    positional = function.__code__.co_varnames[: function.__code__.co_argcount]
    held += zip(positional[len(positional) - count :], function.__defaults__ or (), strict=True)
    if function.__kwdefaults__ is not None:
        held.append(("", function.__kwdefaults__))
    return [*held, ("", attributes)]


def held_by_method(method: types.MethodType | types.BuiltinMethodType) -> list[tuple[str, Any]]:
    """Return the object that a method is bound to, and the function behind it.

    Args:
        method: The bound method.
    """
    return [("", method.__self__), ("", getattr(method, "__func__", None))]


def cell_restorers(function: types.FunctionType) -> list[tuple[str, Callable[[], None]]]:
    """Return functions that bind the variables of a closure (nonlocals) to their present objects again, with names.

    Args:
        function: The function with the closure.
    """
    cells = [] if _is_internal(function) else _cells(function)
    return [(name, partial(_restore_cell, cell, _content(cell))) for name, cell in cells]


def _is_internal(function: types.FunctionType) -> bool:
    module = str(function.__globals__.get("__name__", ""))
    return module.startswith((*TORCH_INTERNALS, "lrfinder."))


def _cells(function: types.FunctionType) -> list[tuple[str, types.CellType]]:
    return list(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # the variable has no value yet
        return MISSING


def _restore_cell(cell: types.CellType, value: Any) -> None:
    if _content(cell) is value:
        return
    if value is MISSING:
        del cell.cell_contents
    else:
        cell.cell_contents = value
