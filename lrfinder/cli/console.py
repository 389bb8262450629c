"""What a command says, and where: results to stdout, all else to stderr; the user's errors without our frames."""

import contextlib
import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TextIO

from lrfinder.errors import LRFinderWarning

__all__ = ["note", "say", "short_warnings", "stdout_to_stderr", "their_traceback"]

_PACKAGE = str(Path(__file__).parents[1]) + os.sep


def say(text: str) -> None:
    """Print a result to stdout. That its reader has gone, as in `lrfinder show … | head -1`, is no error.

    Args:
        text: What to print, without the end of its last line.
    """
    _write(sys.stdout, text)


def note(text: str) -> None:
    """Print to stderr what is no result: what was written where, warnings, errors.

    Args:
        text: What to print, without the end of its last line.
    """
    _write(sys.stderr, text)


def _write(stream: TextIO, text: str) -> None:
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        # The stream is flushed once more when Python ends: let that go nowhere instead of failing.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Within this context all that goes to stdout, child processes and C libraries included, goes to stderr."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


@contextmanager
def short_warnings() -> Iterator[None]:
    """Within this context a warning is one line on stderr, without the place in the code that issued it."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,  # noqa: ARG001 - the standard signature
        lineno: int,  # noqa: ARG001
        file: TextIO | None = None,  # noqa: ARG001
        line: str | None = None,  # noqa: ARG001
    ) -> None:
        if issubclass(category, LRFinderWarning) and sys.stdout.isatty():
            return  # it stands in the result's block, on the same screen
        note(f"warning: {' '.join(str(message).split())}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", LRFinderWarning)
        warnings.showwarning = show
        yield


def their_traceback(error: BaseException) -> str:
    """Write the traceback of an error that the user's code raised, without the way through this package to that code.

    Frames of this package below the user's, or of an error that is its own, are kept: they say what went wrong.

    Args:
        error: What was raised.

    Returns:
        The text that Python would print.
    """
    report = traceback.TracebackException.from_exception(error)
    _strip(report)
    return "".join(report.format()).rstrip()


def _strip(report: traceback.TracebackException | None) -> None:
    if report is None:
        return
    last = max((place for place, frame in enumerate(report.stack) if not _is_ours(frame)), default=-1)
    kept = [frame for place, frame in enumerate(report.stack) if place > last or not _is_ours(frame)]
    report.stack[:] = [frame for frame in kept if not _imports(frame)]
    for chained in (report.__cause__, report.__context__, *(getattr(report, "exceptions", None) or ())):
        _strip(chained)


def _is_ours(frame: traceback.FrameSummary) -> bool:
    # contextlib runs our own context managers around the user's code.
    return frame.filename.startswith(_PACKAGE) or frame.filename == contextlib.__file__


def _imports(frame: traceback.FrameSummary) -> bool:
    return frame.filename == importlib.__file__ or frame.filename.startswith("<frozen importlib")
