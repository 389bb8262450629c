"""The command `lrfinder`."""

from lrfinder.cli.commands import main

__all__ = ["main"]
