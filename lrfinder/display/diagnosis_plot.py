"""The plot of a diagnosis: loss and learning rate along the training, the part that decided shaded and named."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter1d

from lrfinder.curve import Diagnosis, Floats
from lrfinder.display.figures import TEXT, foreground, new_axes, palette
from lrfinder.errors import ArgumentError

__all__ = ["plot_diagnosis"]

MOST_POINTS = 1000  # of a longer history the means of parts are drawn
SMOOTH_SHARE = 0.01  # standard deviation of the smoothing, as a share of the training
ABOVE_START = 1.5  # limits reach above the first losses by at most this share of the fall


def plot_diagnosis(
    diagnosis: Diagnosis,
    losses: ArrayLike,
    lrs: ArrayLike | None = None,
    *,
    val_losses: ArrayLike | None = None,
    steps: ArrayLike | None = None,
    val_steps: ArrayLike | None = None,
    steps_name: str = "step",
    ax: Axes | None = None,
) -> Axes:
    """Draw the losses of a training with what `lrfinder.diagnose` says about it.

    Args:
        diagnosis: The diagnosis.
        losses: The losses that were diagnosed, shape (N,).
        lrs: The learning rate of each, drawn against an axis on the right, shape (N,).
        val_losses: Validation losses, evenly spread over the same training unless `val_steps` says where, shape (V,).
        steps: The step or epoch of each loss, rising, shape (N,); without it the losses are counted.
        val_steps: The same of each validation loss, shape (V,).
        steps_name: The label of that axis.
        ax: Where to draw; a new pyplot figure if left out.

    Returns:
        The Axes with the losses.

    Raises:
        ArgumentError: `steps` is no row of rising numbers, one for each loss.

    Example:
        >>> import matplotlib; matplotlib.use("Agg")
        >>> from lrfinder.curve import diagnose
        >>> losses = np.linspace(3.0, 2.0, 100)
        >>> ax = plot_diagnosis(diagnose(losses), losses)
        >>> ax.get_title(loc="left"), [text.get_text() for text in ax.texts]
        ('learning rate: too low', ['still falling'])
    """  # noqa: DOC502 - raised by _Axis.of
    ax = new_axes() if ax is None else ax
    colors = palette(ax)
    losses = np.atleast_1d(np.array(losses, dtype=np.float64))
    axis = _Axis.of(len(losses), steps)
    _draw_losses(ax, axis, losses, colors[0])
    if val_losses is not None:
        val = np.array(val_losses, dtype=np.float64)
        _draw_val_losses(ax, axis.spread(len(val)) if val_steps is None else val_steps, val, colors[2])
    label = "entry of the history" if steps is None else steps_name
    ax.set(xlabel=label, ylabel="loss", xlim=(axis.edges[0], axis.edges[-1]))
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=axis.counts))
    ax.set_title(f"learning rate: {diagnosis.verdict.value}", fontsize=TEXT + 2, loc="left", pad=2 * TEXT)
    if lrs is not None:
        _draw_lrs(ax, axis, np.array(lrs, dtype=np.float64), colors[1])
    _shade(ax, axis, diagnosis)
    return ax


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """Where the entries of a history are drawn.

    Args:
        points: The place of each entry, shape (N,).
        edges: Where each entry begins, and where the last one ends, shape (N + 1,).
        counts: Whether all places are whole numbers.
    """

    points: Floats
    edges: Floats
    counts: bool = True

    @classmethod
    def of(cls, length: int, steps: ArrayLike | None) -> "_Axis":
        if steps is None:
            edges = np.arange(max(length, 1) + 1, dtype=np.float64)
            return cls(points=edges[:length], edges=edges)
        points = np.array(steps, dtype=np.float64)
        if points.shape != (length,) or not (np.diff(points, prepend=-np.inf) > 0).all():
            raise ArgumentError(
                f"plot_diagnosis(steps=...) must hold the step of each of the {length} losses, each larger than the "
                f"one before, got {len(np.atleast_1d(points))} from {np.atleast_1d(points)[:3]} on; leave it out to "
                "count the losses."
            )
        first = points[0] - (points[1] - points[0] if length > 1 else 1.0)  # an entry is the mean since the last one
        if points[0] >= 0 and length > 1:
            first = max(first, 0.0)
        return cls(points=points, edges=np.r_[first, points], counts=bool((points == np.round(points)).all()))

    def at(self, entries: Floats) -> Floats:
        return np.asarray(np.interp(entries, np.arange(len(self.points)), self.points))

    def spread(self, count: int) -> Floats:
        entries = np.linspace(0, len(self.points), count + 1)[1:]
        return np.asarray(np.interp(entries, np.arange(len(self.edges)), self.edges))


def _draw_losses(ax: Axes, axis: _Axis, losses: Floats, color: Any) -> None:
    entries, means = _thinned(losses)
    known = np.isfinite(means)
    places = axis.at(entries)[known]
    ax.plot(places, means[known], color=color, alpha=0.4, lw=0.8)
    if known.any():
        low, high = _limits(means[known])
        inside = np.minimum(means[known], high + (high - low))  # what is far above does not spread over its neighbours
        smoothed = gaussian_filter1d(inside, SMOOTH_SHARE * len(means), mode="nearest")
        ax.plot(places, smoothed, color=color, lw=1.8, label="training loss")
        ax.set_ylim(low, high)


def _draw_val_losses(ax: Axes, places: ArrayLike, val_losses: Floats, color: Any) -> None:
    ax.plot(places, val_losses, color=color, lw=1.5, marker=".", label="validation loss")
    if np.isfinite(val_losses).any():
        limits = np.array([ax.get_ylim(), _limits(val_losses[np.isfinite(val_losses)])])
        ax.set_ylim(limits[:, 0].min(), limits[:, 1].max())
    ax.legend(fontsize=TEXT, frameon=False, loc="best")


def _thinned(values: Floats) -> tuple[Floats, Floats]:
    """Return places and means of at most `MOST_POINTS` parts of equal length; NaN where nothing is finite."""
    parts = min(MOST_POINTS, len(values))
    edges = np.linspace(0, len(values), parts + 1).round().astype(int)
    finite = np.isfinite(values)
    sums, counts = (np.add.reduceat(each, edges[:-1]) for each in (np.where(finite, values, 0.0), finite.astype(float)))
    means = np.full(parts, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return (edges[:-1] + edges[1:] - 1) / 2, means


def _limits(losses: Floats) -> tuple[float, float]:
    """Return limits that show the fall; a blow-up may leave the plot."""
    low, first, usual = losses.min(), losses[: max(len(losses) // 50, 1)].max(), np.quantile(losses, 0.9)
    high = min(losses.max(), max(first, usual) + ABOVE_START * (max(first, usual) - low))
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return float(low - margin), float(high + 3 * margin)


def _draw_lrs(ax: Axes, axis: _Axis, lrs: Floats, color: Any) -> None:
    entries, means = _thinned(lrs)
    right = ax.twinx()
    right.plot(axis.at(entries), means, color=color, lw=1.2, ls=(0, (5, 1.5)))
    right.set_ylim(0, 1.15 * float(np.nanmax(means)))
    right.set_ylabel("learning rate (dashed)", color=color)
    right.spines["top"].set_visible(False)


def _shade(ax: Axes, axis: _Axis, diagnosis: Diagnosis) -> None:
    stretch = diagnosis.stretch
    if stretch is None:
        return
    first, stop = float(axis.edges[stretch.first]), float(axis.edges[stretch.stop])
    ax.axvspan(first, stop, color=foreground(ax), alpha=0.08, lw=0, zorder=0)
    late = first + stop > sum(ax.get_xlim())
    ax.text(
        stop if late else first,
        1.01,
        stretch.name,
        transform=ax.get_xaxis_transform(),
        ha="right" if late else "left",
        va="bottom",
        fontsize=TEXT,
        color=foreground(ax),
    )
