"""The default rule: which learning rate to train with, and why.

Its form and its constants were chosen on the benchmark in `tests/benchmarks`, whose README says how the rule does on
tasks that were left out.
"""

import dataclasses
import math

import numpy as np

from lrfinder.curve.curve import Context, Curve
from lrfinder.curve.divergence import median_of_three
from lrfinder.curve.epochs import over_epochs
from lrfinder.curve.explosion import before_explosion, first_divergence_lr, first_explosion
from lrfinder.curve.range_start import FAR_ABOVE_START, fallen_at_start
from lrfinder.curve.remedies import how_to_see_divergence
from lrfinder.errors import NoSuggestionError

__all__ = ["choose", "for_training", "is_valley_hidden", "points_per_decade", "valley_lr"]

BELOW_VALLEY = 4.2  # divides the middle of the valley: a training stays at an lr that the sweep only passes
WIDEST_GAP = 0.5  # of log(lr), that a single point counts for
WIDEST_VALLEY = 12.0  # the middle counts up to this factor above the lr where the valley begins
VALLEY_BEGINS = 0.8  # share of the depth that is reached where the valley begins
BELOW_DIVERGENCE = 5.0  # divides the lr of divergence where the valley is lost in noise
BELOW_ALWAYS = 2.0  # divides the lr of divergence, for the largest lr that is ever suggested
RMSPROP_FACTOR = 2.0  # multiplies every lr for RMSprop, whose first steps are up to 1 / sqrt(1 - alpha) too long
CLEAR_VALLEY = 2.5  # standard deviations of a single loss that the depth of a clear valley exceeds
STILL_FALLING = 2.0  # the loss still falls at the end if the last lr is less than this factor above the lowest loss
UNSEEN_ABOVE = 2.0  # multiplies the lr where it does: the upper part of the valley was not tried
GAP_AT_START = 100.0  # the second lr of a linear grid is more than this factor above the first
UNSEEN_BELOW = 3.0  # divides the lr where it is: the lower part of the valley was not tried
POINTS_PER_DECADE = 20  # density of the sweep that the divisors hold for, that of about num_iter=100
DENSITY_POWER = 0.5  # a denser sweep has its features at lower learning rates: divisor ~ density^-this
MEASURED_DENSITIES = (5, 100)  # points per decade for which that was measured; the ends count beyond them
ASSUMED_STEPS = 1_000  # length of the training that the divisors hold for, assumed where it is not given
LENGTH_POWER = 0.3  # longer trainings want lower learning rates: lr ~ total_steps^-this


@dataclasses.dataclass(frozen=True)
class _Anchor:
    """A learning rate on the curve from which the rule goes down.

    Args:
        lr: The learning rate.
        divisor: What it is divided by, at `POINTS_PER_DECADE`.
        name: What it is.
        why: Why it was taken, or nothing.
    """

    lr: float
    divisor: float
    name: str
    why: str = ""


def choose(curve: Curve, context: Context) -> tuple[float, str]:
    """Return the learning rate below the middle of the curve's valley, lower for a longer training.

    With the smoothed losses L_i at the learning rates lr_i, the plateau L_0 of the first losses, the depth d of the
    descent, and D points per decade:

        w_i    = clip((L_0 - L_i) / d, 0, 1)^2
        middle = exp(sum_i w_i log lr_i / sum_i w_i)
        lr     = middle / 4.2 * (D / 20)^0.5 * (1000 / total_steps)^0.3

    What follows the first explosion is left out. The middle counts up to 12 times the learning rate at which 0.8 d is
    reached: a network that has died may still learn the mean of the targets, and makes a valley as wide as the sweep.

    The middle is steadier than the lowest point, whose place is noise. Where the depth is less than 2.5 standard
    deviations of a single loss (a trained model, tiny batches, sparse gradients), the valley tells nothing:

        lr     = divergence / 5 * (D / 20)^0.5 * (1000 / total_steps)^0.3

    The schedule changes nothing: no factor for a schedule lowers the regret on tasks that were left out.

    A range may show one half of the valley only. Where the loss still falls at the end of an exponential grid, the
    divisor is half as large. Where a linear grid leaves more than two decades between its first two learning rates, it
    is three times as large. Where most of the fall is over near the first learning rate, SGD gets that one: the range
    may begin above the learning rates that work.

    In one process, losses of data with only a few batches count as the mean of their epoch.

    Either is twice as high for RMSprop: its second moment starts at zero and is not corrected for that, so that its
    first steps are up to 10 times too long and a sweep sees everything at lower learning rates. Both are held below
    half of divergence, and of the first explosion.

    Args:
        curve: The measured sweep.
        context: What is known of the training.

    Returns:
        The learning rate and the reason, one sentence without its full stop.

    Raises:
        NoSuggestionError: If the loss neither fell nor rose clearly, so that the curve tells nothing.
    """
    curve = over_epochs(curve, context)
    divergence = _highest_lr(curve, context)
    whole, curve = curve, before_explosion(curve)
    if divergence is None and not (curve.has_clear_descent and curve.depth > 0):
        raise NoSuggestionError(
            "auto: the loss neither fell nor rose clearly at any learning rate. "
            f"{how_to_see_divergence(curve, context)} Larger batches or repeats make the noise smaller."
        )
    if divergence is None or not is_valley_hidden(curve):
        anchor = _valley(curve, ended=divergence is not None)
    else:
        anchor = _Anchor(divergence, BELOW_DIVERGENCE, "divergence", ", as noise hides the valley")
    divisor = anchor.divisor / (points_per_decade(curve, anchor.lr) / POINTS_PER_DECADE) ** DENSITY_POWER
    factor = (ASSUMED_STEPS / (context.total_steps or ASSUMED_STEPS)) ** LENGTH_POWER
    divisor /= RMSPROP_FACTOR if context.optimizer == "RMSprop" else 1.0
    divisor *= UNSEEN_BELOW if _starts_with_gap(curve) else 1.0
    lr, highest = anchor.lr / divisor * factor, math.inf if divergence is None else divergence / BELOW_ALWAYS
    start = float(curve.lrs[0])
    if context.optimizer == "SGD" and min(lr, highest) > FAR_ABOVE_START * start and fallen_at_start(whole) is not None:
        return (
            start,
            f"the first learning rate {start:.1e}, as most of the fall is over near it; lower start_lr to see more",
        )
    if highest < lr:
        return highest, f"divergence {divergence:.1e} / {BELOW_ALWAYS}, the highest that is suggested"
    reason = f"{anchor.name} {anchor.lr:.1e} / {divisor:.1f}{anchor.why}"
    if context.total_steps is None:
        return lr, f"{reason}, for an assumed {ASSUMED_STEPS:,} steps"
    return lr, f"{reason}, {for_training(factor, context)}"


def for_training(factor: float, context: Context) -> str:
    """Return the part of a reason that says how a learning rate was changed for the training.

    Args:
        factor: What the learning rate was multiplied by.
        context: What is known of the training, `total_steps` among it.

    Returns:
        A phrase.

    Example:
        >>> for_training(1.57, Context(total_steps=220))
        'x 1.6 for a training of 220 steps with one_cycle'
    """
    return f"x {factor:#.2g} for a training of {context.total_steps or 0:,} steps with {context.schedule}"


def is_valley_hidden(curve: Curve) -> bool:
    """Return whether noise hides the valley of a curve that ends at its first explosion."""
    return curve.depth <= CLEAR_VALLEY * curve.noise


def _valley(curve: Curve, *, ended: bool) -> _Anchor:
    shares = np.clip((curve.plateau - curve.unit_smoothed) / curve.depth, 0.0, 1.0)
    log_lrs = np.log(curve.lrs)
    # Learning rates need not be evenly spaced, but no point stands for a gap about it that was not measured.
    weights = shares**2 * np.minimum(np.gradient(log_lrs), WIDEST_GAP)
    middle = math.exp(float(np.average(log_lrs, weights=weights)))
    highest = WIDEST_VALLEY * valley_lr(curve)
    if middle <= highest and not ended and _still_falls(curve):
        divisor = BELOW_VALLEY / UNSEEN_ABOVE
        return _Anchor(middle, divisor, "valley's middle", ", as the loss still fell at the end")
    if middle <= highest:
        return _Anchor(middle, BELOW_VALLEY, "valley's middle")
    return _Anchor(
        highest, BELOW_VALLEY, "valley's middle held near its beginning,", ", as the loss stays low far above it"
    )


def _still_falls(curve: Curve) -> bool:
    """Return whether an exponential grid ended before the lowest loss was passed."""
    gaps = np.diff(np.log(curve.lrs))
    evenly = len(gaps) > 0 and float(gaps.max()) < 2 * float(gaps[-1])
    return evenly and float(curve.lrs[-1]) < STILL_FALLING * float(curve.lrs[curve.lowest_index])


def _starts_with_gap(curve: Curve) -> bool:
    return len(curve) > 1 and float(curve.lrs[1] / curve.lrs[0]) > GAP_AT_START


def valley_lr(curve: Curve) -> float:
    """Return the learning rate at which the loss has fallen by 0.8 of the depth, infinite where it never has."""
    reached = median_of_three(curve.unit_losses) <= curve.plateau - VALLEY_BEGINS * curve.depth
    return float(curve.lrs[np.argmax(reached)]) if reached.any() else math.inf


def _highest_lr(curve: Curve, context: Context) -> float | None:
    """Return the learning rate of divergence or of the first explosion, whichever is lower, None without both."""
    explosion = first_explosion(curve)
    found = [first_divergence_lr(curve, context), None if explosion is None else explosion.lr]
    return min((lr for lr in found if lr is not None), default=None)


def points_per_decade(curve: Curve, lr: float) -> float:
    """Return the density of the sweep about a learning rate: one in linear steps becomes ever denser."""
    if len(curve) < 2:
        return POINTS_PER_DECADE
    decades = np.log10(curve.lrs)
    return float(np.clip(1 / np.interp(math.log10(lr), decades, np.gradient(decades)), *MEASURED_DENSITIES))
