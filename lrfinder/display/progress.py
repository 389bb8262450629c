"""One progress bar over all phases of a find; it is closed after an exception too."""

import math
from functools import cache
from time import monotonic
from types import TracebackType
from typing import Any

from typing_extensions import Self  # typing has it from 3.11 on; torch brings this package

__all__ = ["Progress"]

INTERVAL = 0.1  # least time between two redraws, in seconds


class Progress:
    """A tqdm bar with the name of the phase; if it is not enabled, it only counts the steps.

    Args:
        enabled: Whether a bar is shown.
        total: The number of steps expected over all phases.

    Attributes:
        steps: The number of steps so far.

    Example:
        >>> with Progress(enabled=False, total=10) as progress:
        ...     progress.phase("sweep")
        ...     progress.advance()
    """

    def __init__(self, *, enabled: bool, total: int) -> None:
        self._bar: Any = None
        if enabled:
            self._bar = _bar_class()(total=total, desc="LR range test", unit="step", leave=False)
        self._due = monotonic() + INTERVAL if enabled else math.inf  # when to draw again
        self.steps = 0

    def phase(self, name: str) -> None:
        """Show the name of the phase that begins.

        Args:
            name: The phase: scout, sweep, refine 2/5.
        """
        if self._bar is not None:
            self._bar.set_description(f"LR range test: {name}", refresh=False)
            if monotonic() >= self._due:
                self._draw()

    def advance(self) -> None:
        """Count one step."""
        self.steps += 1
        if monotonic() >= self._due:  # tqdm would look too, but at every step it costs as much as a small layer
            self._draw()

    def _draw(self) -> None:
        self._due = monotonic() + INTERVAL
        self._bar.n = self.steps
        self._bar.refresh()

    def expect(self, total: int) -> None:
        """Correct the number of steps that are expected, now that more is known.

        Args:
            total: Steps over all phases.
        """
        if self._bar is not None:
            self._bar.total = total

    def __enter__(self) -> Self:
        """Return the bar itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.n = self.steps
            self._bar.close()


@cache
def _bar_class() -> Any:
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc, type-arg, unused-ignore]  # tqdm has no types
        monitor_interval = 0  # else tqdm leaves a thread behind that redraws bars

    return Bar
