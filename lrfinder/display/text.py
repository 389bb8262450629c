"""How a result reads: one line, a block for the terminal, HTML for a notebook."""

from collections.abc import Mapping, Sequence

from lrfinder.curve import RULES, Curve, StopReason, Suggestion

__all__ = ["block", "outcome", "rate"]

_PRINTED = (*(name for name, rule in RULES.items() if rule.printed), "steepest", "onset", "divergence")
"""What the block shows besides the main suggestion."""


def outcome(curve: Curve) -> str:
    """Say in a few words how a sweep ended.

    Args:
        curve: What was measured.

    Returns:
        A phrase such as "diverged at 1.9e-01".

    Example:
        >>> import numpy as np
        >>> lrs = np.array([0.1, 0.2])
        >>> outcome(Curve(lrs=lrs, losses=lrs, smoothed=lrs, indices=[0, 1], stop_reason=StopReason.FINISHED))
        'finished at 2.0e-01'
    """
    place = curve.stop_lr if curve.stop_lr is not None else curve.lrs[-1] if len(curve) else None
    verbs = {
        StopReason.FINISHED: "finished",
        StopReason.DIVERGED: "diverged",
        StopReason.NONFINITE: "loss not finite",
        StopReason.EXHAUSTED: "data ended",
    }
    verb = "interrupted" if curve.stop_reason is None else verbs[curve.stop_reason]
    return verb if place is None else f"{verb} at {place:.1e}"


def rate(found: Suggestion) -> str:
    """Write a suggested rate, with its spread where there is one.

    Args:
        found: The suggestion.

    Returns:
        The rate with two digits.

    Example:
        >>> rate(Suggestion(lr=0.0032, rule="auto", reason="", index=0, spread=(0.002, 0.004)))
        '3.2e-03 (2.0e-03 to 4.0e-03)'
    """
    spread = "" if found.spread is None else f" ({found.spread[0]:.1e} to {found.spread[1]:.1e})"
    return f"{found.lr:.1e}{spread}"


def block(
    headline: str,
    suggestions: Mapping[str, Suggestion],
    probes: Sequence[tuple[float, float]],
    warnings: Sequence[str],
    advice: str,
) -> str:
    """Write the block that a terminal shows.

    Args:
        headline: Outcome, steps and seconds.
        suggestions: By rule, the main one first.
        probes: `(lr, score)` of each of refine's restarts.
        warnings: What casts doubt on the curve.
        advice: What to do now.

    Returns:
        Several lines.
    """
    main = next(iter(suggestions), None)
    shown = {rule: found for rule, found in suggestions.items() if rule == main or rule in _PRINTED}
    lines = [f"LR range test: {headline}"]
    for rule, found in shown.items():
        lines.append(f"  {rule:<10}  {rate(found)}{f'   <- {found.reason}' if rule == main else ''}")
    lines += [f"  probe       {lr:.1e}   loss {score:.4g}" for lr, score in sorted(probes, reverse=True)]
    lines += [f"warning: {sentence}" for sentence in warnings]
    return "\n".join([*lines, advice])
