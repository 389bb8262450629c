"""Rules that read a learning rate off a measured curve: (curve, context) -> Suggestion."""

import dataclasses
import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from lrfinder.curve import Context, Curve
from lrfinder.errors import ArgumentError, NoSuggestionError
from lrfinder.sweep import MIN_POINTS, Floats, StopReason

__all__ = ["RULES", "Rule", "Suggestion", "scout_grid", "scouted_range", "suggest", "suggestions", "warnings_for"]

ABOVE_NOISE = 4.0
"""A change counts when it exceeds so many standard deviations of a single loss."""

ABOVE_FLOOR = 0.1
"""A rise counts when it also takes back this share of the fall."""

FIRST_RATIOS = 5
"""So many steps of a rise tell how fast it grew."""

MARGIN = 10**0.5
"""`auto` stays half a decade below divergence ..."""

MINIMUM_MARGIN = 2.0
"""... and this factor below the minimum."""

ASSUMED_STEPS = 1000
"""The training's length where `total_steps` isn't given; margins hold for it."""

HORIZON_POWER = 0.1
"""The rate falls with the training's length as T to the minus this."""

SCOUT_RANGE = (1e-8, 1e2)
SCOUT_PER_DECADE = 3
SCOUT_MAX_STEPS = 30

DECADES_BELOW = 3.5
DECADES_ABOVE = 1.0
"""The main sweep's range about the scout's divergence."""


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


def suggest(rule: str, curve: Curve, context: Context = Context()) -> Suggestion:
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
    """
    if rule not in RULES:
        raise ArgumentError(f"rule must be one of {', '.join(RULES)}, got {rule=}.")
    if len(curve) < MIN_POINTS:
        raise NoSuggestionError(
            f"{rule}: the curve has {len(curve)} points, a rule needs {MIN_POINTS}. {curve.stop_reason.sentence}"
        )
    return RULES[rule](curve, context)


def suggestions(curve: Curve, context: Context = Context()) -> dict[str, Suggestion]:
    """Apply every rule.

    Args:
        curve: The measured sweep.
        context: What is known of the training.

    Returns:
        The suggestions of the rules that apply, by the rules' names.
    """
    found = {}
    for rule in RULES:
        try:
            found[rule] = suggest(rule, curve, context)
        except NoSuggestionError:
            continue
    return found


def divergence(curve: Curve, context: Context) -> Suggestion:
    """The largest rate before the loss went up for good: a feature of the curve, not advice."""
    rate = _divergence_lr(curve, context)
    if rate is None:
        raise NoSuggestionError(
            f"divergence: the loss did not rise for good up to lr={curve.lrs[-1]:.1e}. Raise end_lr."
        )
    return _at(curve, rate, "divergence", f"from {rate:.1e} on the loss rose and did not come back")


def steepest(curve: Curve, context: Context) -> Suggestion:
    """The rate at which the smoothed loss falls fastest per decade, before it diverges."""
    _require_fall(curve, "steepest")
    end = max(_last_before_rise(curve, context), 2) + 1
    slope = np.gradient(curve.smoothed[:end], np.log(curve.lrs[:end]))
    index = int(np.argmin(slope))
    return _at(curve, curve.lrs[index], "steepest", "the smoothed loss falls fastest here")


def onset(curve: Curve, context: Context) -> Suggestion:
    """The rate at which learning starts: the smoothed loss leaves its first plateau for good."""
    _require_fall(curve, "onset")
    bottom = _bottom(curve)
    band = max(ABOVE_NOISE / 2 * _noise(curve.losses), 0.02 * _fall(curve))
    index = _first_after(curve.smoothed[:bottom] >= _start(curve.smoothed) - band)
    return _at(curve, curve.lrs[index], "onset", "the smoothed loss leaves its first plateau here for good")


def minimum(curve: Curve, context: Context) -> Suggestion:
    """The rate at which the smoothed loss is lowest: often too large to train with."""
    del context
    if np.ptp(curve.smoothed) == 0:
        raise NoSuggestionError("minimum: the loss is the same at every rate. Raise end_lr, and check that it depends on the model.")
    bottom = _bottom(curve)
    return _at(curve, curve.lrs[bottom], "minimum", "the smoothed loss is lowest here")


def valley(curve: Curve, context: Context) -> Suggestion:
    """The middle of the longest valley, fastai's default: half-way through the longest falling subsequence."""
    _require_fall(curve, "valley")
    end, length = _longest_fall(curve.smoothed)
    index = end - length + length // 3 + length // 6
    return _at(curve, curve.lrs[max(index, 0)], "valley", "half-way through the longest fall of the smoothed loss")


def auto(curve: Curve, context: Context) -> Suggestion:
    """A rate to train with: a margin below divergence and minimum, less for longer trainings."""
    rate = _divergence_lr(curve, context)
    falls = _falls(curve)
    if rate is None and not falls:
        raise NoSuggestionError("auto: the loss neither fell nor rose clearly. Raise end_lr, or use larger batches.")
    candidates = []
    if rate is not None:
        candidates.append((rate / MARGIN, f"half a decade below divergence at {rate:.1e}"))
    else:
        candidates.append((float(curve.lrs[-1]) / MARGIN, "no divergence was seen: half a decade below the largest rate"))
    if falls:
        lowest = float(curve.lrs[_bottom(curve)])
        candidates.append((lowest / MINIMUM_MARGIN, f"half of the rate with the lowest loss, {lowest:.1e}"))
    anchor, reason = min(candidates)
    steps = context.total_steps or ASSUMED_STEPS
    factor = (ASSUMED_STEPS / steps) ** HORIZON_POWER
    verb = "shortened" if factor < 1 else "set"
    horizon = f"{verb} for {steps:,} steps" if context.total_steps else f"for an assumed {steps:,} steps"
    return _at(curve, anchor * factor, "auto", f"{reason}, {horizon}")


RULES: dict[str, Rule] = {
    "auto": auto,
    "steepest": steepest,
    "onset": onset,
    "divergence": divergence,
    "minimum": minimum,
    "valley": valley,
}


def warnings_for(curve: Curve, context: Context = Context()) -> list[str]:
    """Say what makes a curve hard to trust, each with its remedy.

    Args:
        curve: The measured sweep.
        context: What is known of the training.

    Returns:
        Sentences, none for a healthy curve.
    """
    if len(curve) < MIN_POINTS:
        return [f"The sweep has only {len(curve)} points. {curve.stop_reason.sentence}"]
    rate = _divergence_lr(curve, context)
    found = []
    if not _falls(curve):
        found.append("The loss did not fall clearly at any rate: use larger batches, or a wider range.")
    if rate is None:
        found.append(f"The loss did not diverge up to end_lr={curve.lrs[-1]:.1e}: raise end_lr.")
    elif np.count_nonzero(curve.lrs < rate) < 2 * MIN_POINTS:
        found.append("Few points lie below divergence: lower start_lr, or raise num_iter.")
    if _falls(curve) and _noise(curve.losses) > _fall(curve):
        found.append("The noise is larger than the fall of the loss: use larger batches or repeats.")
    return found


def scout_grid(start_lr: float | None = None, end_lr: float | None = None) -> Floats:
    """Return the scout's rates: a few per decade, at most 30, from far below to far above any divergence."""
    start, end = start_lr or SCOUT_RANGE[0], end_lr or SCOUT_RANGE[1]
    points = math.ceil(SCOUT_PER_DECADE * math.log10(end / start)) + 1
    return np.geomspace(start, end, min(max(points, MIN_POINTS), SCOUT_MAX_STEPS))


def scouted_range(curve: Curve, context: Context = Context()) -> tuple[float, float]:
    """Choose the main sweep's range from the scout's curve."""
    rate = _divergence_lr(curve, context)
    if rate is None:
        rate = float(curve.stop_lr or curve.lrs[-1]) if len(curve) else SCOUT_RANGE[1]
        return rate / 10 ** (DECADES_BELOW + DECADES_ABOVE), rate
    return rate / 10**DECADES_BELOW, rate * 10**DECADES_ABOVE


def _at(curve: Curve, rate: float, rule: str, reason: str) -> Suggestion:
    index = int(np.argmin(np.abs(np.log(curve.lrs) - math.log(rate))))
    return Suggestion(lr=float(rate), rule=rule, reason=reason, index=index)


def _noise(losses: Floats) -> float:
    """Robust standard deviation of a single loss, from successive differences (the trend drops out)."""
    steps = np.diff(losses)
    return float(1.4826 * np.median(np.abs(steps - np.median(steps))) / math.sqrt(2))


def _start(smoothed: Floats) -> float:
    return float(np.median(smoothed[: max(3, len(smoothed) // 20)]))


def _bottom(curve: Curve) -> int:
    return int(np.argmin(curve.smoothed))


def _fall(curve: Curve) -> float:
    return max(_start(curve.smoothed) - float(curve.smoothed.min()), 0.0)


def _falls(curve: Curve) -> bool:
    return _fall(curve) > ABOVE_NOISE / 2 * _noise(curve.losses)


def _require_fall(curve: Curve, rule: str) -> None:
    if not _falls(curve):
        raise NoSuggestionError(f"{rule}: the loss did not fall clearly at any rate. Use larger batches or a wider range.")


def _first_after(mask: np.ndarray) -> int:
    hits = np.flatnonzero(mask)
    return int(hits[-1]) + 1 if len(hits) else 0


def _rise_start(curve: Curve) -> int:
    """Return the first point of the final rise, or T where there is none."""
    y = curve.losses.copy()
    y[1:-1] = np.median([y[:-2], y[1:-1], y[2:]], axis=0)
    threshold = curve.smoothed.min() + max(ABOVE_NOISE * _noise(curve.losses), ABOVE_FLOOR * _fall(curve))
    first = _first_after(y <= threshold)
    stopped = curve.stop_reason in {StopReason.DIVERGED, StopReason.NONFINITE}
    return first if stopped or len(y) - first >= 3 else len(y)


def _divergence_lr(curve: Curve, context: Context) -> float | None:
    """Return the foot of the final rise, or None where the loss did not rise for good."""
    first = _rise_start(curve)
    if first == len(curve):
        if curve.stop_reason in {StopReason.DIVERGED, StopReason.NONFINITE} and len(curve):
            return float(curve.lrs[-1])
        return None
    excess = curve.losses[first:] - curve.smoothed.min()
    shift = 1 if context.val else 0
    rates = curve.lrs[first + shift : first + shift + FIRST_RATIOS]
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        growth = np.sqrt(np.maximum(np.nan_to_num(excess[1:] / excess[:-1], nan=1.0), 1.0)[:FIRST_RATIOS])
    rates = rates[: len(growth)]
    growth = np.maximum(growth, 1.0)
    if not len(growth):
        return float(curve.lrs[first])
    beta = context.momentum
    feet = rates * 2 * (1 + beta) / (1 + beta + growth + beta / growth)
    return float(min(np.median(feet), curve.lrs[first]))


def _last_before_rise(curve: Curve, context: Context) -> int:
    rate = _divergence_lr(curve, context)
    before = len(curve) if rate is None else int(np.count_nonzero(curve.lrs <= rate))
    return min(max(before - 1, 0), len(curve) - 1)


def _longest_fall(losses: Floats) -> tuple[int, int]:
    """Return the end and the length of the longest strictly falling subsequence, in O(T log T)."""
    from bisect import bisect_left

    tails: list[float] = []
    end = 0
    for index, value in enumerate((-losses).tolist()):
        place = bisect_left(tails, value)
        if place == len(tails):
            tails.append(value)
            end = index
        else:
            tails[place] = value
    return end, len(tails)
