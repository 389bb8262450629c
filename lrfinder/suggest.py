"""Rules that read a learning rate off a measured curve: (curve, context) -> Suggestion."""

import bisect
import dataclasses
import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from lrfinder import auto as default_rule
from lrfinder.curve import Context, Curve
from lrfinder.errors import ArgumentError, NoSuggestionError
from lrfinder.features import bottom, divergence_lr, fall, falls, noise, plateau, unit
from lrfinder.sweep import MIN_POINTS, Floats

__all__ = ["RULES", "Rule", "Suggestion", "scout_grid", "scouted_range", "suggest", "suggestions", "warnings_for"]

NOTHING_KNOWN = Context()

SLOPE_SHARE = 0.03
"""Slopes are taken over this share of the points on either side."""

BAND_NOISE = 1.5
BAND_FALL = 0.02
"""The loss has left its plateau once it is below by so much of a single loss's noise, and of the fall."""

FEW_POINTS = 10
"""Fewer points below divergence show no shape."""

SCOUT_START, SCOUT_END = 1e-8, 1e2
SCOUT_PER_DECADE = 3
SCOUT_STEPS = 30

DECADES_BELOW = 3.5
DECADES_ABOVE = 1.5
DECADES_ABOVE_WITH_MOMENTUM = 0.5
"""The main sweep's range about the scout's divergence. A scout mostly runs past the rate at which a finer sweep
diverges, for a rise needs steps to show; but with momentum its fast growing rates alone make the loss swing up early.
Beyond divergence the sweep needs most of a decade to see that the rise lasts."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A learning rate and why.

    Args:
        lr: The learning rate.
        rule: The rule that gave it.
        reason: What was seen and why this rate, one sentence.
        index: The nearest point of the curve.
        spread: The lowest and highest value over repeated sweeps, None for a single one.
    """

    lr: float
    rule: str
    reason: str
    index: int
    spread: tuple[float, float] | None = None


Rule: TypeAlias = Callable[[Curve, Context], Suggestion]


def suggest(rule: str, curve: Curve, context: Context = NOTHING_KNOWN) -> Suggestion:
    """Apply one rule by its name.

    Args:
        rule: A key of `RULES`.
        curve: The measured sweep.
        context: What is known of the training.

    Returns:
        The suggestion.

    Raises:
        ArgumentError: If the rule is unknown.
        NoSuggestionError: If the curve doesn't have the feature that the rule looks for.

    Example:
        >>> lrs = np.geomspace(1e-4, 1.0, 41)
        >>> losses = 1 / (1 + lrs / 0.01)
        >>> curve = Curve(lrs=lrs, losses=losses, smoothed=losses, indices=np.arange(41), stop_reason=None)
        >>> round(suggest("steepest", curve).lr, 2)
        0.01
    """
    if rule not in RULES:
        raise ArgumentError(f"rule must be one of {', '.join(RULES)}, got {rule=}.")
    if len(curve) < MIN_POINTS:
        raise NoSuggestionError(f"{rule} needs {MIN_POINTS} points, the curve has {len(curve)}. {_why(curve)}")
    return RULES[rule](curve, context)


def suggestions(curve: Curve, context: Context = NOTHING_KNOWN) -> dict[str, Suggestion]:
    """Apply every rule.

    Args:
        curve: The measured sweep.
        context: What is known of the training.

    Returns:
        The suggestions of the rules that apply, by the rules' names.
    """
    found = {rule: _suggest_or_none(rule, curve, context) for rule in RULES}
    return {rule: suggestion for rule, suggestion in found.items() if suggestion is not None}


def auto(curve: Curve, context: Context) -> Suggestion:
    """Suggest the rate to train with; see `lrfinder.auto`.

    Args:
        curve: The measured sweep.
        context: What is known of the training.

    Returns:
        The suggestion.
    """
    rate, reason = default_rule.choose(curve, context)
    return _at(curve, rate, "auto", reason)


def steepest(curve: Curve, context: Context) -> Suggestion:
    """Suggest the rate at which the smoothed loss falls fastest per decade, between onset and the lowest loss.

    Args:
        curve: The measured sweep.
        context: What is known of the training.

    Returns:
        The suggestion.
    """
    _require_fall(curve, "steepest")
    start, stop = _onset(curve), _last_falling(curve, context)
    reach = max(1, round(SLOPE_SHARE * len(curve)))
    points = np.arange(len(curve))
    left, right = np.maximum(points - reach, 0), np.minimum(points + reach, len(curve) - 1)
    smoothed, decades = unit(curve)[1], np.log10(curve.lrs)
    slope = (smoothed[right] - smoothed[left]) / (decades[right] - decades[left])
    index = min(start, stop) + int(np.argmin(slope[min(start, stop) : stop + 1]))
    return _at(curve, curve.lrs[index], "steepest", "the smoothed loss falls fastest per decade here")


def onset(curve: Curve, context: Context) -> Suggestion:
    """Suggest the rate at which learning starts: the smoothed loss leaves the noise of its first plateau for good.

    Args:
        curve: The measured sweep.
        context: What is known of the training.

    Returns:
        The suggestion.
    """
    del context
    _require_fall(curve, "onset")
    return _at(curve, curve.lrs[_onset(curve)], "onset", "from here on the smoothed loss is below its first plateau")


def divergence(curve: Curve, context: Context) -> Suggestion:
    """Suggest the rate from which the loss rose for good: a point of the curve, not advice.

    Args:
        curve: The measured sweep.
        context: What is known of the training.

    Returns:
        The suggestion.

    Raises:
        NoSuggestionError: If the loss did not rise for good.
    """
    rate = divergence_lr(curve, context)
    if rate is None:
        raise NoSuggestionError(f"divergence: the loss did not rise for good up to {curve.lrs[-1]:.1e}. Raise end_lr.")
    return _at(curve, rate, "divergence", "from here on the loss rose and did not come back")


def minimum(curve: Curve, context: Context) -> Suggestion:
    """Suggest the rate at which the smoothed loss is lowest: its place is noise, and often too large to train with.

    Args:
        curve: The measured sweep.
        context: What is known of the training.

    Returns:
        The suggestion.

    Raises:
        NoSuggestionError: If the loss is the same everywhere.
    """
    del context
    if np.ptp(unit(curve)[1]) == 0:
        raise NoSuggestionError("minimum: the loss is the same at every rate. Raise end_lr.")
    return _at(curve, curve.lrs[bottom(curve)], "minimum", "the smoothed loss is lowest here")


def valley(curve: Curve, context: Context) -> Suggestion:
    """Suggest the middle of the longest valley: half-way through the longest falling subsequence of the smoothed loss.

    The default of fastai's `lr_find`, which counts the subsequence's length back from its end.

    Args:
        curve: The measured sweep.
        context: What is known of the training.

    Returns:
        The suggestion.
    """
    del context
    _require_fall(curve, "valley")
    end, length = _longest_fall(unit(curve)[1])
    index = max(end - length + length // 3 + length // 6, 0)
    return _at(curve, curve.lrs[index], "valley", "half-way through the longest fall of the smoothed loss")


RULES: dict[str, Rule] = {
    "auto": auto,
    "steepest": steepest,
    "onset": onset,
    "divergence": divergence,
    "minimum": minimum,
    "valley": valley,
}


def warnings_for(curve: Curve, context: Context = NOTHING_KNOWN) -> list[str]:
    """Say what makes a curve hard to trust, each with its remedy.

    Args:
        curve: The measured sweep.
        context: What is known of the training.

    Returns:
        Sentences; none for a healthy curve.
    """
    if len(curve) < MIN_POINTS:
        return [f"The curve has only {len(curve)} points. {_why(curve)}"]
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


def scout_grid(start_lr: float | None = None, end_lr: float | None = None) -> Floats:
    """Return the scout's rates: about three per decade, at most 30, from far below any divergence to far above.

    Args:
        start_lr: The user's start, None to begin far below.
        end_lr: The user's end, None to go far above.

    Returns:
        The rates, shape (at most 30,).
    """
    start = SCOUT_START if start_lr is None else start_lr
    end = SCOUT_END if end_lr is None else end_lr
    if end <= start:  # a single end beyond the usual range
        start, end = (start, start * 1e3) if end_lr is None else (end / 1e3, end)
    points = math.ceil(SCOUT_PER_DECADE * math.log10(end / start)) + 1
    return np.geomspace(start, end, min(max(points, MIN_POINTS), SCOUT_STEPS))


def scouted_range(curve: Curve, context: Context = NOTHING_KNOWN) -> tuple[float, float]:
    """Choose the main sweep's range: a few decades below the scout's divergence up to well above.

    Args:
        curve: The scout's coarse curve.
        context: What is known of the training.

    Returns:
        Start and end. Where the scout never diverged, the range ends at its largest rate.
    """
    rate = divergence_lr(curve, context) if len(curve) else curve.stop_lr
    if rate is None:
        end = float(curve.lrs[-1]) if len(curve) else SCOUT_END
        return end / 10 ** (DECADES_BELOW + DECADES_ABOVE + 0.5), end
    above = DECADES_ABOVE + DECADES_ABOVE_WITH_MOMENTUM * context.momentum
    return rate / 10**DECADES_BELOW, rate * 10**above


def _suggest_or_none(rule: str, curve: Curve, context: Context) -> Suggestion | None:
    try:
        return suggest(rule, curve, context)
    except NoSuggestionError:
        return None


def _why(curve: Curve) -> str:
    return "It was cut short." if curve.stop_reason is None else curve.stop_reason.sentence


def _at(curve: Curve, rate: float, rule: str, reason: str) -> Suggestion:
    index = int(np.argmin(np.abs(np.log(curve.lrs) - math.log(rate))))
    return Suggestion(lr=float(rate), rule=rule, reason=reason, index=index)


def _require_fall(curve: Curve, rule: str) -> None:
    if not falls(curve):
        raise NoSuggestionError(
            f"{rule}: the loss did not fall clearly at any rate. Use larger batches or repeats, or a wider range."
        )


def _onset(curve: Curve) -> int:
    # The first point from which on, down to the lowest one, the smoothed loss is below the plateau and its noise.
    band = max(BAND_NOISE * noise(curve), BAND_FALL * fall(curve))
    high = np.flatnonzero(unit(curve)[1][: bottom(curve)] >= plateau(curve) - band)
    return int(high[-1]) + 1 if len(high) else 0


def _last_falling(curve: Curve, context: Context) -> int:
    rate = divergence_lr(curve, context)
    below = len(curve) if rate is None else int(np.count_nonzero(curve.lrs <= rate))
    return min(bottom(curve), max(below - 1, 0))


def _longest_fall(losses: Floats) -> tuple[int, int]:
    # End and length of the longest strictly falling subsequence, by patience sorting in O(T log T).
    piles: list[float] = []
    end = 0
    for index, value in enumerate((-losses).tolist()):
        place = bisect.bisect_left(piles, value)
        if place == len(piles):
            piles.append(value)
            end = index
        else:
            piles[place] = value
    return end, len(piles)
