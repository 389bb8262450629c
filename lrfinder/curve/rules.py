"""Rules that read a learning rate off a measured curve: (curve, context) -> Suggestion."""

import bisect
import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from lrfinder.curve.arrays import Floats
from lrfinder.curve.auto import choose as choose_auto
from lrfinder.curve.curve import Context, Curve
from lrfinder.curve.features import bottom, divergence_lr, fall, falls, noise, plateau, unit
from lrfinder.curve.suggestion import Suggestion
from lrfinder.curve.sweep import MIN_POINTS
from lrfinder.errors import ArgumentError, NoSuggestionError

__all__ = ["NOTHING_KNOWN", "RULES", "Rule", "suggest", "suggestions", "why_few_points"]

NOTHING_KNOWN = Context()

SLOPE_SHARE = 0.03
"""Slopes are taken over this share of the points on either side."""

BAND_NOISE = 1.5
BAND_FALL = 0.02
"""The loss has left its plateau once it is below by so much of a single loss's noise, and of the fall."""


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
        raise NoSuggestionError(
            f"{rule} needs {MIN_POINTS} points, the curve has {len(curve)}. {why_few_points(curve)}"
        )
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
    """Suggest the rate to train with; see `lrfinder.curve.auto`.

    Args:
        curve: The measured sweep.
        context: What is known of the training.

    Returns:
        The suggestion.
    """
    rate, reason = choose_auto(curve, context)
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


def _suggest_or_none(rule: str, curve: Curve, context: Context) -> Suggestion | None:
    try:
        return suggest(rule, curve, context)
    except NoSuggestionError:
        return None


def why_few_points(curve: Curve) -> str:
    """Return a sentence that says why a curve has few points.

    Args:
        curve: The measured sweep.

    Returns:
        The sentence.
    """
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
