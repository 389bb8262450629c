"""The default rule: which learning rate to train with, and why."""

from lrfinder.curve import Context, Curve
from lrfinder.errors import NoSuggestionError
from lrfinder.features import bottom, divergence_lr, falls

__all__ = ["choose"]

BELOW_DIVERGENCE = 10**0.5
"""Stay half a decade below divergence: a cliff often lies just above the best rate, being a little low costs little."""

BELOW_MINIMUM = 2.0
"""The lowest loss of a sweep lies where the noise is about to win; stay this factor below it, too."""

ASSUMED_STEPS = 1_000
"""The length of training that the margins hold for, and that is assumed where `total_steps` isn't given."""

HORIZON_POWER = 0.1
"""Longer trainings want smaller rates: the rate goes with the length T as T to the minus this."""


def choose(curve: Curve, context: Context) -> tuple[float, str]:
    """Choose the rate to train with: below divergence, below the lowest loss, and less for a longer training.

        rate = min(divergence / sqrt(10), minimum / 2) * (1000 / T)^0.1

    Where the sweep never diverged, the largest rate tried stands for divergence: it is safe, and may be too small.

    Args:
        curve: The measured sweep.
        context: What is known of the training.

    Returns:
        The learning rate and the reason, one sentence without its full stop.

    Raises:
        NoSuggestionError: If the loss neither fell nor rose clearly, so that the curve says nothing.
    """
    divergence, learns = divergence_lr(curve, context), falls(curve)
    if divergence is None and not learns:
        raise NoSuggestionError(
            "auto: the loss neither fell nor rose clearly at any rate. Raise end_lr, or use larger batches or repeats."
        )
    largest = float(curve.lrs[-1])
    if divergence is None:
        rate, reason = largest / BELOW_DIVERGENCE, f"half a decade below the largest rate {largest:.1e}, never diverged"
    else:
        rate, reason = divergence / BELOW_DIVERGENCE, "half a decade below divergence"
    lowest = float(curve.lrs[bottom(curve)])
    if learns and lowest / BELOW_MINIMUM < rate:
        rate, reason = lowest / BELOW_MINIMUM, f"half the rate {lowest:.1e} of the lowest loss"
    return _for_horizon(rate, reason, context.total_steps)


def _for_horizon(rate: float, reason: str, total_steps: int | None) -> tuple[float, str]:
    steps = total_steps or ASSUMED_STEPS
    factor = (ASSUMED_STEPS / steps) ** HORIZON_POWER
    if total_steps is None:
        return rate, f"{reason}, for an assumed {steps:,} steps"
    verb = "shortened" if factor < 1 else "stretched" if factor > 1 else "right"
    return rate * factor, f"{reason}, {verb} for {steps:,} steps"
