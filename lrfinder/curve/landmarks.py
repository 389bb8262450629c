"""Landmarks of a curve: where the loss starts to fall, falls fastest, is lowest, and diverges. They are not advice."""

import dataclasses

import numpy as np

from lrfinder.curve.curve import NOTHING_KNOWN, Context, Curve
from lrfinder.curve.features import bottom, divergence_lr, fall, falls, noise, plateau, unit
from lrfinder.curve.sweep import MIN_POINTS

__all__ = ["Landmarks", "find_landmarks"]

SLOPE_SHARE = 0.03  # slopes are taken over this share of the points on either side
BAND_NOISE = 1.5  # the loss has left its plateau once it is this many standard deviations of a single loss below it,
BAND_FALL = 0.02  # and this share of the whole fall


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
    descends = falls(curve)
    return Landmarks(
        onset=float(curve.lrs[_onset(curve)]) if descends else None,
        steepest=float(curve.lrs[_steepest(curve, context)]) if descends else None,
        minimum=float(curve.lrs[bottom(curve)]) if np.ptp(unit(curve)[1]) > 0 else None,
        divergence=divergence_lr(curve, context),
    )


def _onset(curve: Curve) -> int:
    """Return the first index from which on, down to the lowest point, the loss is below the plateau and its noise."""
    band = max(BAND_NOISE * noise(curve), BAND_FALL * fall(curve))
    high = np.flatnonzero(unit(curve)[1][: bottom(curve)] >= plateau(curve) - band)
    return int(high[-1]) + 1 if len(high) else 0


def _steepest(curve: Curve, context: Context) -> int:
    """Return the index of the steepest slope between onset and the lowest loss, below divergence."""
    divergence = divergence_lr(curve, context)
    below = len(curve) if divergence is None else int(np.count_nonzero(curve.lrs <= divergence))
    stop = min(bottom(curve), max(below - 1, 0))
    start = min(_onset(curve), stop)
    reach = max(1, round(SLOPE_SHARE * len(curve)))
    points = np.arange(len(curve))
    left, right = np.maximum(points - reach, 0), np.minimum(points + reach, len(curve) - 1)
    smoothed, decades = unit(curve)[1], np.log10(curve.lrs)
    slope = (smoothed[right] - smoothed[left]) / (decades[right] - decades[left])
    return start + int(np.argmin(slope[start : stop + 1]))
