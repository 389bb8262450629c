"""Where the loss of a sweep rises for good."""

import math

import numpy as np
import numpy.typing as npt

from lrfinder.curve.arrays import Floats
from lrfinder.curve.curve import Context, Curve
from lrfinder.curve.features import DECIMALS
from lrfinder.curve.stop_rule import StopReason

__all__ = ["divergence_lr", "median_of_three"]

ABOVE_NOISE = 4.0  # standard deviations of a single loss that a rise exceeds
ABOVE_DEPTH = 0.1  # share of the descent's depth that a rise takes back
SUSTAINED_SHARE = 0.03  # share of the points that a rise lasts at the end of a sweep that was not stopped
SUSTAINED_POINTS = 3  # that it lasts at least
FIRST_STEPS = 5  # steps of a rise that show its first growth
UNSTABLE_STEPS = 4  # steps in a row that grow and agree on where the instability began
UNSTABLE_GROWTH = 1.2  # growth of each of them
UNSTABLE_AGREEMENT = 0.05  # relative difference of neighbours that agree
HIDDEN_FACTOR = 10.0  # an instability is seen before the learning rate has grown by this factor
MAD_TO_STD = 1.4826  # standard deviations of a normal distribution in a median absolute deviation


def divergence_lr(curve: Curve, context: Context) -> float | None:
    """Return the learning rate from which the loss rises for good, or None where it does not.

    A rise shows above the noise several steps after it began, so the learning rate at which it began is computed from
    its growth. For a quadratic loss of curvature c, SGD with momentum b multiplies the distance from the minimum by -s
    at each step, where lr * c = 1 + b + s + b / s. A step that multiplies the loss's excess by s^2 therefore tells the
    learning rate at which s was 1, the bound of stability lr * c = 2 (1 + b):

        instability_lr = lr * 2 (1 + b) / (1 + b + s + b / s)

    Where several steps in a row agree on it, that is the answer. Elsewhere it is the median over the first steps of the
    rise, kept between the lowest point and the first point that is clearly above. Bound and growth are those of the
    heavy-ball method (B. T. Polyak 1964, "Some methods of speeding up the convergence of iteration methods").

    Args:
        curve: The measured sweep, of at least one point.
        context: What is known of the training: its momentum, and whether losses were measured after their step.

    Returns:
        The learning rate, or None.
    """
    first = _first_high(curve)
    if first >= len(curve):
        return float(curve.lrs[-1]) if _was_stopped(curve) and len(curve) else None
    last_low = first - 1
    excess = np.maximum(curve.unit_losses[last_low:] - curve.lowest, _least_rise(curve))
    step = last_low + (1 if context.val else 0)  # the step that turned the last low loss into the first high one
    lrs = curve.lrs[step : step + len(excess) - 1]
    growth = np.exp(np.clip(0.5 * np.diff(np.log(excess)), 0.0, 50.0))
    momentum = context.momentum
    instability_lrs = lrs * 2 * (1 + momentum) / (1 + momentum + growth + momentum / growth)
    agreed = _agreed(instability_lrs, growth)
    if agreed is not None and agreed > lrs[0] / HIDDEN_FACTOR:
        return agreed
    return float(np.clip(np.median(instability_lrs[:FIRST_STEPS]), curve.lrs[curve.lowest_index], lrs[0]))


def median_of_three(losses: Floats) -> Floats:
    """Return the median of each loss and its two neighbours; the ends stay as they are."""
    found = losses.copy()
    if len(losses) > 2:
        found[1:-1] = np.median([losses[:-2], losses[1:-1], losses[2:]], axis=0)
    return found


def _agreed(instability_lrs: Floats, growth: Floats) -> float | None:
    """Return the median over the longest run of growing steps that agree, None where there is no such run."""
    grows = growth > UNSTABLE_GROWTH
    agrees = np.abs(np.diff(np.log(instability_lrs))) < UNSTABLE_AGREEMENT
    start, stop = _longest_run(grows[1:] & grows[:-1] & agrees)
    if stop - start + 1 < UNSTABLE_STEPS:
        return None
    run = instability_lrs[start : stop + 1]
    # Neighbours may agree and yet drift together with the learning rate: then there is no common beginning.
    return float(np.median(run)) if run.max() < (1 + 2 * UNSTABLE_AGREEMENT) * run.min() else None


def _longest_run(mask: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Return start and stop of the longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    if not len(edges):
        return 0, 0
    starts, stops = edges[::2], edges[1::2]
    longest = int(np.argmax(stops - starts))
    return int(starts[longest]), int(stops[longest])


def _first_high(curve: Curve) -> int:
    """Return the index of the first point of the final rise, the number of points where there is no such rise."""
    losses = curve.unit_losses
    if len(losses) < 3:
        return len(losses)
    level = median_of_three(losses)  # a single noisy batch neither ends nor makes a rise
    low = np.flatnonzero(level <= curve.lowest + _least_rise(curve))
    first = max(int(low[-1]) if len(low) else 0, curve.lowest_index) + 1
    lasts = len(level) - first >= max(SUSTAINED_POINTS, SUSTAINED_SHARE * len(level))
    return first if lasts or _was_stopped(curve) else len(level)


def _least_rise(curve: Curve) -> float:
    """Return how far above the lowest smoothed loss a loss counts as high."""
    steps = np.diff(curve.unit_losses)
    spread = MAD_TO_STD * np.median(np.abs(steps - np.median(steps))) / math.sqrt(2)  # the rise itself hardly counts
    return float(max(ABOVE_NOISE * spread, ABOVE_DEPTH * curve.depth, 10.0**-DECIMALS))


def _was_stopped(curve: Curve) -> bool:
    return curve.stop_reason in {StopReason.DIVERGED, StopReason.NONFINITE}
