"""What every part of a snapshot can do."""

from typing import Protocol

from lrfinder.snapshot.error_collector import ErrorCollector

__all__ = ["Part"]


class Part(Protocol):
    """State of one kind, captured when the object is made."""

    def restore(self, errors: ErrorCollector) -> None:
        """Put the state back in place; may be called any number of times.

        Args:
            errors: Collects what could not be put back; nothing else is raised.
        """
