"""What a comparison of settings found: a table, the overlaid curves, the setting that scored best."""

import html
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lrfinder.comparison.files import plain_results, read_results, write_results
from lrfinder.comparison.table import result_table
from lrfinder.errors import ArgumentError
from lrfinder.result import RangeTestResult

if TYPE_CHECKING:  # matplotlib is loaded by the first plot
    from matplotlib.axes import Axes

__all__ = ["Comparison"]

KIND = "comparison"  # in the JSON file
TIE_NOISE = 2.0  # scores that differ by less than this many standard errors tie
KERNEL_POINTS = 7.0  # points that the smoothing averages over, at its default width


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The results of several finds that differ in one setting, by its name.

    A setting's score is the best validation loss of refining, or without refining the lowest smoothed loss of the
    sweep; lower is better. Settings whose scores differ by less than their noise explains tie. The noise of a score is
    that of a single loss, divided by the square root of the number of losses that it is a mean of.

    Args:
        results: The result of each setting, by its name.

    Example:
        >>> Comparison(results={}).best is None
        True
    """

    results: Mapping[str, RangeTestResult]

    @property
    def scores(self) -> dict[str, float]:
        """The score of each setting; infinite where nothing was measured."""
        return {name: _score(result) for name, result in self.results.items()}

    @property
    def tied(self) -> tuple[str, ...]:
        """The settings that cannot be told from the best one, the best one first."""
        scores = self.scores
        ranked = sorted((name for name in scores if math.isfinite(scores[name])), key=scores.__getitem__)
        if not ranked:
            return ()
        first = ranked[0]
        spread = _noise(self.results[first])
        return tuple(
            name
            for name in ranked
            if scores[name] - scores[first] <= TIE_NOISE * math.hypot(spread, _noise(self.results[name]))
            or name == first
        )

    @property
    def best(self) -> str | None:
        """The name of the setting that scored best; None where several tie, or nothing was measured."""
        return self.tied[0] if len(self.tied) == 1 else None

    def __str__(self) -> str:
        """Return the table, and which setting scored best."""
        return f"{result_table('setting', self.results)}\n{self._verdict()}"

    def _repr_html_(self) -> str:
        """Return the same, for notebooks."""
        return f"<pre>{html.escape(str(self))}</pre>"

    def _verdict(self) -> str:
        if not self.tied:
            reasons = dict.fromkeys(result.warnings[0] for result in self.results.values() if result.warnings)
            return " ".join(["nothing was measured.", *reasons])
        if self.best is not None:
            return f"best: {self.best}"
        return f"{' and '.join(self.tied)} tie: their scores differ by less than the noise"

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the curves of all settings into one picture.

        Args:
            ax: Where to draw; a new figure by default.

        Returns:
            The Axes drawn on.

        Raises:
            ArgumentError: There is no result.
        """
        for name, result in self.results.items():
            ax = result.plot(ax, label=name)
        if ax is None:
            raise ArgumentError("Comparison.plot() needs at least one result, got none.")
        return ax

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain numbers, strings, lists and dictionaries.

        Returns:
            What `save` writes.
        """
        return plain_results(KIND, self.results)

    def save(self, path: str | Path) -> None:
        """Write the comparison to a JSON file.

        Args:
            path: The file; it is overwritten.
        """
        write_results(path, KIND, self.results)

    @classmethod
    def load(cls, path: str | Path) -> "Comparison":
        """Read a comparison that `save` wrote.

        Args:
            path: The file.

        Returns:
            An equal comparison.

        Raises:
            ArgumentError: The file holds something else.
        """  # noqa: DOC502 - raised by read_results
        return cls(results=read_results(path, KIND, "Comparison"))


def _score(result: RangeTestResult) -> float:
    if result.probes:
        return min(loss for _, loss in result.probes)
    return float(np.min(result.smoothed)) if len(result.smoothed) else math.inf


def _noise(result: RangeTestResult) -> float:
    """Return the standard error of a result's score, from the differences of neighbouring losses."""
    lowest = int(np.argmin(result.smoothed)) if len(result.smoothed) else 0
    losses = result.losses[: max(lowest + 1, 5)]
    if len(losses) < 2:
        return 0.0
    single = float(np.mean(np.abs(np.diff(losses)))) * math.sqrt(math.pi) / 2
    return single / math.sqrt(KERNEL_POINTS)
