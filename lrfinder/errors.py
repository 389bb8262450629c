"""Every error and warning that this package raises."""

__all__ = ["ArgumentError", "LRFinderError", "LRFinderWarning", "NoSuggestionError", "RankError", "RestoreError"]


class LRFinderError(Exception):
    """Base class of all errors that `lrfinder` raises on its own account."""


class ArgumentError(LRFinderError, ValueError):
    """An argument, or a setup handed over, breaks a rule; the message names argument, rule, value and remedy."""


class NoSuggestionError(LRFinderError):
    """A rule found nothing to suggest in the measured curve; the message says what is missing."""


class RestoreError(LRFinderError):
    """The training setup could not be put back as it was; the message names what differs."""


class RankError(LRFinderError):
    """Another rank of the process group failed; the message names the rank and quotes its error."""


class LRFinderWarning(UserWarning):
    """Category of all warnings that `lrfinder` issues."""
