"""The default rule: which learning rate to train with, and why.

Its form and constants were chosen on the benchmark in `tests/benchmarks`. They are fitted to all of its tasks; how they
do where the scored task is left out stands in the README.
"""

import math

import numpy as np

from lrfinder.curve.curve import Context, Curve
from lrfinder.curve.features import divergence_lr, fall, falls, noise, plateau, unit
from lrfinder.errors import NoSuggestionError

__all__ = ["choose"]

BELOW_VALLEY = 4.2
"""The sweep passes the rates quickly: a training that stays near one wants less than the middle of the valley. A cliff
often lies just above the best rate, and being a little low costs little."""

BELOW_DIVERGENCE = 5.0
"""Where the valley is buried in noise, stay this factor below divergence."""

BELOW_ALWAYS = 2.0
"""Whatever the valley and the length of the training say, stay this factor below divergence."""

CLEAR_VALLEY = 2.5
"""A valley is clear when its depth exceeds so many standard deviations of a single loss."""

POINTS_PER_DECADE = 20
"""The speed of the sweep that the factors hold for; `num_iter=100` makes about so many."""

SPEED_POWER = 0.5
"""The slower a sweep, the further down its features lie: they go with its points per decade to the minus this."""

MEASURED_SPEEDS = (5, 100)
"""So far that was measured: the factors are those of these ends beyond them."""

ASSUMED_STEPS = 1_000
"""The length of training that the factors hold for, and that is assumed where `total_steps` isn't given."""

HORIZON_POWER = 0.3
"""Longer trainings want smaller rates: the rate goes with the length T as T to the minus this."""


def choose(curve: Curve, context: Context) -> tuple[float, str]:
    """Choose the rate to train with: below the middle of the curve's valley, and less for a longer training.

    With the smoothed losses L_i at the rates r_i, the plateau L_0 of the first losses, the depth d of the fall, and D
    points per decade of the rate:

        w_i = clip((L_0 - L_i) / d, 0, 1)^2
        middle = exp(sum_i w_i log r_i / sum_i w_i)
        rate = middle / 4.2 * (D / 20)^0.5 * (1000 / T)^0.3

    The middle is steadier than the lowest point, whose place is noise. Where the depth is less than 2.5 standard
    deviations of a single loss (a warm start; tiny batches; sparse gradients), the valley says nothing:

        rate = divergence / 5 * (D / 20)^0.5 * (1000 / T)^0.3

    Either is held below half of divergence.

    Args:
        curve: The measured sweep.
        context: What is known of the training.

    Returns:
        The learning rate and the reason, one sentence without its full stop.

    Raises:
        NoSuggestionError: If the loss neither fell nor rose clearly, so that the curve says nothing.
    """
    divergence, depth = divergence_lr(curve, context), fall(curve)
    clear = depth > CLEAR_VALLEY * noise(curve)
    if divergence is None and not (falls(curve) and depth > 0):
        raise NoSuggestionError(
            "auto: the loss neither fell nor rose clearly at any rate. Raise end_lr, or use larger batches or repeats."
        )
    if clear or divergence is None:
        anchor, factor, seen = _middle_of_valley(curve), BELOW_VALLEY, "the middle {:.1e} of the valley"
    else:
        anchor, factor, seen = divergence, BELOW_DIVERGENCE, "divergence at {:.1e}, the fall being lost in noise"
    factor /= (_points_per_decade(curve, anchor) / POINTS_PER_DECADE) ** SPEED_POWER
    rate, reason = anchor / factor, f"a factor {factor:.1f} below {seen.format(anchor)}"
    rate, reason = _for_horizon(rate, reason, context.total_steps)
    if divergence is not None and divergence / BELOW_ALWAYS < rate:
        return divergence / BELOW_ALWAYS, f"a factor {BELOW_ALWAYS} below divergence, the most that is safe"
    return rate, reason


def _middle_of_valley(curve: Curve) -> float:
    shares = np.clip((plateau(curve) - unit(curve)[1]) / fall(curve), 0.0, 1.0)
    decades = np.log(curve.lrs)
    weights = shares**2 * np.gradient(decades)  # rates need not be evenly spaced
    return math.exp(float(np.average(decades, weights=weights)))


def _points_per_decade(curve: Curve, rate: float) -> float:
    # About this rate: a sweep in linear steps becomes ever denser.
    if len(curve) < 2:
        return POINTS_PER_DECADE
    decades = np.log10(curve.lrs)
    return float(np.clip(1 / np.interp(math.log10(rate), decades, np.gradient(decades)), *MEASURED_SPEEDS))


def _for_horizon(rate: float, reason: str, total_steps: int | None) -> tuple[float, str]:
    steps = total_steps or ASSUMED_STEPS
    factor = (ASSUMED_STEPS / steps) ** HORIZON_POWER
    if total_steps is None:
        return rate, f"{reason}, for an assumed {steps:,} steps"
    verb = "lowered" if factor < 1 else "raised" if factor > 1 else "as it is"
    return rate * factor, f"{reason}, {verb} for {steps:,} steps"
