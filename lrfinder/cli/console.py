"""Console output: results go to stdout, everything else to stderr; tracebacks show the user's frames only."""

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
    """Print a result to stdout. It is no error if nothing reads it any more, as in `lrfinder show … | head -1`.

    Args:
        text: What to print, without the end of its last line.
    """
    _write(sys.stdout, text)


def note(text: str) -> None:
    """Print to stderr: warnings, errors, what was written.

    Args:
        text: What to print, without the end of its last line.
    """
    _write(sys.stderr, text)


def _write(stream: TextIO, text: str) -> None:
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        # Python flushes the stream once more at its end, which would fail again.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Within this context everything written to stdout, by child processes and C libraries too, goes to stderr."""
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
    """Within this context a warning is one line on stderr, without the place in the code."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,  # noqa: ARG001 - the standard signature
        lineno: int,  # noqa: ARG001
        file: TextIO | None = None,  # noqa: ARG001
        line: str | None = None,  # noqa: ARG001
    ) -> None:
        if issubclass(category, LRFinderWarning) and sys.stdout.isatty():
            return  # the block shows it on the same screen
        note(f"warning: {' '.join(str(message).split())}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", LRFinderWarning)
        warnings.showwarning = show
        yield


def their_traceback(error: BaseException) -> str:
    """Return the traceback of an error that the user's code raised, without this package's frames above that code.

    Frames of this package below the user's, and those of its own errors, are kept.

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
