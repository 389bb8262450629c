"""Warnings about a curve that is hard to trust."""

import numpy as np

from lrfinder.curve.curve import NOTHING_KNOWN, Context, Curve
from lrfinder.curve.explosion import first_divergence_lr
from lrfinder.curve.remedies import how_to_see_divergence, why_few_points
from lrfinder.curve.sweep import MIN_POINTS

__all__ = ["curve_warnings"]

FEW_POINTS = 10  # fewer points below divergence show no shape


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
    found = []
    if not curve.has_clear_descent:
        found.append(
            "The curve is flat: the loss did not fall clearly at any learning rate, as when the model is trained "
            "already. If it is not, use larger batches or repeats, or widen the range."
        )
    elif curve.noise > curve.depth:
        found.append("The noise is larger than the fall of the loss. Use larger batches or repeats.")
    divergence = first_divergence_lr(curve, context)
    if divergence is None:
        remedy = how_to_see_divergence(curve, context)
        found.append(f"The loss did not diverge up to the last learning rate {curve.lrs[-1]:.1e}. {remedy}")
    elif np.count_nonzero(curve.lrs < divergence) < FEW_POINTS:
        found.append(f"Only few points lie below divergence at {divergence:.1e}. Lower start_lr, or raise num_iter.")
    return found
