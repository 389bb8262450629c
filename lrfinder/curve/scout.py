"""The scout: a coarse sweep that finds the range for the main one."""

import math

import numpy as np

from lrfinder.curve.arrays import Floats
from lrfinder.curve.curve import NOTHING_KNOWN, Context, Curve
from lrfinder.curve.explosion import first_divergence_lr
from lrfinder.curve.sweep import MIN_POINTS

__all__ = ["scout_grid", "scouted_range"]

SCOUT_START, SCOUT_END = 1e-8, 1e2  # the scout's range
SCOUT_PER_DECADE = 3  # points
SCOUT_STEPS = 30  # at most
DECADES_BELOW = 3.5  # from the scout's divergence down to the start of the main sweep
DECADES_ABOVE = 1.5  # from there up to its end; it takes most of a decade to see that a rise lasts
DECADES_ABOVE_PER_MOMENTUM = 0.5  # more: with momentum the steep learning rates of a scout alone raise the loss early
LINEAR_ABOVE = 3.0  # from the scout's divergence up to the end of a linear sweep, as a factor
DECADES_WITHOUT = 5.5  # below the largest learning rate, where the scout did not diverge


def scout_grid(start_lr: float | None = None, end_lr: float | None = None) -> Floats:
    """Return the scout's learning rates: about three per decade, at most 30, over all decades where a loss may diverge.

    Args:
        start_lr: The user's start, None to begin far below.
        end_lr: The user's end, None to go far above.

    Returns:
        The learning rates, shape (at most 30,).
    """
    start = SCOUT_START if start_lr is None else start_lr
    end = SCOUT_END if end_lr is None else end_lr
    if end <= start:  # a single end beyond the usual range
        start, end = (start, start * 1e3) if end_lr is None else (end / 1e3, end)
    points = math.ceil(SCOUT_PER_DECADE * math.log10(end / start)) + 1
    return np.geomspace(start, end, min(max(points, MIN_POINTS), SCOUT_STEPS))


def scouted_range(
    curve: Curve, context: Context = NOTHING_KNOWN, *, num_iter: int = 100, mode: str = "exponential"
) -> tuple[float, float]:
    """Return the main sweep's range, from a few decades below the scout's divergence to well above.

    Equal steps up to far above divergence would pass all learning rates of interest in the first one: a linear sweep
    goes from divergence / num_iter to 3 times divergence.

    Args:
        curve: The scout's coarse curve.
        context: What is known of the training.
        num_iter: Number of points of the main sweep.
        mode: How they are spaced.

    Returns:
        Start and end. Where the scout did not diverge, the range ends at its largest learning rate.
    """
    divergence = first_divergence_lr(curve, context) if len(curve) else curve.stop_lr
    if mode == "linear":
        top = divergence or (float(curve.lrs[-1]) if len(curve) else SCOUT_END)
        return top / num_iter, top * LINEAR_ABOVE
    if divergence is None:
        end = float(curve.lrs[-1]) if len(curve) else SCOUT_END
        return end / 10**DECADES_WITHOUT, end
    above = DECADES_ABOVE + DECADES_ABOVE_PER_MOMENTUM * context.momentum
    return divergence / 10**DECADES_BELOW, divergence * 10**above
