"""The plot of a diagnosis: loss and learning rate along the training, the part that decided shaded and named."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter1d

from lrfinder.curve import Diagnosis, Floats
from lrfinder.display.figures import TEXT, foreground, new_axes, palette

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
    ax: Axes | None = None,
) -> Axes:
    """Draw the losses of a training with what `lrfinder.diagnose` says about it.

    Args:
        diagnosis: The diagnosis.
        losses: The losses that were diagnosed, shape (N,).
        lrs: The learning rate of each, drawn against an axis on the right, shape (N,).
        val_losses: Validation losses, evenly spread over the same training, shape (V,).
        ax: Where to draw; a new pyplot figure if left out.

    Returns:
        The Axes with the losses.

    Example:
        >>> import matplotlib; matplotlib.use("Agg")
        >>> from lrfinder.curve import diagnose
        >>> losses = np.linspace(3.0, 2.0, 100)
        >>> ax = plot_diagnosis(diagnose(losses), losses)
        >>> ax.get_title(loc="left"), [text.get_text() for text in ax.texts]
        ('learning rate: too low', ['still falling'])
    """
    ax = new_axes() if ax is None else ax
    colors = palette(ax)
    places, means = _thinned(np.array(losses, dtype=np.float64))
    known = np.isfinite(means)
    ax.plot(places[known], means[known], color=colors[0], alpha=0.4, lw=0.8)
    if known.any():
        low, high = _limits(means[known])
        inside = np.minimum(means[known], high + (high - low))  # what is far above does not spread over its neighbours
        smoothed = gaussian_filter1d(inside, SMOOTH_SHARE * len(means), mode="nearest")
        ax.plot(places[known], smoothed, color=colors[0], lw=1.8, label="training loss")
        ax.set_ylim(low, high)
    if val_losses is not None:
        val = np.array(val_losses, dtype=np.float64)
        at = np.linspace(0, len(np.atleast_1d(losses)), len(val) + 1)[1:]
        ax.plot(at, val, color=colors[2], lw=1.5, marker=".", label="validation loss")
        if np.isfinite(val).any():
            limits = np.array([ax.get_ylim(), _limits(val[np.isfinite(val)])])
            ax.set_ylim(limits[:, 0].min(), limits[:, 1].max())
        ax.legend(fontsize=TEXT, frameon=False, loc="best")
    ax.set(xlabel="entry of the history", ylabel="loss", xlim=(0, max(len(np.atleast_1d(losses)), 1)))
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.set_title(f"learning rate: {diagnosis.verdict.value}", fontsize=TEXT + 2, loc="left", pad=2 * TEXT)
    if lrs is not None:
        _draw_lrs(ax, np.array(lrs, dtype=np.float64), colors[1])
    _shade(ax, diagnosis)
    return ax


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


def _draw_lrs(ax: Axes, lrs: Floats, color: Any) -> None:
    places, means = _thinned(lrs)
    right = ax.twinx()
    right.plot(places, means, color=color, lw=1.2, ls=(0, (5, 1.5)))
    right.set_ylim(0, 1.15 * float(np.nanmax(means)))
    right.set_ylabel("learning rate (dashed)", color=color)
    right.spines["top"].set_visible(False)


def _shade(ax: Axes, diagnosis: Diagnosis) -> None:
    stretch = diagnosis.stretch
    if stretch is None:
        return
    ax.axvspan(stretch.first, stretch.stop, color=foreground(ax), alpha=0.08, lw=0, zorder=0)
    late = stretch.first + stretch.stop > sum(ax.get_xlim())
    ax.text(
        stretch.stop if late else stretch.first,
        1.01,
        stretch.name,
        transform=ax.get_xaxis_transform(),
        ha="right" if late else "left",
        va="bottom",
        fontsize=TEXT,
        color=foreground(ax),
    )
