"""One find of several, under its name."""

from collections.abc import Mapping
from typing import Any

from lrfinder.finder import LRFinder
from lrfinder.result import RangeTestResult

__all__ = ["find_named"]


def find_named(name: str, finder: LRFinder, loader: Any, options: Mapping[str, Any]) -> RangeTestResult:
    """Return the result of a find whose warnings begin with a name.

    Args:
        name: The name of the setting or of the parameter group.
        finder: The finder.
        loader: The training data.
        options: For `LRFinder.find`.

    Returns:
        The result.
    """
    with finder.named(name):
        return finder.find(loader, **options)
