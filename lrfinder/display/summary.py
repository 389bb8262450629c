"""What a result says in words: one headline and a few rows, from which the text block and the HTML table are made."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from lrfinder.curve import RULES, Curve, Landmarks, StopReason, Suggestion

__all__ = ["Row", "Summary", "describe_end", "lr_text", "summary_rows"]

MOST_GROUPS = 6  # of more parameter groups only the lowest and highest learning rate are shown
SAME = 0.05  # learning rates that differ by less, as a share, are called the same

ENDS = {
    StopReason.FINISHED: "finished at {}",
    StopReason.DIVERGED: "stopped at {} (diverged)",
    StopReason.NONFINITE: "stopped at {} (loss not finite)",
    StopReason.EXHAUSTED: "stopped at {} (data ended)",
    None: "stopped at {} (interrupted)",
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the block.

    Args:
        name: What it is about, at most ten letters.
        value: A learning rate, with its spread where there is one; may be empty.
        text: What there is to say; may be empty.
    """

    name: str
    value: str = ""
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All that the block and the table say.

    Args:
        headline: How the sweep ended, steps and seconds.
        rows: Suggestions, the user's learning rate, landmarks, groups, probes.
        warnings: What makes the curve hard to trust.
        last: What to do now.
    """

    headline: str
    rows: Sequence[Row]
    warnings: Sequence[str]
    last: str


def lr_text(lr: float) -> str:
    """Return a learning rate as text, with two digits or more.

    Args:
        lr: The learning rate.

    Returns:
        The text.

    Example:
        >>> lr_text(0.0032), lr_text(8.21), lr_text(120)
        ('3.2e-03', '8.2', '120')
    """
    if 1 <= lr < 1000:
        return f"{lr:.1f}" if lr < 9.95 else f"{lr:.0f}"
    return f"{lr:.1e}"


def describe_end(curve: Curve) -> str:
    """Return how a sweep ended, in a few words.

    Args:
        curve: What was measured.

    Returns:
        A phrase such as "stopped at 1.9e-01 (diverged)".

    Example:
        >>> import numpy as np
        >>> lrs = np.array([0.1, 0.2])
        >>> describe_end(Curve(lrs=lrs, losses=lrs, smoothed=lrs, indices=[0, 1], stop_reason=StopReason.FINISHED))
        'finished at 2.0e-01'
    """
    place = curve.stop_lr if curve.stop_lr is not None else float(curve.lrs[-1]) if len(curve) else None
    phrase = ENDS[curve.stop_reason]
    return phrase.replace(" at {}", "") if place is None else phrase.format(lr_text(place))


def summary_rows(
    suggestions: Mapping[str, Suggestion],
    main: Suggestion | None,
    landmarks: Landmarks,
    *,
    initial_lr: float | None = None,
    groups: Sequence[tuple[str, float]] = (),
    probes: Sequence[tuple[float, float]] = (),
) -> list[Row]:
    """Return the rows of a summary.

    Args:
        suggestions: The suggestions by rule.
        main: The one to train with, None where there is none.
        landmarks: The landmarks of the curve.
        initial_lr: The learning rate that the optimizer had, None where unknown.
        groups: The name and the suggested learning rate of each parameter group.
        probes: `(lr, loss)` of refine's short trainings.

    Returns:
        The rows that have something to say.
    """
    found = [] if main is None else [Row(name="suggestion", value=_value(main), text=main.reason)]
    found += [
        Row(name=rule, value=_value(each), text=each.reason)
        for rule, each in suggestions.items()
        if each is not main and rule in RULES and RULES[rule].printed
    ]
    if initial_lr:
        found.append(Row(name="your lr", value=lr_text(initial_lr), text=_compared(initial_lr, main)))
    seen = [f"{name} {lr_text(lr)}" for name, lr in asdict(landmarks).items() if lr is not None and name != "minimum"]
    if seen:
        found.append(Row(name="landmarks", text="   ".join(seen).replace("divergence", "divergence begins")))
    if len(groups) > 1:
        found.append(Row(name="groups", text=_groups(groups)))
    return found + _probes(probes)


def _value(suggestion: Suggestion) -> str:
    spread = suggestion.spread
    return lr_text(suggestion.lr) + ("" if spread is None else f" ({lr_text(spread[0])} to {lr_text(spread[1])})")


def _compared(lr: float, main: Suggestion | None) -> str:
    """Return how far a learning rate lies from the suggestion."""
    if main is None:
        return ""
    factor = lr / main.lr
    if abs(factor - 1) <= SAME:
        return "the same as the suggestion"
    times = max(factor, 1 / factor)
    return f"{times:,.{int(times < 9.95)}f}x {'above' if factor > 1 else 'below'} the suggestion"


def _groups(groups: Sequence[tuple[str, float]]) -> str:
    if len(groups) > MOST_GROUPS:
        lrs = [lr for _, lr in groups]
        return f"{len(groups)} groups, {lr_text(min(lrs))} to {lr_text(max(lrs))}"
    return "   ".join(f"{name} {lr_text(lr)}" for name, lr in groups)


def _probes(probes: Sequence[tuple[float, float]]) -> list[Row]:
    lowest = min((score for _, score in probes), default=math.inf)
    return [
        Row(
            name="" if place else "probes",
            value=lr_text(lr),
            text=f"loss {score:.4g}{', the lowest' if score == lowest and score < math.inf else ''}",
        )
        for place, (lr, score) in enumerate(sorted(probes, reverse=True))
    ]
