"""The exit statuses of the command line."""

__all__ = ["FOUND", "INTERRUPTED", "NO_SUGGESTION", "RAISED", "USAGE"]

FOUND = 0
RAISED = 1  # by the user's code
USAGE = 2
NO_SUGGESTION = 3
INTERRUPTED = 130
