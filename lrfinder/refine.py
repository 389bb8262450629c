"""Short annealed restarts at a few learning rates about the curve's: start large, see it fail, go down, by machine."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from lrfinder.curve import Context, Curve
from lrfinder.errors import NoSuggestionError
from lrfinder.features import divergence_lr
from lrfinder.suggest import Suggestion, suggest

__all__ = ["Refined", "choose", "probe_steps", "refine"]

BUDGET = 500
"""Optimizer steps that all probes together may take ..."""

BUDGET_SHARE = 0.05
"""... or this share of the training, whichever is larger."""

MOST_PROBES = 4
PER_DECADE = 3
RUNGS_ABOVE = 2
"""The ladder: at most so many rates, so many a decade, from so many above the curve's own suggestion downwards. Few
long probes tell more than many short ones: on the benchmark, eight of 62 steps each did worse than no probe."""

CLEARLY_WORSE = 0.1
"""The ladder ends once two rates in a row have lost this share of the best one's gain."""

TIE = 0.02
"""Rates whose gains differ by less than this share are as good as each other: the lowest of them is taken."""

HORIZON_POWER = 0.2
"""A short training likes larger rates: the best one goes with the length as n to the minus this."""

BELOW_DIVERGENCE = 1.5
"""The suggestion stays this factor below divergence."""


@dataclass(frozen=True, kw_only=True)
class Refined:
    """What refining tried and found.

    Args:
        suggestion: The rate, or None where no probe gained anything.
        probes: `(lr, score)` of each restart, in the order of the ladder; a score is a loss, infinite where it blew up.
    """

    suggestion: Suggestion | None
    probes: tuple[tuple[float, float], ...]


def probe_steps(total_steps: int) -> int:
    """Return how many optimizer steps one probe takes.

    Args:
        total_steps: The length T of the training.

    Returns:
        The probes' share of max(500, T / 20) steps, at most T.

    Example:
        >>> probe_steps(1_000), probe_steps(100_000)
        (125, 1250)
    """
    return min(total_steps, int(max(BUDGET, BUDGET_SHARE * total_steps)) // MOST_PROBES)


def refine(
    probe: Callable[[int, float], float],
    start: float,
    curve: Curve,
    context: Context,
    steps: int,
    *,
    seen: Callable[[], bool] = lambda: False,
) -> Refined:
    """Climb down a ladder of rates about the one that the curve suggests, and choose.

    Args:
        probe: `probe(index, lr)` trains from the snapshot for `steps` steps, the target schedule squeezed into them, on
            the same batches each time, and returns a loss that compares.
        start: That loss before any training.
        curve: The measured sweep.
        context: What is known of the training, `total_steps` among it.
        steps: The length of one probe.
        seen: Tells, after the probes, whether they had trained on what they were scored on: a loader shorter than a
            probe, and no validation data. Memorizing scores well at rates that are too large, so such probes may lower
            the curve's own suggestion, and never raise it.

    Returns:
        All probes and the suggestion.
    """
    top = divergence_lr(curve, context) or float(curve.lrs[-1])
    probes: list[tuple[float, float]] = []
    middle = _suggested(curve, context, top)
    for index in range(MOST_PROBES):
        lr = middle * 10 ** ((RUNGS_ABOVE - index) / PER_DECADE)
        probes.append((lr, probe(index, lr)))
        if _clearly_past_the_best(start, probes):
            break
    try:
        suggestion = choose(tuple(probes), start, top, curve, context, steps)
        if seen() and middle < suggestion.lr:
            suggestion = _kept(middle, suggestion, curve)
    except NoSuggestionError:
        suggestion = None
    return Refined(suggestion=suggestion, probes=tuple(probes))


def _kept(lr: float, found: Suggestion, curve: Curve) -> Suggestion:
    reason = "the curve's own rate, since the short trainings saw the batches that score them; pass a val_loader"
    return replace(found, lr=lr, reason=reason, index=_nearest(curve, lr))


def _nearest(curve: Curve, lr: float) -> int:
    return int(np.argmin(np.abs(np.log(curve.lrs) - math.log(lr))))


def _suggested(curve: Curve, context: Context, top: float) -> float:
    try:
        return suggest("auto", curve, context).lr
    except NoSuggestionError:
        return top / 10 ** (RUNGS_ABOVE / PER_DECADE)


def _clearly_past_the_best(start: float, probes: list[tuple[float, float]]) -> bool:
    scores = [score for _, score in probes]
    best = min(scores)
    return best < start and all(score > best + CLEARLY_WORSE * (start - best) for score in scores[-2:])


def choose(
    probes: tuple[tuple[float, float], ...], start: float, top: float, curve: Curve, context: Context, steps: int
) -> Suggestion:
    """Choose the rate to train with from the probes' scores.

    The best rate is the lowest one within `TIE` of the best score, refined by a parabola through it and its neighbours;
    it is corrected for the horizon as (n / T)^`HORIZON_POWER` and capped below divergence.

    Args:
        probes: `(lr, score)` of each restart, the largest rate first.
        start: The loss before any training.
        top: The rate of divergence, or the largest one tried.
        curve: The measured sweep.
        context: What is known of the training.
        steps: The length n of one probe.

    Returns:
        The suggestion.

    Raises:
        NoSuggestionError: No probe ended below the loss before training.
    """
    lrs = np.array([lr for lr, _ in probes])
    gains = np.array([start - score if math.isfinite(score) else -math.inf for _, score in probes])
    if not gains.max() > 0:
        raise NoSuggestionError("refine: no short training lowered the loss. Look for a bug, or widen the range.")
    index = int(np.flatnonzero(gains >= (1 - TIE) * gains.max())[-1])
    best = lrs[index] * 10 ** (_vertex(gains, index) / PER_DECADE)
    total_steps = context.total_steps or steps
    lr = min(best * (steps / total_steps) ** HORIZON_POWER, top / BELOW_DIVERGENCE)
    reason = f"best of {len(probes)} short trainings of {steps} steps at {best:.1e}, less for {total_steps:,} steps"
    return Suggestion(lr=float(lr), rule="refine", reason=reason, index=_nearest(curve, lr))


def _vertex(gains: np.ndarray[tuple[int, ...], np.dtype[np.float64]], index: int) -> float:
    """Return the place of a parabola's top through a point and its neighbours, in rungs towards larger rates."""
    if not 0 < index < len(gains) - 1 or not np.all(np.isfinite(gains[index - 1 : index + 2])):
        return 0.0
    larger, here, smaller = gains[index - 1 : index + 2]
    curvature = larger - 2 * here + smaller
    return float(np.clip(0.5 * (smaller - larger) / curvature, -0.5, 0.5)) if curvature < 0 else 0.0
