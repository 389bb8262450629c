"""What of a curve a picture shows: its limits, a thinned line, the kind of its axis. NumPy only."""

import numpy as np

from lrfinder.curve import Curve
from lrfinder.sweep import Floats

__all__ = ["is_linear", "loss_at", "loss_limits", "thin"]

BUCKETS = 1000
"""A long line is drawn as the lowest and highest point of so many stretches: more than a picture has columns."""

LARGEST = 1e300
"""Losses count as no larger, so that limits never overflow."""


def loss_at(curve: Curve, lr: float) -> float:
    """Return the smoothed loss at a rate, between points by the logarithm of the rate.

    Args:
        curve: the curve, at least one point.
        lr: the rate; beyond an end the loss there counts.

    Returns:
        The loss.
    """
    return float(np.interp(np.log(lr), np.log(curve.lrs), curve.smoothed))


def is_linear(curve: Curve) -> bool:
    """Tell whether the grid was linear: steps of the rate vary less than steps of its logarithm.

    Args:
        curve: the curve; fewer than three points count as exponential.

    Returns:
        Whether a linear axis shows the points evenly spaced.
    """
    if len(curve) < 3:
        return False
    gaps = np.diff(curve.indices)
    linear, log = (np.diff(rates) / gaps for rates in (curve.lrs, np.log(curve.lrs)))
    return bool(np.std(linear) / np.mean(linear) < np.std(log) / np.mean(log))


def loss_limits(curve: Curve, past: float | None, scores: Floats, *, raw: bool = True) -> tuple[float, float]:
    """Return the lowest and the highest loss that must be seen; a blow-up and single outliers need not.

    They come from the part before divergence. Should that hold a blow-up all the same, losses count up to five times
    as far above the lowest as the median is. Measured losses count up to twice the usual noise away from the line.

    Args:
        curve: the curve, at least one point.
        past: the rate from which on training diverged, if it did.
        scores: further losses to be seen unless they lie far above, shape (K,).
        raw: whether the measured losses are drawn.

    Returns:
        The lowest and the highest loss.
    """
    losses, smoothed = np.clip([curve.losses, curve.smoothed], -LARGEST, LARGEST)
    before = curve.lrs <= past if past is not None and past >= curve.lrs[0] else np.ones(len(curve), dtype=bool)
    low, middle = smoothed[before].min(), np.median(smoothed[before])
    high = max(smoothed[0], min(smoothed[before].max(), middle + 4 * (middle - low)))
    if raw:
        noise = 2 * np.quantile(np.abs(losses - smoothed)[before & (smoothed <= high)], 0.9)
        low = min(low, max(losses[before].min(), low - noise))
        high = max(high, min(losses[before].max(), high + noise))
    near = scores[np.isfinite(scores) & (scores <= high + (high - low))]
    return float(min([low, *near])), float(max([high, *near]))


def thin(lrs: Floats, losses: Floats) -> tuple[Floats, Floats]:
    """Return the lowest and the highest point of each stretch of a long line: it looks the same and draws fast.

    Args:
        lrs: rates, shape (T,).
        losses: losses, shape (T,).

    Returns:
        Rates and losses of the points to draw, at most two for each of `BUCKETS` and the ends; a short line as it is.
    """
    if len(lrs) <= 2 * BUCKETS:
        return lrs, losses
    edges = np.linspace(0, len(lrs), BUCKETS + 1).astype(int)
    kept = {0, len(lrs) - 1}
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        kept |= {start + int(losses[start:stop].argmin()), start + int(losses[start:stop].argmax())}
    index = sorted(kept)
    return lrs[index], losses[index]
