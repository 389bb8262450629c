"""Random number generators that no single object holds: attributes of classes, and global variables that code names."""

import types
from collections.abc import Iterator
from typing import Any

from lrfinder.snapshot.object_kinds import is_library
from lrfinder.snapshot.rng import is_generator

__all__ = ["generators_of_class", "generators_of_function"]


def generators_of_class(cls: type) -> list[tuple[str, Any]]:
    """Return the generators that are attributes of a class, or global variables that its methods use, with names.

    Args:
        cls: The class.

    Example:
        >>> import random
        >>> class Noise:
        ...     rng = random.Random(0)
        >>> [name for name, _ in generators_of_class(Noise)]
        ['Noise.rng']
    """
    found = []
    for each in cls.__mro__:
        package = str(each.__module__).partition(".")[0]
        if package in {"builtins", "torch"}:
            continue
        for name, value in vars(each).items():
            if is_generator(value):
                found.append((f"{each.__name__}.{name}", value))
            elif isinstance(value, types.FunctionType) and not is_library(package):
                found += generators_of_function(value)
    return found


def generators_of_function(function: types.FunctionType) -> list[tuple[str, Any]]:
    """Return the generators among the global variables that the code of a function names.

    Args:
        function: The function.
    """
    variables = function.__globals__
    names = {name for name in _names(function.__code__) if name in variables}
    return [(f"{variables.get('__name__')}.{name}", variables[name]) for name in names if is_generator(variables[name])]


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):  # a lambda, a comprehension, a nested function
            yield from _names(constant)
