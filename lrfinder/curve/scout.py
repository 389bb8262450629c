"""The scout: a coarse sweep that finds the range for the main one."""

import math

import numpy as np

from lrfinder.curve.arrays import Floats
from lrfinder.curve.curve import NOTHING_KNOWN, Context, Curve
from lrfinder.curve.features import divergence_lr
from lrfinder.curve.sweep import MIN_POINTS

__all__ = ["scout_grid", "scouted_range"]

SCOUT_START, SCOUT_END = 1e-8, 1e2
SCOUT_PER_DECADE = 3
SCOUT_STEPS = 30

DECADES_BELOW = 3.5
DECADES_ABOVE = 1.5
DECADES_ABOVE_WITH_MOMENTUM = 0.5
"""The main sweep's range about the scout's divergence. A scout mostly runs past the rate at which a finer sweep
diverges, for a rise needs steps to show; but with momentum its fast growing rates alone make the loss swing up early.
Beyond divergence the sweep needs most of a decade to see that the rise lasts."""


def scout_grid(start_lr: float | None = None, end_lr: float | None = None) -> Floats:
    """Return the scout's rates: about three per decade, at most 30, from far below any divergence to far above.

    Args:
        start_lr: The user's start, None to begin far below.
        end_lr: The user's end, None to go far above.

    Returns:
        The rates, shape (at most 30,).
    """
    start = SCOUT_START if start_lr is None else start_lr
    end = SCOUT_END if end_lr is None else end_lr
    if end <= start:  # a single end beyond the usual range
        start, end = (start, start * 1e3) if end_lr is None else (end / 1e3, end)
    points = math.ceil(SCOUT_PER_DECADE * math.log10(end / start)) + 1
    return np.geomspace(start, end, min(max(points, MIN_POINTS), SCOUT_STEPS))


def scouted_range(curve: Curve, context: Context = NOTHING_KNOWN) -> tuple[float, float]:
    """Choose the main sweep's range: a few decades below the scout's divergence up to well above.

    Args:
        curve: The scout's coarse curve.
        context: What is known of the training.

    Returns:
        Start and end. Where the scout never diverged, the range ends at its largest rate.
    """
    rate = divergence_lr(curve, context) if len(curve) else curve.stop_lr
    if rate is None:
        end = float(curve.lrs[-1]) if len(curve) else SCOUT_END
        return end / 10 ** (DECADES_BELOW + DECADES_ABOVE + 0.5), end
    above = DECADES_ABOVE + DECADES_ABOVE_WITH_MOMENTUM * context.momentum
    return rate / 10**DECADES_BELOW, rate * 10**above
