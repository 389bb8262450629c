"""A hash of a task's source: truth that was measured on other source is stale."""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from tests.benchmarks.tasks.task import Setup, Task
from tests.benchmarks.tasks.training import train

__all__ = ["fingerprint"]


def fingerprint(of: Task, training: Callable[..., Any] = train) -> str:
    """A hash of the task's source and of all that it uses from this package: the same on every Python version.

    Comments, docstrings and layout do not count; settings in the decorator and the function that trains do.
    """
    digest = hashlib.sha256(_arguments(of).encode())
    for function in sorted(_used(of.parts, training), key=lambda used: f"{used.__module__}.{used.__qualname__}"):
        digest.update(_canonical(_tree(function)).encode())
    return digest.hexdigest()[:16]


def _used(start: Callable[..., Any], training: Callable[..., Any]) -> list[Callable[..., Any]]:
    """Functions and classes of this package that `start` reaches by name, itself included."""
    found: dict[str, Callable[..., Any]] = {}
    first = [start.func, *filter(_of_this_package, start.args)] if isinstance(start, partial) else [start]
    open_ends: list[Any] = [*first, Task.build, Setup.train_step, Setup.evaluate, training]
    while open_ends:
        function = inspect.unwrap(open_ends.pop())
        key = f"{function.__module__}.{function.__qualname__}"
        if key in found:
            continue
        found[key] = function
        names = {node.id for node in ast.walk(_tree(function)) if isinstance(node, ast.Name)}
        module = inspect.getmodule(function)
        for name in sorted(names - {"task", "Task", "Setup", "Parts"}):
            value = getattr(module, name, None)
            if _of_this_package(value):
                open_ends.append(value)
    return list(found.values())


def _of_this_package(value: Any) -> bool:
    return callable(value) and (getattr(value, "__module__", None) or "").startswith(__name__.rpartition(".")[0])


def _arguments(of: Task) -> str:
    """What makes a task that no decorator made: a decorator's settings are part of its source."""
    if not isinstance(of.parts, partial):
        return ""
    arguments = [getattr(each, "__qualname__", repr(each)) for each in of.parts.args]
    return ",".join([*arguments, of.optimizer, str(of.options), str(of.total_steps), str(of.batch_size)])


def _tree(function: Callable[..., Any]) -> ast.AST:
    return ast.parse(textwrap.dedent(inspect.getsource(function)))


def _canonical(node: Any) -> str:
    """A dump of the syntax tree without what differs between Python versions: empty fields and docstrings."""
    if isinstance(node, list):
        return "[" + ",".join(_canonical(item) for item in node if not _is_docstring(item)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields: Iterable[tuple[str, Any]] = ast.iter_fields(node)
    kept = [f"{name}={_canonical(value)}" for name, value in fields if value not in (None, []) and name != "ctx"]
    return f"{type(node).__name__}({','.join(kept)})"


def _is_docstring(node: Any) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
