"""Warnings about a curve that is hard to trust."""

import numpy as np

from lrfinder.curve.auto import valley_lr
from lrfinder.curve.curve import NOTHING_KNOWN, Context, Curve
from lrfinder.curve.explosion import first_divergence_lr
from lrfinder.curve.remedies import how_to_see_divergence, why_few_points
from lrfinder.curve.rules import suggest
from lrfinder.curve.stop_rule import StopReason
from lrfinder.curve.sweep import MIN_POINTS
from lrfinder.errors import NoSuggestionError

__all__ = ["curve_warnings"]

FEW_POINTS = 10  # fewer points below divergence show no shape
STILL_FALLING = 2.0  # the lowest loss is at the end if the last learning rate is less than this factor above it
VALLEY_AT_END = 5.0  # and the valley if it begins less than this factor below the last learning rate
FEW_POINTS_FLAT = 40  # with more points below divergence, that is enough to go by where noise hides the descent
WIDE_GAP = 3.0  # neighbours of which one is this factor above the other leave a gap


def curve_warnings(curve: Curve, context: Context = NOTHING_KNOWN) -> list[str]:
    """Return what makes a curve hard to trust, each with its remedy.

    Args:
        curve: The measured sweep.
        context: What is known of the training.

    Returns:
        Sentences; none for a healthy curve.
    """
    if len(curve) < MIN_POINTS:
        count = f"only {len(curve)} point{'s' * (len(curve) != 1)}" if len(curve) else "no points"
        return [f"The curve has {count}. {why_few_points(curve)}"]
    divergence = first_divergence_lr(curve, context)
    below = len(curve) if divergence is None else int(np.count_nonzero(curve.lrs < divergence))
    found = []
    if not curve.has_clear_descent and (divergence is None or below < FEW_POINTS_FLAT):
        found.append(
            "The curve is flat: the loss did not fall clearly at any learning rate, as when the model is trained "
            "already. If it is not, use larger batches or repeats, or widen the range."
        )
    elif curve.has_clear_descent and curve.noise > curve.depth:
        found.append("The noise is larger than the fall of the loss. Use larger batches or repeats.")
    last = float(curve.lrs[-1])
    still_falling = last < min(STILL_FALLING * float(curve.lrs[curve.lowest_index]), VALLEY_AT_END * valley_lr(curve))
    in_full = curve.stop_reason is StopReason.FINISHED
    if divergence is None and (still_falling or not (in_full and curve.has_clear_descent)):
        remedy = how_to_see_divergence(curve, context)
        found.append(f"The loss did not diverge up to the last learning rate {curve.lrs[-1]:.1e}. {remedy}")
    elif divergence is not None and below < FEW_POINTS:
        found.append(f"Only few points lie below divergence at {divergence:.1e}. Lower start_lr, or raise num_iter.")
    return found + _misplaced(curve, context)


def _misplaced(curve: Curve, context: Context) -> list[str]:
    """Return what is doubtful about the place of the suggested learning rate among those that were tried."""
    try:
        lr = suggest("auto", curve, context).lr
    except NoSuggestionError:
        return []
    if lr < curve.lrs[0]:
        return [f"The suggestion {lr:.1e} lies below the first learning rate {curve.lrs[0]:.1e}. Lower start_lr."]
    above = int(np.searchsorted(curve.lrs, lr))
    if above == len(curve):
        return [f"The suggestion {lr:.1e} lies above the last learning rate {curve.lrs[-1]:.1e}. Raise end_lr."]
    below = max(above - 1, 0)
    if curve.lrs[above] > WIDE_GAP * curve.lrs[below]:
        gap = f"nothing was tried between {curve.lrs[below]:.1e} and {curve.lrs[above]:.1e}"
        remedy = "Use mode='exponential', a narrower range, or a larger num_iter."
        return [f"The suggestion {lr:.1e} lies in a gap: {gap}. {remedy}"]
    return []
