"""How far the learning rates of the rules differ over repeated sweeps."""

from collections.abc import Iterable
from contextlib import suppress

from lrfinder.curve.curve import Context, Curve
from lrfinder.curve.rules import RULES, CustomRule, rule_name, suggest
from lrfinder.errors import NoSuggestionError

__all__ = ["lr_spreads"]


def lr_spreads(
    curves: Iterable[Curve], context: Context, rules: Iterable[str | CustomRule] = RULES
) -> dict[str, tuple[float, float]]:
    """Return the lowest and highest learning rate that each rule gives over repeated sweeps.

    Args:
        curves: The curve of each repeat.
        context: What is known of the training.
        rules: The rules.

    Returns:
        `(low, high)` by the rule's name; rules that apply to no repeat are left out.
    """
    rules = list(rules)
    lrs: dict[str, list[float]] = {}
    for curve in curves:
        for rule in rules:
            with suppress(NoSuggestionError):
                lrs.setdefault(rule_name(rule), []).append(suggest(rule, curve, context).lr)
    return {name: (min(found), max(found)) for name, found in lrs.items() if found}
