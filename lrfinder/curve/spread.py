"""How far the rules' rates differ over repeated sweeps."""

from collections.abc import Iterable
from contextlib import suppress

from lrfinder.curve.curve import Context, Curve
from lrfinder.curve.rules import RULES, suggest
from lrfinder.errors import NoSuggestionError

__all__ = ["lr_spreads"]


def lr_spreads(curves: Iterable[Curve], context: Context) -> dict[str, tuple[float, float]]:
    """Return the lowest and highest rate that each rule gives over repeated sweeps.

    Args:
        curves: The curve of each repeat.
        context: What is known of the training.

    Returns:
        By rule, `(low, high)`; rules that apply to no repeat are left out.
    """
    rates: dict[str, list[float]] = {}
    for curve in curves:
        for rule in RULES:
            with suppress(NoSuggestionError):
                rates.setdefault(rule, []).append(suggest(rule, curve, context).lr)
    return {rule: (min(found), max(found)) for rule, found in rates.items() if found}
