"""Rules: (curve, context) -> the learning rate to train with, and why.

To add a rule, write its function here and its entry in `RULES`.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from lrfinder.curve import other_finders
from lrfinder.curve.arrays import Floats
from lrfinder.curve.auto import choose as choose_auto
from lrfinder.curve.curve import NOTHING_KNOWN, Context, Curve
from lrfinder.curve.remedies import why_few_points
from lrfinder.curve.suggestion import Suggestion
from lrfinder.curve.sweep import MIN_POINTS
from lrfinder.errors import ArgumentError, NoSuggestionError

__all__ = ["RULES", "CustomRule", "Rule", "RuleEntry", "rule_name", "suggest", "suggestions"]

Rule: TypeAlias = Callable[[Curve, Context], Suggestion]
CustomRule: TypeAlias = Callable[[Curve, Context], float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RuleEntry:
    """A rule and how it is shown.

    Args:
        function: Returns the suggestion, or raises `NoSuggestionError`; the curve has at least `MIN_POINTS` points.
        marker: The Matplotlib marker of its suggestion in a plot.
        printed: Whether the printed block shows it also where it is not the main suggestion.
        description: What it returns, in one line.
    """

    function: Rule
    marker: str
    printed: bool = False
    description: str


def suggest(rule: str | CustomRule, curve: Curve, context: Context = NOTHING_KNOWN) -> Suggestion:
    """Return the suggestion of one rule.

    Args:
        rule: A key of `RULES`, or a function `(curve, context) -> learning rate`.
        curve: The measured sweep.
        context: What is known of the training.

    Returns:
        The suggestion.

    Raises:
        ArgumentError: If there is no such rule, or a function returns something else than a positive finite number.
        NoSuggestionError: If the curve doesn't have the feature that the rule looks for.

    Example:
        >>> lrs = np.geomspace(1e-4, 1.0, 41)
        >>> losses = 1 / (1 + lrs / 0.01)
        >>> curve = Curve(lrs=lrs, losses=losses, smoothed=losses, indices=np.arange(41), stop_reason=None)
        >>> suggest(lambda curve, context: curve.lrs[-1] / 10, curve).lr
        0.1
    """  # noqa: DOC502 - ArgumentError is raised by the parts
    name = rule_name(rule)
    if len(curve) < MIN_POINTS:
        raise NoSuggestionError(
            f"{name} needs {MIN_POINTS} points, the curve has {len(curve)}. {why_few_points(curve)}"
        )
    return RULES[rule].function(curve, context) if isinstance(rule, str) else _custom(rule, curve, context)


def suggestions(curve: Curve, context: Context = NOTHING_KNOWN) -> dict[str, Suggestion]:
    """Return the suggestions of all rules that apply to a curve.

    Args:
        curve: The measured sweep.
        context: What is known of the training.

    Returns:
        The suggestions by the rules' names.
    """
    found = {rule: _suggest_or_none(rule, curve, context) for rule in RULES}
    return {rule: suggestion for rule, suggestion in found.items() if suggestion is not None}


def rule_name(rule: str | CustomRule) -> str:
    """Return the name of a rule.

    Args:
        rule: A key of `RULES`, or a function.

    Returns:
        The key, or the function's name.

    Raises:
        ArgumentError: If there is no such rule.
    """
    if callable(rule):
        return str(getattr(rule, "__name__", type(rule).__name__))
    if not isinstance(rule, str) or rule not in RULES:
        raise ArgumentError(
            f"rule must be one of {', '.join(RULES)}, or a function (curve, context) -> lr, got {rule=}."
        )
    return rule


def auto(curve: Curve, context: Context) -> Suggestion:
    """Return the suggestion of the default rule; see `lrfinder.curve.auto`."""
    lr, reason = choose_auto(curve, context)
    return _suggestion(curve, lr, "auto", reason)


def needs_short_trainings(curve: Curve, context: Context) -> Suggestion:
    """Raise the error that says how to refine: a curve alone is not enough.

    Raises:
        NoSuggestionError: Always.
    """
    del curve, context
    raise NoSuggestionError("refine needs short trainings, a curve alone is not enough. Call find(refine=True).")


def _other_finder(name: str, lr_of: Callable[[Floats, Floats], float | None], description: str) -> RuleEntry:
    """Return the entry of another finder's advice, applied to the losses as they were measured."""

    def function(curve: Curve, context: Context) -> Suggestion:
        del context
        if not curve.has_clear_descent:
            raise NoSuggestionError(
                f"{name}: the loss did not fall clearly at any learning rate. "
                "Use larger batches or repeats, or a wider range."
            )
        with np.errstate(all="ignore"):
            lr = lr_of(curve.lrs, curve.losses)
        if lr is None:
            raise NoSuggestionError(
                f"{name}: too few points are left before the loss exceeds a multiple of its lowest. Use rule='auto'."
            )
        return _suggestion(curve, lr, name, description)

    return RuleEntry(function=function, marker="d", description=description)


RULES: dict[str, RuleEntry] = {
    "auto": RuleEntry(
        function=auto,
        marker="P",
        printed=True,
        description="below the middle of the valley, less for a longer training",
    ),
    "refine": RuleEntry(
        function=needs_short_trainings,
        marker="*",
        printed=True,
        description="the best of a few learning rates tried in short trainings; needs find(refine=True)",
    ),
    "fastai_valley": _other_finder(
        "fastai_valley", other_finders.fastai_valley, "half-way through the longest fall of the averaged loss (fastai)"
    ),
    "fastai_slide": _other_finder(
        "fastai_slide", other_finders.fastai_slide, "where the averaged loss falls evenly before it rises (fastai)"
    ),
    "fastai_minimum": _other_finder(
        "fastai_minimum", other_finders.fastai_minimum, "a tenth of where the averaged loss is lowest (fastai)"
    ),
    "fastai_steep": _other_finder(
        "fastai_steep", other_finders.fastai_steep, "where the averaged loss falls fastest per decade (fastai)"
    ),
    "torch_lr_finder": _other_finder(
        "torch_lr_finder", other_finders.torch_lr_finder, "where the averaged loss falls fastest (torch-lr-finder)"
    ),
    "ignite": _other_finder(
        "ignite", other_finders.ignite, "where the averaged loss falls fastest before its minimum (Ignite)"
    ),
    "lightning": _other_finder(
        "lightning", other_finders.lightning, "where the averaged loss falls fastest in the learning rate (Lightning)"
    ),
}


def _custom(rule: CustomRule, curve: Curve, context: Context) -> Suggestion:
    name, lr = rule_name(rule), rule(curve, context)
    if not _is_positive_finite(lr):
        raise ArgumentError(
            f"rule={name} must return a positive finite learning rate, got {lr!r}; "
            "raise NoSuggestionError where the curve has none."
        )
    return _suggestion(curve, lr, name, f"what the function {name} returned")


def _is_positive_finite(lr: Any) -> bool:
    try:
        return not isinstance(lr, bool) and math.isfinite(lr) and lr > 0
    except TypeError:  # not a number
        return False


def _suggest_or_none(rule: str, curve: Curve, context: Context) -> Suggestion | None:
    try:
        return suggest(rule, curve, context)
    except NoSuggestionError:
        return None


def _suggestion(curve: Curve, lr: float, rule: str, reason: str) -> Suggestion:
    index = int(np.argmin(np.abs(np.log(curve.lrs) - math.log(lr))))
    return Suggestion(lr=float(lr), rule=rule, reason=reason, index=index)
