"""Warnings about a curve that is hard to trust."""

from dataclasses import replace

import numpy as np

from lrfinder.curve.auto import is_valley_hidden, points_per_decade, valley_lr
from lrfinder.curve.curve import NOTHING_KNOWN, Context, Curve
from lrfinder.curve.divergence import divergence_lr
from lrfinder.curve.epochs import over_epochs
from lrfinder.curve.explosion import before_explosion, first_divergence_lr, first_explosion
from lrfinder.curve.range_start import FAR_ABOVE_START, fallen_at_start
from lrfinder.curve.remedies import how_to_see_divergence, why_few_points
from lrfinder.curve.rules import suggest
from lrfinder.curve.smoothing import smooth
from lrfinder.curve.stop_rule import StopReason
from lrfinder.curve.sweep import MIN_POINTS
from lrfinder.errors import NoSuggestionError

__all__ = ["curve_warnings"]

FEW_POINTS = 10  # fewer points below divergence show no shape
STILL_FALLING = 2.0  # the lowest loss is at the end if the last learning rate is less than this factor above it
VALLEY_AT_END = 3.0  # and the valley if it begins less than this factor below the last learning rate
FEW_POINTS_FLAT = 40  # with more points below divergence, that is enough to go by where noise hides the descent
WIDE_GAP = 3.0  # neighbours of which one is this factor above the other leave a gap
SPARSE = 15.0  # points per decade, fewer than those of a sweep on a scouted range
MANY_POINTS = 40  # half of fewer says little
UNSTABLE = 10.0  # factor by which half of the points disagree with all of them where there are too few
FAR_BELOW_RISE = 10.0  # a spike is lone if the last rise begins more than this factor above it

AGAINST_NOISE = "Pass a val_loader, whose batches are the same at each learning rate, or use larger batches or repeats."


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
    curve = over_epochs(curve, context)
    divergence = first_divergence_lr(curve, context)
    below = len(curve) if divergence is None else int(np.count_nonzero(curve.lrs < divergence))
    found = []
    if not curve.has_clear_descent and (divergence is None or below < FEW_POINTS_FLAT):
        found.append(
            "The curve is flat: the loss did not fall clearly at any learning rate, as when the model is trained "
            "already, or as losses do that do not measure progress (GANs, policy gradients). Otherwise pass a "
            "val_loader, use larger batches or repeats, or widen the range."
        )
    elif curve.has_clear_descent and curve.noise > curve.depth:
        found.append(f"The noise is larger than the fall of the loss. {AGAINST_NOISE}")
    still_falling = _falls_to_the_end(curve)
    in_full = curve.stop_reason is StopReason.FINISHED
    if divergence is None and (still_falling or not (in_full and curve.has_clear_descent)):
        remedy = how_to_see_divergence(curve, context)
        found.append(f"The loss did not diverge up to the last learning rate {curve.lrs[-1]:.1e}. {remedy}")
    elif divergence is not None and below < FEW_POINTS:
        found.append(f"Only few points lie below divergence at {divergence:.1e}. Lower start_lr, or raise num_iter.")
    lr = _suggested(curve, context)
    if lr is None:
        return found
    doubts = _misplaced(curve, lr) or _begins_too_high(curve, lr) or _unstable(curve, context, lr)
    return found + (doubts or ([] if found else _rests_on_a_spike(curve, context)))


def _falls_to_the_end(curve: Curve) -> bool:
    """Return whether the loss is lowest near the last learning rate, or next to it where the sweep is sparse."""
    last, following = float(curve.lrs[-1]), float(curve.lrs[min(curve.lowest_index + 1, len(curve) - 1)])
    lowest = STILL_FALLING * float(curve.lrs[curve.lowest_index])
    return (last < lowest or last == following) and last < VALLEY_AT_END * valley_lr(curve)


def _misplaced(curve: Curve, lr: float) -> list[str]:
    """Return what is doubtful about the place of the suggested learning rate among those that were tried."""
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


def _begins_too_high(curve: Curve, lr: float) -> list[str]:
    """Return a doubt where the range may begin above the learning rates that work."""
    start, fallen = float(curve.lrs[0]), fallen_at_start(curve)
    if fallen is None or lr <= FAR_ABOVE_START * start:
        return []
    fact = f"Most of the fall is over at {fallen:.1e}, near the first learning rate {start:.1e}"
    return [f"{fact}: the range may begin above the learning rates that work. Lower start_lr."]


def _rests_on_a_spike(curve: Curve, context: Context) -> list[str]:
    """Return a doubt where noise hides the valley and the loss rose for good far above its first spike, or never.

    That spike is taken for the beginning of divergence then, and a batch with unusual targets makes one as well.
    """
    explosion, last_rise = first_explosion(curve), divergence_lr(curve, context)
    if explosion is None or not is_valley_hidden(before_explosion(curve)):
        return []
    if last_rise is not None and last_rise < FAR_BELOW_RISE * explosion.lr:
        return []
    fact = f"Noise hides the valley, and the suggestion rests on a single spike of the loss at {explosion.lr:.1e}"
    return [f"{fact}. {AGAINST_NOISE}"]


def _unstable(curve: Curve, context: Context, lr: float) -> list[str]:
    """Return a doubt where a sparse sweep's suggestion hangs on single points."""
    if len(curve) < MANY_POINTS or points_per_decade(curve, lr) >= SPARSE:
        return []
    found = [_suggested(_every_second(curve, first), context) for first in (0, 1)]
    halves = [alone for alone in found if alone is not None]
    alone = max(halves, key=lambda each: max(each / lr, lr / each), default=lr)
    if max(alone / lr, lr / alone) <= UNSTABLE:
        return []
    disagreement = f"Every second point alone would suggest {alone:.1e}, all of them {lr:.1e}"
    return [f"{disagreement}: they are too few for their noise. Raise num_iter, or narrow the range."]


def _every_second(curve: Curve, first: int) -> Curve:
    part = slice(first, None, 2)
    losses = curve.losses[part]
    return replace(
        curve,
        lrs=curve.lrs[part],
        losses=losses,
        smoothed=smooth(losses),
        indices=curve.indices[part],
        grad_norms=None,
    )


def _suggested(curve: Curve, context: Context) -> float | None:
    try:
        return suggest("auto", curve, context).lr
    except NoSuggestionError:
        return None
