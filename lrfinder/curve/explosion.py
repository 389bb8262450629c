"""Where a training blew up or died for the first time; what follows in the sweep says nothing about the model.

A network that has died, or one whose outputs no longer depend on its inputs, may still learn the mean of the targets:
its loss comes down a second time, and only the last rise of the curve would be taken for divergence.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from lrfinder.curve.arrays import Floats
from lrfinder.curve.curve import Context, Curve
from lrfinder.curve.divergence import divergence_lr
from lrfinder.curve.stop_rule import StopReason

__all__ = ["Explosion", "before_explosion", "first_divergence_lr", "first_explosion"]

FIRST_SHARE = 0.2  # the share of the points whose median is the level before learning
FEWEST_FIRST = 12  # and the least number of them
FEWEST_POINTS = 15  # fewer points show no explosion
SPIKE_NOISE = (
    6.0  # a spike is above that level by this many standard deviations of a single loss, and by the fall before
)
LEAST_SHARE = 0.25  # spikes, and falls before a return, that are less than this share of the whole depth do not count
SPIKE_POINTS = 5  # steps in which a spike makes most of its height; a loss that drifts up takes longer
SPIKE_SHARE = 0.5  # that is more than this share
WINDOW = 5  # points of the running median that a return is read from
FALL_NOISE = 4.0  # a return needs a fall by this many standard deviations of a single loss before it
RETURN_SHARE = 0.8  # the share of the fall that a return loses again
DEEPER = 1.5  # no return where the loss falls this many times as far later
SAME_RISE = 50.0  # a last rise that begins less than this factor above the first explosion belongs to it
KEPT_AFTER = 4  # points from the explosion on that stay in the curve, so that its rise is seen


@dataclass(frozen=True, kw_only=True)
class Explosion:
    """The first time that a training lost what it had learned.

    Args:
        index: The first point with a high loss.
        lr: The learning rate of the last low loss before it: the step there, or one soon before, went wrong.
    """

    index: int
    lr: float


def first_explosion(curve: Curve) -> Explosion | None:
    """Return where the loss first spiked above its first level, or returned to it.

    With the median p and the noise s of the first losses, the running median m_i of the losses L_i and the fall so far
    d_i = max_{j <= i} (p - m_j), point i explodes if one of these holds:

    - it is a spike: L_i - p > max(6 s, d_i), and half of that rise came within five steps: a validation loss drifts up
      while running statistics settle;
    - it is a return after a clear fall: d_i > 4 s and p - m_i < d_i / 5, unless the loss falls 1.5 times as far later.

    Args:
        curve: The measured sweep.

    Returns:
        The explosion, or None where there is none.

    Example:
        >>> lrs = np.geomspace(1e-4, 1.0, 60)
        >>> losses = np.where(lrs < 1e-2, 3.0, np.where(lrs < 0.1, 1.0, 2.9))
        >>> curve = Curve(lrs=lrs, losses=losses, smoothed=losses, indices=np.arange(60), stop_reason=None)
        >>> explosion = first_explosion(curve)
        >>> 0.05 < explosion.lr < 0.1
        True
    """
    losses = curve.unit_losses
    if len(losses) < FEWEST_POINTS:
        return None
    count = max(FEWEST_FIRST, int(FIRST_SHARE * len(losses)))
    first, noise = float(np.median(losses[:count])), _noise(losses[:count])
    median = _running_median(losses)
    fallen = np.maximum(first - np.minimum.accumulate(median), 0.0)
    later = first - np.minimum.accumulate(median[::-1])[::-1]
    depth = first - float(np.min(losses))
    spikes = losses - first > np.maximum(fallen, max(SPIKE_NOISE * noise, LEAST_SHARE * depth))
    spikes &= losses - _lowest_of_last(losses, SPIKE_POINTS) > SPIKE_SHARE * (losses - first)
    returns = (fallen > max(FALL_NOISE * noise, LEAST_SHARE * depth)) & (first - median < (1 - RETURN_SHARE) * fallen)
    returns &= later <= DEEPER * fallen
    found = np.flatnonzero((spikes | returns)[count:])
    if not len(found):
        return None
    index = count + int(found[0])
    return Explosion(index=index, lr=float(curve.lrs[_last_low(losses[:index], first, noise)]))


def before_explosion(curve: Curve) -> Curve:
    """Return the curve up to its first explosion, as a sweep that diverged there; without one, the curve itself."""
    explosion = first_explosion(curve)
    if explosion is None or explosion.index + KEPT_AFTER >= len(curve):
        return curve
    stop = explosion.index + KEPT_AFTER
    return replace(
        curve,
        lrs=curve.lrs[:stop],
        losses=curve.losses[:stop],
        smoothed=curve.smoothed[:stop],
        indices=curve.indices[:stop],
        grad_norms=None if curve.grad_norms is None else curve.grad_norms[:stop],
        stop_reason=StopReason.DIVERGED,
        stop_lr=float(curve.lrs[stop - 1]),
    )


def first_divergence_lr(curve: Curve, context: Context) -> float | None:
    """Return the learning rate from which the training is lost, or None where it is not.

    That is where the loss rose for good, or where it exploded for the first time, if that is far lower.

    Args:
        curve: The measured sweep, of at least one point.
        context: What is known of the training.

    Returns:
        The learning rate, or None.
    """
    explosion, last = first_explosion(curve), divergence_lr(curve, context)
    if explosion is None or (last is not None and last < SAME_RISE * explosion.lr):
        return last
    earlier = divergence_lr(before_explosion(curve), context)
    return explosion.lr if earlier is None else min(explosion.lr, earlier)


def _noise(losses: Floats) -> float:
    # The standard deviation of a single loss, from the differences of neighbours.
    steps = np.abs(np.diff(losses))
    return float(max(np.mean(steps), 1.2 * np.median(steps))) * math.sqrt(math.pi) / 2 + 1e-9


def _lowest_of_last(losses: Floats, count: int) -> Floats:
    # Of each loss and the `count` losses before it.
    padded = np.concatenate([np.full(count, np.inf), losses])
    return np.asarray(np.lib.stride_tricks.sliding_window_view(padded, count + 1).min(axis=1))


def _last_low(losses: Floats, first: float, noise: float) -> int:
    # The last point with at least half of the largest fall; the last point where nothing was learned.
    deepest = first - float(np.min(losses))
    if deepest <= FALL_NOISE * noise:
        return len(losses) - 1
    return int(np.flatnonzero(first - losses >= 0.5 * deepest)[-1])


def _running_median(losses: Floats) -> Floats:
    # The window shrinks towards the ends, on both sides.
    half = WINDOW // 2
    middle = np.median(np.lib.stride_tricks.sliding_window_view(losses, WINDOW), axis=1)
    ends = [float(np.median(losses[: 2 * i + 1])) for i in range(half)]
    starts = [float(np.median(losses[len(losses) - 2 * i - 1 :])) for i in range(half)]
    return np.concatenate([ends, middle, starts[::-1]])
