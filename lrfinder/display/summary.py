"""What a result says in words: a headline and rows, from which the text block and the HTML table are made."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from lrfinder.curve import RULES, ClipSuggestion, Context, Curve, Landmarks, StopReason, Suggestion, Verdict
from lrfinder.errors import NoSuggestionError

__all__ = ["Row", "Summary", "describe_end", "length_text", "lr_text", "one_line", "summarize"]

MOST_GROUPS = 6  # of more parameter groups only the lowest and highest learning rate are shown

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


class _Result(Protocol):
    """What is read of a `RangeTestResult`, whose package this one may not import."""

    @property
    def curve(self) -> Curve: ...
    @property
    def context(self) -> Context: ...
    @property
    def suggestion(self) -> Suggestion: ...
    @property
    def suggestions(self) -> dict[str, Suggestion]: ...
    @property
    def landmarks(self) -> Landmarks: ...
    @property
    def initial_lr(self) -> float | None: ...
    @property
    def group_ratios(self) -> tuple[float, ...]: ...
    @property
    def group_names(self) -> tuple[str, ...]: ...
    @property
    def swept_group(self) -> str | None: ...
    @property
    def probes(self) -> tuple[tuple[float, float], ...]: ...
    @property
    def steps(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...
    @property
    def warnings_issued(self) -> bool: ...
    @property
    def next_step(self) -> str | None: ...
    @property
    def meta(self) -> Mapping[str, Any]: ...
    def judge(self, lr: float | None = None) -> Verdict: ...
    def group_lrs(self, suggestion: Suggestion | float | None = None) -> list[float]: ...
    def clip_norm(self, lr: float | None = None) -> ClipSuggestion: ...


def one_line(result: _Result) -> str:
    """Return a result in one line.

    Args:
        result: The result.

    Returns:
        How the sweep ended, the number of points, the suggestion.
    """
    main = _main(result)
    advice = "no suggestion" if main is None else f"suggestion {lr_text(main.lr)} ({main.rule})"
    if result.swept_group is not None:
        advice += f" for {result.swept_group}"
    return f"<RangeTestResult {describe_end(result.curve)}, {_count(len(result.curve), 'point')}, {advice}>"


def summarize(result: _Result) -> Summary:
    """Return what a result says.

    Args:
        result: The result.

    Returns:
        The headline, the rows that have something to say, warnings and what to do now.
    """
    main = _main(result)
    rows = [*_suggestions(result, main), *_users_lr(result, main), *_landmarks(result.landmarks)]
    rows += [*_groups(result, main), *_clip_norm(result), *_probes(result.probes)]
    shown: Sequence[str] = result.warnings
    if result.warnings_issued and shown:
        rows.append(Row(name="warnings", text=f"{len(shown)} issued by find(), see result.warnings"))
        shown = ()
    steps = _count(result.steps, "step")
    headline = f"{describe_end(result.curve)}, {steps}, {result.seconds:.1f} s"
    return Summary(headline=headline, rows=rows, warnings=shown, last=_last_line(result))


def length_text(result: _Result) -> str:
    """Return the length of the training as code.

    Args:
        result: The result.

    Returns:
        The number of steps, or how to compute it where `find` was not told.
    """
    if result.context.total_steps is not None:
        return str(result.context.total_steps)
    accumulation_steps = result.meta.get("accumulation_steps", 1)
    return "epochs * len(loader)" + (f" // {accumulation_steps}" if accumulation_steps > 1 else "")


def _main(result: _Result) -> Suggestion | None:
    with suppress(NoSuggestionError):
        return result.suggestion
    return None


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _last_line(result: _Result) -> str:
    try:
        result.suggestion  # noqa: B018 - for its error
    except NoSuggestionError as error:
        return f"no suggestion: {error}"
    call = f'result.scheduler("{result.context.schedule}", optimizer, total_steps={length_text(result)})'
    return f"use: {result.next_step or f'scheduler = {call}'}"


def _suggestions(result: _Result, main: Suggestion | None) -> list[Row]:
    rows = [] if main is None else [Row(name="suggestion", value=_value(main), text=main.reason)]
    return rows + [
        Row(name=rule, value=_value(each), text=each.reason)
        for rule, each in result.suggestions.items()
        if (main is None or rule != main.rule) and rule in RULES and RULES[rule].printed
    ]


def _users_lr(result: _Result, main: Suggestion | None) -> list[Row]:
    if not result.initial_lr:
        return []
    other = main is not None and main.rule not in {"auto", "refine"}
    text = f"{result.judge(result.initial_lr)}{' (compared with auto)' * other}"
    return [Row(name="your lr", value=lr_text(result.initial_lr), text=text)]


def _landmarks(landmarks: Landmarks) -> list[Row]:
    names = {"onset": "onset", "steepest": "steepest", "divergence": "divergence begins"}
    seen = [f"{names[name]} {lr_text(lr)}" for name, lr in asdict(landmarks).items() if name in names and lr]
    return [Row(name="landmarks", text="   ".join(seen))] if seen else []


def _groups(result: _Result, main: Suggestion | None) -> list[Row]:
    if main is None or len(result.group_ratios) < 2:
        return []
    lrs = result.group_lrs()
    text = f"{len(lrs)} groups, {lr_text(min(lrs))} to {lr_text(max(lrs))}"
    if len(lrs) <= MOST_GROUPS:
        names = result.group_names or [f"group {index}" for index in range(len(lrs))]
        text = "   ".join(f"{name} {lr_text(lr)}" for name, lr in zip(names, lrs, strict=True))
    if result.swept_group is not None:
        text += f"   (only {result.swept_group} was swept)"
    return [Row(name="groups", text=text)]


def _clip_norm(result: _Result) -> list[Row]:
    if result.curve.grad_norms is None:
        return []
    try:
        found = result.clip_norm()
    except NoSuggestionError:
        return []
    return [Row(name="clip norm", value=f"{found.max_norm:.2g}", text=found.reason)]


def _value(suggestion: Suggestion) -> str:
    spread = suggestion.spread
    return lr_text(suggestion.lr) + ("" if spread is None else f" ({lr_text(spread[0])} to {lr_text(spread[1])})")


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
