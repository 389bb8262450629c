"""`lrfinder run … --compare KEY=V1,V2`: the same range test with several hyperparameters."""

import ast
from collections.abc import Iterable
from typing import Any

from lrfinder.errors import ArgumentError

__all__ = ["read_settings"]


def read_settings(texts: Iterable[str]) -> dict[str, list[Any]]:
    """Read the values of `--compare`.

    Args:
        texts: Each `key=value,value,…` with Python literals as values.

    Returns:
        The values by key.

    Raises:
        ArgumentError: One has no `=`, no name before it, or values that are no literals.

    Example:
        >>> read_settings(["weight_decay=0,1e-4", "betas=(0.9, 0.99),(0.95, 0.99)"])
        {'weight_decay': [0, 0.0001], 'betas': [(0.9, 0.99), (0.95, 0.99)]}
    """
    settings = {}
    for text in texts:
        key, _, values = text.partition("=")
        settings[key] = _literals(values) if key.isidentifier() else []
        if not settings[key]:
            raise ArgumentError(
                "--compare must be key=value,value, with a hyperparameter of the optimizer as key and numbers as "
                f"values, got {text!r}; for example --compare weight_decay=0,1e-4,1e-3."
            )
    return settings


def _literals(values: str) -> list[Any]:
    try:
        return list(ast.literal_eval(f"[{values}]"))
    except (ValueError, SyntaxError):
        return []
