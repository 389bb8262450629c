"""Objects that are captured by their `state_dict`."""

import copy
from collections.abc import Iterable
from functools import partial
from typing import Any

from lrfinder.snapshot.error_collector import ErrorCollector

__all__ = ["StateDicts"]


class StateDicts:
    """Deep copies of what objects return from `state_dict`.

    Args:
        owners: Objects with `state_dict` and `load_state_dict`.
    """

    def __init__(self, owners: Iterable[Any]) -> None:
        self._saved = [(owner, copy.deepcopy(owner.state_dict())) for owner in owners]

    def restore(self, errors: ErrorCollector) -> None:
        """Load the copies; may be called any number of times.

        Args:
            errors: Collects what could not be loaded.
        """
        for owner, state in self._saved:
            errors.attempt(type(owner).__name__, partial(_load, owner, state))


def _load(owner: Any, state: Any) -> None:
    owner.load_state_dict(copy.deepcopy(state))  # the owner may keep, and later change, what it is given
