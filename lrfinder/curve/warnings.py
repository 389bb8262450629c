"""Warnings about a curve that is hard to trust."""

import numpy as np

from lrfinder.curve.curve import NOTHING_KNOWN, Context, Curve
from lrfinder.curve.features import divergence_lr, fall, falls, noise
from lrfinder.curve.rules import why_few_points
from lrfinder.curve.sweep import MIN_POINTS

__all__ = ["curve_warnings"]

FEW_POINTS = 10
"""Fewer points below divergence show no shape."""


def curve_warnings(curve: Curve, context: Context = NOTHING_KNOWN) -> list[str]:
    """Say what makes a curve hard to trust, each with its remedy.

    Args:
        curve: The measured sweep.
        context: What is known of the training.

    Returns:
        Sentences; none for a healthy curve.
    """
    if len(curve) < MIN_POINTS:
        return [f"The curve has only {len(curve)} points. {why_few_points(curve)}"]
    rate, learns = divergence_lr(curve, context), falls(curve)
    found = []
    if not learns:
        found.append(
            "The curve is flat: the loss did not fall clearly at any rate, as when the model is trained already. "
            "Else use larger batches or repeats, or widen the range."
        )
    elif noise(curve) > fall(curve):
        found.append("The noise is larger than the fall of the loss. Use larger batches or repeats.")
    if rate is None:
        found.append(f"The loss did not diverge up to end_lr={curve.lrs[-1]:.1e}. Raise end_lr, or leave it out.")
    elif np.count_nonzero(curve.lrs < rate) < FEW_POINTS:
        found.append(f"Only few points lie below divergence at {rate:.1e}. Lower start_lr, or raise num_iter.")
    return found
