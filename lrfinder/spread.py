"""How far the rules' rates differ over repeated sweeps."""

from collections.abc import Iterable
from contextlib import suppress

from lrfinder.curve import Context, Curve
from lrfinder.errors import NoSuggestionError
from lrfinder.suggest import RULES, suggest

__all__ = ["spreads_of"]


def spreads_of(curves: Iterable[Curve], context: Context) -> dict[str, tuple[float, float]]:
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
