"""Files that a command writes. Their names are checked before anything runs, so that a typo costs no time.

Names are relative to the folder of the call, also if the user's code changes the current folder.
"""

from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path

from lrfinder.cli.console import say
from lrfinder.display import file_axes
from lrfinder.errors import ArgumentError

__all__ = ["PlotFile", "TextFile"]


class TextFile:
    """A file for text, or stdout.

    Args:
        option: The option that names it, for messages.
        path: Its name; an existing file is overwritten. `-` is stdout.

    Raises:
        ArgumentError: It is a folder, or its folder does not exist.
    """

    def __init__(self, option: str, path: str) -> None:
        if path != "-":
            _check_folder(option, path)
        self._option, self._path, self._is_stdout = option, Path(path).absolute(), path == "-"

    def write(self, text: str) -> None:
        """Write the file.

        Args:
            text: All of it, without the end of its last line.
        """
        if self._is_stdout:
            say(text)
            return
        with _writing(self._option, self._path):
            self._path.write_text(text + "\n", encoding="utf-8")


class PlotFile:
    """A file for a plot.

    Args:
        option: The option that names it, for messages.
        path: Its name; the extension is the format. An existing file is overwritten.

    Attributes:
        axes: Where to draw.

    Raises:
        ArgumentError: The format is unknown, it is a folder, or its folder does not exist.
    """

    def __init__(self, option: str, path: str) -> None:
        _check_folder(option, path)
        self._option, self._path = option, Path(path).absolute()
        self.axes = file_axes()
        self._canvas = self.axes.figure.canvas
        _check_format(option, path, self._canvas.get_supported_filetypes())

    def write(self) -> None:
        """Write what was drawn."""
        with _writing(self._option, self._path):
            self._canvas.print_figure(self._path)


def _check_format(option: str, path: str, formats: Container[str]) -> None:
    if Path(path).suffix[1:].lower() not in formats:
        raise ArgumentError(f"{option} must name a plot such as lr.png, lr.svg or lr.pdf, got {path!r}.")


def _check_folder(option: str, path: str) -> None:
    if Path(path).is_dir() or not Path(path).parent.is_dir():
        raise ArgumentError(f"{option} must name a file in a folder that exists, got {path!r}.")


@contextmanager
def _writing(option: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ArgumentError(f"{option} cannot write {str(path)!r}: {error.strerror}.") from error
