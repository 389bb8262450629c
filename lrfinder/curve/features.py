"""Features of a curve's losses that do not depend on the loss's scale or offset; `Curve` computes each once."""

import math

import numpy as np

from lrfinder.curve.arrays import Floats
from lrfinder.curve.sweep import MIN_POINTS

__all__ = ["DECIMALS", "descends", "lowest_index", "noise", "normalize", "plateau"]

TINY = 1e-300  # in place of a zero that something is divided by
DECIMALS = 9  # of a normalized loss
ROUNDING = 1e-12  # losses that differ by less than this share of their size are equal
UNIT_QUANTILE = 0.75  # this share of the losses lies between 0 and 1 once they are normalized
EDGE_SHARE = 0.02  # share of the points at either end that is not searched for the lowest one
PLATEAU_SHARE = 0.1  # share of the points whose median is the plateau: the first ones, at least MIN_POINTS
NOISE_SHARE = 0.25  # share of the points that the noise is taken from where the lowest comes earlier
STRETCH_SHARE = 1 / 6  # share of the points in each of two stretches that are compared
MIN_STRETCH = 3  # points in such a stretch
CLEAR_DESCENT = 3.0  # standard errors by which their medians differ where the loss clearly descends


def normalize(losses: Floats, smoothed: Floats) -> tuple[Floats, Floats]:
    """Return losses and smoothed losses on a scale where the lowest is 0 and three quarters lie below 1.

    A rule that reads only these numbers cannot depend on the loss's scale or offset, and their differences do not
    overflow. They are rounded, so that the rounding errors of an offset break no ties.

    Args:
        losses: The losses as they were measured, shape (T,).
        smoothed: The smoothed losses, shape (T,).

    Returns:
        Both on the common scale, read-only, shape (T,) each.
    """
    both = np.stack([losses, smoothed])
    if both.size:
        both /= max(np.max(np.abs(both)), TINY)
        size = np.median(np.abs(both[0]))
        both -= np.min(both)
        unit = np.quantile(both[0], UNIT_QUANTILE)
        if unit <= ROUNDING * size:  # nearly all losses are equal
            unit = np.max(both)
        both = np.round(np.minimum(both / max(unit, TINY), 1 / TINY**0.8), DECIMALS)
    both.flags.writeable = False
    return both[0], both[1]


def lowest_index(smoothed: Floats) -> int:
    """Return the index of the lowest smoothed loss, without the ends, which are as noisy as the losses."""
    edge = math.ceil(EDGE_SHARE * len(smoothed)) if len(smoothed) >= MIN_POINTS else 0
    return edge + int(np.argmin(smoothed[edge : len(smoothed) - edge]))


def plateau(losses: Floats) -> float:
    """Return the median of the first losses."""
    return float(np.median(losses[: max(MIN_POINTS, int(PLATEAU_SHARE * len(losses)))]))


def noise(losses: Floats, lowest_index: int) -> float:
    """Return the standard deviation of a single loss, from the points down to the lowest.

    Differences of neighbours do not contain the trend; the mean of their absolute values is 2 / sqrt(pi) standard
    deviations. Equal neighbours do not count: the points of an epoch may all have its mean.

    Args:
        losses: The losses, shape (T,).
        lowest_index: The index of the lowest smoothed loss.

    Returns:
        The standard deviation, in the unit of the losses; 0 for a single loss.
    """
    steps = np.diff(losses[: max(lowest_index, int(NOISE_SHARE * len(losses)), MIN_POINTS)])
    steps = steps[steps != 0]
    return float(np.abs(steps).mean()) * math.sqrt(math.pi) / 2 if len(steps) else 0.0


def descends(losses: Floats, lowest_index: int, noise: float) -> bool:
    """Return whether the median loss about the lowest point is below that of the first points by more than noise.

    Args:
        losses: The losses, shape (T,).
        lowest_index: The index of the lowest smoothed loss.
        noise: The standard deviation of a single loss.

    Returns:
        Whether the medians differ by more than `CLEAR_DESCENT` standard errors.
    """
    width = max(MIN_STRETCH, int(STRETCH_SHARE * len(losses)))
    start = min(max(lowest_index - width // 2, 0), len(losses) - width)
    drop = np.median(losses[:width]) - np.median(losses[start : start + width])
    return bool(drop > CLEAR_DESCENT * noise * math.sqrt(2 / width))
