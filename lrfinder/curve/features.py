"""What a curve shows, whatever the loss's scale and offset: its noise, its fall, and where it rises for good.

Rules read these features; none of them is advice.
"""

import math
from collections.abc import Callable
from functools import wraps
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from lrfinder.curve.arrays import Floats
from lrfinder.curve.curve import Context, Curve
from lrfinder.curve.stop_rule import StopReason
from lrfinder.curve.sweep import MIN_POINTS

__all__ = ["bottom", "divergence_lr", "fall", "falls", "noise", "plateau", "unit"]

TINY = 1e-300
DECIMALS = 9
ROUNDING = 1e-12
"""Losses that differ by less, as a share of their size, are equal."""

ABOVE_NOISE = 4.0
"""A rise counts when it exceeds so many standard deviations of a single loss ..."""

ABOVE_FALL = 0.1
"""... and takes back this share of the fall."""

SUSTAINED_SHARE = 0.03
"""A rise at the end of a sweep that wasn't stopped has to last for this share of the points, and for three."""

CLEAR_FALL = 3.0
"""A fall counts when the medians of two stretches of losses differ by so many standard errors."""

EDGE_SHARE = 0.02
"""This share of the points at either end is not searched for the lowest one."""

FIRST_STEPS = 5
"""So many steps of a rise tell how fast it grew at first."""

UNSTABLE_STEPS = 4
UNSTABLE_GROWTH = 1.2
UNSTABLE_AGREEMENT = 0.05
"""A linear instability: at least so many steps in a row, each with this growth, that agree on where it began."""

UNSEEN = 10.0
"""No instability stays unseen while the rate grows by this factor."""

T = TypeVar("T")


def _kept(feature: Callable[[Curve], T]) -> Callable[[Curve], T]:
    # Curves do not change, and all rules ask for the same few features: each is computed once.

    @wraps(feature)
    def look_up(curve: Curve) -> T:
        known = vars(curve).setdefault("features", {})
        if feature.__name__ not in known:
            known[feature.__name__] = feature(curve)
        return known[feature.__name__]  # type: ignore[no-any-return]  # what was put there

    return look_up


@_kept
def unit(curve: Curve) -> tuple[Floats, Floats]:
    """Put the losses on a scale of their own: the lowest is 0, and three quarters lie below 1.

    Rules that see only these numbers can't depend on the loss's offset or scale, and no difference of them overflows.
    They are rounded, so that the rounding errors of an offset break no ties.

    Args:
        curve: The measured sweep.

    Returns:
        Losses and smoothed losses, each of shape (T,).
    """
    both = np.stack([curve.losses, curve.smoothed])
    if not len(curve):
        return curve.losses, curve.smoothed
    both /= max(np.max(np.abs(both)), TINY)
    size = np.median(np.abs(both[0]))
    both -= np.min(both)
    spread = np.quantile(both[0], 0.75)
    if spread <= ROUNDING * size:  # all alike but for a few
        spread = float(np.max(both))
    both = np.round(np.minimum(both / max(spread, TINY), 1 / TINY**0.8), DECIMALS)
    both.flags.writeable = False
    return both[0], both[1]


@_kept
def bottom(curve: Curve) -> int:
    """Find the lowest smoothed loss, the very ends aside: there a smooth line is as noisy as the losses.

    Args:
        curve: The measured sweep.

    Returns:
        Its index.
    """
    edge = math.ceil(EDGE_SHARE * len(curve)) if len(curve) >= MIN_POINTS else 0
    return edge + int(np.argmin(unit(curve)[1][edge : len(curve) - edge]))


@_kept
def plateau(curve: Curve) -> float:
    """Take the median loss of the first points.

    Args:
        curve: The measured sweep.

    Returns:
        The level, in the units of `unit`.
    """
    return np.median(unit(curve)[0][: max(5, len(curve) // 10)])


def fall(curve: Curve) -> float:
    """Measure how far the smoothed loss falls from its plateau.

    Args:
        curve: The measured sweep.

    Returns:
        The depth, not negative, in the units of `unit`.
    """
    return max(plateau(curve) - float(unit(curve)[1][bottom(curve)]), 0.0)


@_kept
def noise(curve: Curve) -> float:
    """Estimate the standard deviation of a single loss, from the points down to the lowest.

    Successive differences lose the trend; the mean of their sizes is 2 / sqrt(pi) standard deviations.

    Args:
        curve: The measured sweep.

    Returns:
        The standard deviation, in the units of `unit`.
    """
    losses = unit(curve)[0][: max(bottom(curve), len(curve) // 4, 5)]
    return float(np.abs(losses[1:] - losses[:-1]).mean()) * math.sqrt(math.pi) / 2


def falls(curve: Curve) -> bool:
    """Tell whether the loss falls clearly: its median about the lowest point is below that of the first points.

    Args:
        curve: The measured sweep.

    Returns:
        Whether the two differ by more than the noise explains.
    """
    losses = unit(curve)[0]
    width = max(3, len(losses) // 6)
    at = min(max(bottom(curve) - width // 2, 0), len(losses) - width)
    drop = np.median(losses[:width]) - np.median(losses[at : at + width])
    return bool(drop > CLEAR_FALL * noise(curve) * math.sqrt(2 / width))


def divergence_lr(curve: Curve, context: Context) -> float | None:
    """Return the rate from which the loss rose for good, or None where it did not.

    A rise shows above the noise several steps after it began. Two things lead back to its foot.

    For a quadratic loss of curvature lambda, SGD with momentum beta multiplies the distance from the minimum by -s at
    each step, where rate * lambda = 1 + beta + s + beta / s. So a step that multiplies the loss's excess by s^2 tells
    where the instability began, at s = 1 (and there rate * lambda = 2 (1 + beta), the bound of stability):

        foot = rate * 2 (1 + beta) / (1 + beta + s + beta / s)

    Where several steps in a row agree on it, that is the answer. Elsewhere the first steps of the rise give it, between
    the lowest point and the first one that is clearly above; a slow rise is hardly corrected. Bound and growth are
    those of the heavy ball (B. T. Polyak 1964, "Some methods of speeding up the convergence of iteration methods").

    Args:
        curve: The measured sweep, of at least one point.
        context: What is known of the training; the momentum and whether losses follow their step matter here.

    Returns:
        The learning rate, or None.

    """
    first = _rise(curve)
    if first >= len(curve):
        stopped = curve.stop_reason in {StopReason.DIVERGED, StopReason.NONFINITE}
        return float(curve.lrs[-1]) if stopped and len(curve) else None
    losses, smoothed = unit(curve)
    last_low = first - 1
    excess = np.maximum(losses[last_low:] - smoothed[bottom(curve)], _least_rise(curve))
    step = last_low + (1 if context.val else 0)  # the rate that turned the last low loss into the first high one
    rates = curve.lrs[step : step + len(excess) - 1]
    growth = np.exp(np.clip(0.5 * np.diff(np.log(excess)), 0.0, 50.0))
    beta = context.momentum
    feet = rates * 2 * (1 + beta) / (1 + beta + growth + beta / growth)
    agreed = _agreed(feet, growth)
    if agreed is not None and agreed > rates[0] / UNSEEN:
        return agreed
    return float(np.clip(np.median(feet[:FIRST_STEPS]), curve.lrs[bottom(curve)], rates[0]))


def _agreed(feet: Floats, growth: Floats) -> float | None:
    # The median foot of the longest run of growing steps that agree on it.
    together = (growth[1:] > UNSTABLE_GROWTH) & (growth[:-1] > UNSTABLE_GROWTH)
    together &= np.abs(np.diff(np.log(feet))) < UNSTABLE_AGREEMENT
    start, stop = _longest_run(together)
    if stop - start + 1 < UNSTABLE_STEPS:
        return None
    run = feet[start : stop + 1]
    # Neighbours may agree and still drift together with the rate: that is no instability with one beginning.
    return np.median(run) if run.max() < (1 + 2 * UNSTABLE_AGREEMENT) * run.min() else None


def _longest_run(mask: npt.NDArray[np.bool_]) -> tuple[int, int]:
    # Start and stop of the longest run of True.
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    if not len(edges):
        return 0, 0
    starts, stops = edges[::2], edges[1::2]
    longest = int(np.argmax(stops - starts))
    return int(starts[longest]), int(stops[longest])


def _least_rise(curve: Curve) -> float:
    losses = unit(curve)[0]
    steps = losses[1:] - losses[:-1]
    spread = 1.4826 * np.median(np.abs(steps - np.median(steps))) / math.sqrt(2)  # deaf to the rise itself
    return float(max(ABOVE_NOISE * spread, ABOVE_FALL * fall(curve), 10.0**-DECIMALS))


def _rise(curve: Curve) -> int:
    # The first point of the final rise, T where there is none.
    if len(curve) < 3:
        return len(curve)
    losses, smoothed = unit(curve)
    level = losses.copy()
    # Of three neighbours the median: one noisy batch neither ends nor makes a rise.
    level[1:-1] = np.sort([losses[:-2], losses[1:-1], losses[2:]], axis=0)[1]
    lowest = bottom(curve)
    low = np.flatnonzero(level <= smoothed[lowest] + _least_rise(curve))
    first = max(int(low[-1]) if len(low) else 0, lowest) + 1
    stopped = curve.stop_reason in {StopReason.DIVERGED, StopReason.NONFINITE}
    lasts = len(level) - first >= max(3, SUSTAINED_SHARE * len(level))
    return first if stopped or lasts else len(level)
