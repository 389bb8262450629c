"""TARGET on the command line: the user's function is imported and called, and its setup becomes a finder."""

import ast
import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from lrfinder.errors import ArgumentError
from lrfinder.finder import LRFinder

__all__ = ["build", "keywords", "load"]

_FORMS = "package.module:function or file.py:function"
_RETURNS = "(model, optimizer, criterion, loader), where criterion may be None, or (LRFinder, loader)"


def keywords(settings: Iterable[str]) -> dict[str, Any]:
    """Return the keyword arguments that `--set` gave.

    Args:
        settings: Each `key=value`; the value is a Python literal, or else a string.

    Returns:
        The values by key; of two with one key, the last.

    Raises:
        ArgumentError: One has no `=`, or no name before it.

    Example:
        >>> keywords(["width=64", "norm=batch", "lrs=[0.1, 0.2]", "seed=None"])
        {'width': 64, 'norm': 'batch', 'lrs': [0.1, 0.2], 'seed': None}
    """
    values = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not (equals and key.isidentifier()):
            raise ArgumentError(f"--set must be key=value, with a Python name as its key, got {setting!r}.")
        values[key] = _literal(text)
    return values


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):  # all that its documentation lists: no literal
        return text


def load(target: str) -> Callable[..., Any]:
    """Return the function that a target names. The current folder is importable; an error of its module is raised.

    Args:
        target: `package.module:function` or `file.py:function`; a file's own folder is importable too.

    Returns:
        The function.

    Raises:
        ArgumentError: The target has another form, there is no such module, file or function, or it is no function.
    """
    place, _, name = target.rpartition(":")
    is_file = place.endswith(".py")
    if not name.isidentifier() or not (is_file or all(part.isidentifier() for part in place.split("."))):
        raise ArgumentError(f"TARGET must be {_FORMS}, got {target!r}.")
    _make_importable(Path.cwd())
    module = _import_file(Path(place)) if is_file else _import_module(place)
    if not hasattr(module, name):
        close = difflib.get_close_matches(name, vars(module), n=1)
        raise ArgumentError(
            f"TARGET must name a function, got {target!r}, but {place} has no {name!r}"
            f"{f'; did you mean {close[0]!r}?' if close else '.'}"
        )
    function = getattr(module, name)
    if not callable(function):
        raise ArgumentError(f"TARGET must name a function, got {target!r}, which is of type {type(function).__name__}.")
    return function  # type: ignore[no-any-return]  # callable() does not narrow Any


def _make_importable(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _import_file(path: Path) -> ModuleType:
    path = path.resolve()
    if not path.is_file():
        raise ArgumentError(f"TARGET must be {_FORMS}, but there is no file {str(path)!r}.")
    _make_importable(path.parent)
    # Under its own name, so that workers of a DataLoader can import the file too, unless another module has that name.
    name = path.stem if path.stem not in sys.modules else f"{path.stem} at {path}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ArgumentError(f"TARGET must be {_FORMS}, but {str(path)!r} cannot be imported.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there and imports another that is not: its own error
        raise ArgumentError(
            f"TARGET must be {_FORMS}, but there is no module {error.name!r} here or among the installed ones."
        ) from None


def build(target: str, function: Callable[..., Any], values: dict[str, Any]) -> tuple[LRFinder, Iterable[Any]]:
    """Return the finder and the loader that the user's function makes; its errors are raised unchanged.

    Args:
        target: Its name on the command line, for messages.
        function: Returns `(model, optimizer, criterion, loader)`, criterion may be None, or `(LRFinder, loader)`.
        values: Its keyword arguments.

    Returns:
        A finder, and the loader to call it with.

    Raises:
        ArgumentError: The function takes other arguments, or returns something else.
    """
    _check_arguments(target, function, values)
    returned = function(**values)
    match returned:
        case (LRFinder() as finder, loader):
            return finder, loader
        case (model, optimizer, criterion, loader):
            return LRFinder(model, optimizer, criterion), loader
    raise ArgumentError(f"{target} must return {_RETURNS}, got {_describe(returned)}.")


def _check_arguments(target: str, function: Callable[..., Any], values: dict[str, Any]) -> None:
    try:
        signature = inspect.signature(function)
    except ValueError:  # some callables that are written in C have none
        return
    try:
        signature.bind(**values)
    except TypeError as error:
        takes = ", ".join(signature.parameters) or "nothing"
        raise ArgumentError(f"{target} takes {takes}: {error}; give arguments with --set key=value.") from None


def _describe(returned: Any) -> str:
    if isinstance(returned, Sequence) and not isinstance(returned, str):
        return f"({', '.join(type(each).__name__ for each in returned)})"
    return "None" if returned is None else f"an object of type {type(returned).__name__}"
