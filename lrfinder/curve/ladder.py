"""Short annealed restarts at a few learning rates about the curve's: start large, see it fail, go down, by machine."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lrfinder.curve.curve import Context, Curve
from lrfinder.curve.features import divergence_lr
from lrfinder.curve.rules import suggest
from lrfinder.curve.smoothing import smooth
from lrfinder.curve.suggestion import Suggestion
from lrfinder.curve.sweep import MIN_POINTS
from lrfinder.errors import NoSuggestionError

__all__ = ["MOST_PROBES", "Refined", "ShortTraining", "choose", "is_steady", "largest_rise", "probe_steps", "refine"]

BUDGET = 500
"""Optimizer steps that all probes together may take ..."""

BUDGET_SHARE = 0.05
"""... or this share of the training, whichever is larger."""

MOST_PROBES = 4
PER_DECADE = 3
RUNGS_ABOVE = 2
"""The ladder: at most so many rates, so many a decade, from so many above the curve's own suggestion. Few long probes
tell more than many short ones: on the benchmark, half as many steps each nearly double the regret."""

TIE = 0.02
"""Rates whose gains differ by less than this share are as good as each other: the lowest of them is taken."""

HORIZON_POWER = 0.2
"""A short training likes larger rates: the best one goes with the length as n to the minus this."""

BELOW_DIVERGENCE = 1.5
"""The suggestion stays this factor below divergence."""

UNSTEADY_SHARE = 0.1
"""A short training is unsteady if its loss takes back this share of its fall ..."""

UNSTEADY_NOISE = 2.5
"""... and more than so many standard deviations of a single loss."""

BELOW_UNSTEADY = 3.5
"""What a short training survives, a longer one at the same rate may not: it is near the edge for so much longer. The
suggestion, before it is corrected for the horizon, stays this factor below the lowest rate that was unsteady."""

EDGE_SHARE = 0.04
"""This share of the losses at either end is left aside: there a smooth line is as noisy as the losses."""


class ShortTraining(NamedTuple):
    """What a probe came to: the loss that scores it, infinite where it blew up, and its training losses."""

    score: float
    losses: npt.NDArray[np.float64]


class Tried(NamedTuple):
    """A rung of the ladder: its rate, how far the score fell, and whether the training was steady."""

    lr: float
    gain: float
    steady: bool


@dataclass(frozen=True, kw_only=True)
class Refined:
    """What refining tried and found.

    Args:
        suggestion: The rate, or None where no probe gained anything.
        probes: `(lr, score)` of each restart in order; a score is a loss, infinite where it blew up.
    """

    suggestion: Suggestion | None
    probes: tuple[tuple[float, float], ...]


def probe_steps(total_steps: int, budget: int | None = None) -> int:
    """Return how many optimizer steps one short training takes.

    Args:
        total_steps: The length T of the training.
        budget: Steps that all short trainings together may take; max(500, T / 20) by default.

    Returns:
        The share of one short training, at most T.

    Example:
        >>> probe_steps(1_000), probe_steps(100_000), probe_steps(1_000, budget=200)
        (125, 1250, 50)
    """
    if budget is None:
        budget = int(max(BUDGET, BUDGET_SHARE * total_steps))
    return min(total_steps, budget // MOST_PROBES)


def refine(
    probe: Callable[[int, float], ShortTraining],
    start: float,
    curve: Curve,
    context: Context,
    steps: int,
    *,
    seen: Callable[[], bool] = lambda: False,
) -> Refined:
    """Climb a ladder of rates about the one that the curve suggests, and choose.

    It begins above that one, yet below divergence, goes down while that gains more, and up where the largest rate has
    gained the most.

    Args:
        probe: `probe(index, lr)` trains from the snapshot for `steps` steps, the target schedule squeezed into them, on
            the same batches each time.
        start: The loss that scores a probe, before any training.
        curve: The measured sweep.
        context: What is known of the training, `total_steps` among it.
        steps: The length of one probe.
        seen: Tells, after the probes, whether they were scored on too little that they had not trained on: a loader of
            few batches, and no validation data. Memorizing scores well at rates that are too large, so such probes may
            lower the curve's own suggestion, and never raise it.

    Returns:
        All probes and the suggestion.
    """
    top = divergence_lr(curve, context) or float(curve.lrs[-1])
    middle = _suggested(curve, context, top)
    highest = math.floor(PER_DECADE * math.log10(top / middle))
    rung: int | None = min(RUNGS_ABOVE, highest)
    probes: list[tuple[float, float]] = []
    tried: dict[int, Tried] = {}
    while rung is not None and len(tried) < MOST_PROBES:
        lr = middle * 10 ** (rung / PER_DECADE)
        trained = probe(len(probes), lr)
        probes.append((lr, trained.score))
        gain = start - trained.score if math.isfinite(trained.score) else -math.inf
        tried[rung] = Tried(lr, gain, is_steady(trained.losses))
        rung = _next_rung(tried, highest)
    try:
        suggestion = choose(tried, top, curve, context, steps)
        if seen() and middle < suggestion.lr:
            suggestion = _kept(middle, suggestion, curve)
    except NoSuggestionError:
        suggestion = None
    return Refined(suggestion=suggestion, probes=tuple(probes))


def is_steady(losses: npt.ArrayLike) -> bool:
    """Tell whether a short training went down without a clear rise on its way.

    It is steady unless its largest rise exceeds both `UNSTEADY_SHARE` of the fall and `UNSTEADY_NOISE` standard
    deviations of a single loss.

    Args:
        losses: The training losses, shape (n,).

    Returns:
        Whether it was steady; False where there are too few losses to tell.

    Example:
        >>> falling = np.linspace(2.0, 1.0, 50)
        >>> bump = np.exp(-((np.arange(50) - 25) ** 2) / 20)
        >>> is_steady(falling), is_steady(falling + 0.5 * bump)
        (True, False)
    """
    share, deviations = largest_rise(losses)
    return share <= UNSTEADY_SHARE or deviations <= UNSTEADY_NOISE


def largest_rise(losses: npt.ArrayLike) -> tuple[float, float]:
    """Measure how far the loss of a short training rose again on its way.

    With the smoothed losses L_i the largest rise is max_i (L_i - min_{j<i} L_j).

    Args:
        losses: The training losses, shape (n,).

    Returns:
        The rise as a share of the fall, and in standard deviations of a single loss; infinite where there is no fall,
        no noise, or too few losses.
    """
    losses = np.asarray(losses, dtype=np.float64)
    if len(losses) < MIN_POINTS:
        return math.inf, math.inf
    edge = math.ceil(EDGE_SHARE * len(losses))
    smoothed = smooth(losses)[edge : len(losses) - edge]
    lowest = np.minimum.accumulate(smoothed)
    rise = float(np.max(smoothed - lowest))
    fall = np.median(losses[:MIN_POINTS]) - float(lowest[-1])
    deviation = float(np.mean(np.abs(np.diff(losses)))) * math.sqrt(math.pi) / 2
    return rise / fall if fall > 0 else math.inf, rise / deviation if deviation > 0 else math.inf


def _next_rung(tried: Mapping[int, Tried], highest: int) -> int | None:
    best = max(tried, key=lambda rung: (_steady_gain(tried[rung]), -rung))
    if len(tried) == 1 or best == min(tried) or _steady_gain(tried[best]) == -math.inf:
        return min(tried) - 1
    return best + 1 if best == max(tried) and best < highest else None


def _steady_gain(tried: Tried) -> float:
    return tried.gain if tried.steady else -math.inf


def choose(tried: Mapping[int, Tried], top: float, curve: Curve, context: Context, steps: int) -> Suggestion:
    """Choose the rate to train with from the probes.

    Of the steady ones the best is the lowest rate within `TIE` of the largest gain, refined by a parabola through it
    and its neighbours and held below the unsteady ones; it is corrected for the horizon as (n / T)^`HORIZON_POWER` and
    held below divergence.

    Args:
        tried: The probes by their rung, `PER_DECADE` a decade.
        top: The rate of divergence, or the largest one of the sweep.
        curve: The measured sweep.
        context: What is known of the training.
        steps: The length n of one probe.

    Returns:
        The suggestion.

    Raises:
        NoSuggestionError: No probe ended below the loss before training.
    """
    steady = {rung: each for rung, each in tried.items() if each.steady and each.gain > -math.inf} or tried
    most = max(each.gain for each in steady.values())
    if not most > 0:
        raise NoSuggestionError("refine: no short training lowered the loss. Look for a bug, or widen the range.")
    rung = min(rung for rung, each in steady.items() if each.gain >= (1 - TIE) * most)
    neighbours = [steady[near].gain for near in (rung - 1, rung, rung + 1) if near in steady]
    best = steady[rung].lr * 10 ** (_vertex(neighbours) / PER_DECADE)
    edge = min((each.lr for at, each in tried.items() if at > rung and at not in steady), default=math.inf)
    best = min(best, edge / BELOW_UNSTEADY)
    total_steps = context.total_steps or steps
    lr = min(best * (steps / total_steps) ** HORIZON_POWER, top / BELOW_DIVERGENCE)
    reason = f"{len(tried)} short trainings of {steps:,} steps favour {best:.1e}"
    reason += f", unsteady at {edge:.1e}" if edge < math.inf else ""
    reason += f", lowered for {total_steps:,} steps" if total_steps > steps else ""
    return Suggestion(lr=float(lr), rule="refine", reason=reason, index=_nearest(curve, lr))


def _vertex(gains: list[float]) -> float:
    """Return the place of a parabola's top, in rungs from the middle one of three; 0 if one of them is missing."""
    if len(gains) < 3 or not np.all(np.isfinite(gains)):
        return 0.0
    below, here, above = gains
    curvature = above - 2 * here + below
    return float(np.clip(0.5 * (below - above) / curvature, -0.5, 0.5)) if curvature < 0 else 0.0


def _kept(lr: float, found: Suggestion, curve: Curve) -> Suggestion:
    reason = "the curve's own rate, for too little data were left to score the short trainings; pass a val_loader"
    return replace(found, lr=lr, reason=reason, index=_nearest(curve, lr))


def _nearest(curve: Curve, lr: float) -> int:
    return int(np.argmin(np.abs(np.log(curve.lrs) - math.log(lr))))


def _suggested(curve: Curve, context: Context, top: float) -> float:
    try:
        return suggest("auto", curve, context).lr
    except NoSuggestionError:
        return top / 10 ** (RUNGS_ABOVE / PER_DECADE)
