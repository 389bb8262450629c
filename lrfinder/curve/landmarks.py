"""Landmarks of a curve: where the loss starts to fall, falls fastest, is lowest, and diverges. They are not advice."""

import dataclasses

import numpy as np

from lrfinder.curve.curve import NOTHING_KNOWN, Context, Curve
from lrfinder.curve.explosion import first_divergence_lr
from lrfinder.curve.sweep import MIN_POINTS

__all__ = ["Landmarks", "find_landmarks"]

SLOPE_SHARE = 0.03  # slopes are taken over this share of the points on either side
BAND_NOISE = 1.5  # standard deviations of a single loss below the plateau at which the loss has left it
BAND_DEPTH = (
    0.02  # share of the descent's depth below the plateau at which it has left it; the larger of the two counts
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Landmarks:
    """Learning rates at which something is seen on the curve, each None where it is not seen.

    Args:
        onset: Where the smoothed loss leaves its first plateau for good.
        steepest: Where the smoothed loss falls fastest per decade of the learning rate.
        minimum: Where the smoothed loss is lowest. Its place is mostly noise.
        divergence: From where the loss rises and does not come back.
    """

    onset: float | None = None
    steepest: float | None = None
    minimum: float | None = None
    divergence: float | None = None


def find_landmarks(curve: Curve, context: Context = NOTHING_KNOWN) -> Landmarks:
    """Return the landmarks of a curve.

    Args:
        curve: The measured sweep.
        context: What is known of the training.

    Returns:
        The landmarks; all are None on a curve of fewer than `MIN_POINTS` points.

    Example:
        >>> lrs = np.geomspace(1e-4, 1.0, 41)
        >>> losses = 1 / (1 + lrs / 0.01)
        >>> curve = Curve(lrs=lrs, losses=losses, smoothed=losses, indices=np.arange(41), stop_reason=None)
        >>> round(find_landmarks(curve).steepest, 2)
        0.01
    """
    if len(curve) < MIN_POINTS:
        return Landmarks()
    divergence = first_divergence_lr(curve, context)
    descends, varies = curve.has_clear_descent, np.ptp(curve.unit_smoothed) > 0
    return Landmarks(
        onset=float(curve.lrs[_onset(curve)]) if descends else None,
        steepest=float(curve.lrs[_steepest(curve, divergence)]) if descends else None,
        minimum=float(curve.lrs[curve.lowest_index]) if varies else None,
        divergence=divergence,
    )


def _onset(curve: Curve) -> int:
    """Return the first index from which on, down to the lowest point, the loss is below the plateau and its noise."""
    band = max(BAND_NOISE * curve.noise, BAND_DEPTH * curve.depth)
    high = np.flatnonzero(curve.unit_smoothed[: curve.lowest_index] >= curve.plateau - band)
    return int(high[-1]) + 1 if len(high) else 0


def _steepest(curve: Curve, divergence: float | None) -> int:
    """Return the index of the steepest slope between onset and the lowest loss, below divergence."""
    below = len(curve) if divergence is None else int(np.count_nonzero(curve.lrs <= divergence))
    stop = min(curve.lowest_index, max(below - 1, 0))
    start = min(_onset(curve), stop)
    reach = max(1, round(SLOPE_SHARE * len(curve)))
    points = np.arange(len(curve))
    left, right = np.maximum(points - reach, 0), np.minimum(points + reach, len(curve) - 1)
    smoothed, decades = curve.unit_smoothed, np.log10(curve.lrs)
    slope = (smoothed[right] - smoothed[left]) / (decades[right] - decades[left])
    return start + int(np.argmin(slope[start : stop + 1]))
