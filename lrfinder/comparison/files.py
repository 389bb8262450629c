"""Several results in one JSON file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lrfinder.errors import ArgumentError
from lrfinder.result import RangeTestResult

__all__ = ["plain_results", "read_results", "write_results"]

SCHEMA = 1  # version of the JSON


def plain_results(kind: str, results: Mapping[str, RangeTestResult]) -> dict[str, Any]:
    """Return several results as plain numbers, strings, lists and dictionaries.

    Args:
        kind: What they are; the key that marks the file.
        results: The results by name.

    Returns:
        What `write_results` writes.
    """
    return {kind: SCHEMA, "results": {name: result.to_dict() for name, result in results.items()}}


def write_results(path: str | Path, kind: str, results: Mapping[str, RangeTestResult]) -> None:
    """Write several results to a JSON file.

    Args:
        path: The file; it is overwritten.
        kind: What they are; the key that marks the file.
        results: The results by name.
    """
    text = json.dumps(plain_results(kind, results), indent=1, allow_nan=False)
    Path(path).write_text(text + "\n", encoding="utf-8")


def read_results(path: str | Path, kind: str, owner: str) -> dict[str, RangeTestResult]:
    """Read results that `write_results` wrote.

    Args:
        path: The file.
        kind: What they are.
        owner: The class that saves and loads them, for messages.

    Returns:
        The results by name.

    Raises:
        ArgumentError: The file holds something else.
    """
    call = f"{owner}.load(path={str(path)!r})"
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArgumentError(f"{call} must name a JSON file: {error}.") from error
    if not isinstance(data, dict) or data.get(kind) != SCHEMA or not isinstance(data.get("results"), dict):
        raise ArgumentError(
            f"{call} must name a file that {owner}.save wrote, got one that holds something else; a single result is "
            "read by RangeTestResult.load."
        )
    return {name: RangeTestResult.from_dict(each, call) for name, each in data["results"].items()}
