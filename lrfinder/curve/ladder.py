"""Refining: short trainings at a few learning rates about the curve's own suggestion, and a choice among them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lrfinder.curve.auto import for_training
from lrfinder.curve.curve import Context, Curve
from lrfinder.curve.explosion import first_divergence_lr
from lrfinder.curve.rules import suggest
from lrfinder.curve.smoothing import smooth
from lrfinder.curve.suggestion import Suggestion
from lrfinder.curve.sweep import MIN_POINTS
from lrfinder.errors import NoSuggestionError

__all__ = ["MOST_PROBES", "Refined", "ShortTraining", "choose", "is_steady", "largest_rise", "probe_steps", "refine"]

# Few long short trainings tell more than many: with half as many steps each, the benchmark's regret nearly doubles.
BUDGET = 600  # optimizer steps of all short trainings together, at least
BUDGET_SHARE = 0.05  # share of the training that they may take where it is more
MOST_PROBES = 4  # short trainings in total
PER_DECADE = 3  # learning rates per decade
RUNGS_ABOVE = 2  # learning rates between the curve's own suggestion and the first that is tried
TIE = 0.02  # gains that differ by less than this share count as equal: the lowest learning rate is taken
TIE_OF_RANGE = 0.1  # and by less than this share of how far the gains of the steady ones differ
ALIKE = 1e-3  # gains of which none differs by more than this share are those of dead networks: a decade further down
PROBE_LENGTH_POWER = 0.15  # shorter trainings want higher learning rates: lr ~ steps^-this
DIVERGENCE_MARGIN = 1.5  # divides the lr of divergence, for the largest lr that is suggested
UNSTEADY_SHARE = 0.1  # share of its fall that the loss of an unsteady short training takes back
UNSTEADY_NOISE = 2.5  # standard deviations of a single loss that it rises
RISE_THAT_MAY_PAY = 1.0  # share of its fall that an unsteady one may take back that scored better than all below it
BELOW_PAYING = 3.0  # divides the lr of such a one
RISE_OF_LOST = 0.5  # where all have taken back more than this share, the next one is a decade further down
RISE_OF_DOUBT = 1 / 3  # where all have taken back more than this share, a warning says so
BELOW_UNSTEADY = 4.5  # divides the lowest unsteady lr: a longer training stays near it for longer
LOST = "rose by more than half of what they fell, so that they tell nothing"
REUSED = "were scored on batches that they were trained on; pass a val_loader"
PROBE_EDGE_SHARE = 0.04  # share of the losses at either end that is not searched for a rise


class ShortTraining(NamedTuple):
    """The outcome of a short training.

    Args:
        score: The loss after it, infinite where it diverged.
        losses: Its training losses, shape (n,).
    """

    score: float
    losses: npt.NDArray[np.float64]


class Tried(NamedTuple):
    """A learning rate that was tried.

    Args:
        lr: The learning rate.
        gain: How far the score fell, minus infinity where the training diverged.
        steady: Whether the training loss fell without a clear rise.
        rise: How far it rose on the way, as a share of its fall.
    """

    lr: float
    gain: float
    steady: bool
    rise: float = math.inf


@dataclass(frozen=True, kw_only=True)
class Refined:
    """The outcome of refining.

    Args:
        suggestion: The suggestion, or None where no short training lowered the loss.
        probes: `(lr, score)` of each short training in order; a score is a loss, infinite where it diverged.
        warnings: What makes the short trainings hard to trust, a sentence each, with the remedy.
    """

    suggestion: Suggestion | None
    probes: tuple[tuple[float, float], ...]
    warnings: tuple[str, ...] = ()


def probe_steps(total_steps: int, budget: int | None = None) -> int:
    """Return how many optimizer steps one short training takes.

    Args:
        total_steps: The length of the training.
        budget: Steps that all short trainings together may take; max(600, total_steps / 20) by default.

    Returns:
        The share of one short training, at most `total_steps`.

    Example:
        >>> probe_steps(1_000), probe_steps(100_000), probe_steps(1_000, budget=200)
        (150, 1250, 50)
    """
    if budget is None:
        budget = int(max(BUDGET, BUDGET_SHARE * total_steps))
    return min(total_steps, budget // MOST_PROBES)


def refine(
    probe: Callable[[int, float], ShortTraining],
    initial_score: float,
    curve: Curve,
    context: Context,
    steps: int,
    *,
    reused_batches: Callable[[], bool] = lambda: False,
) -> Refined:
    """Try a few learning rates about the one that the curve suggests, and choose.

    The first one lies above that, yet below divergence. The next ones go down while that gains more, and up where the
    highest one has gained the most. Where all have ended alike, or rose by more than half of what they fell, the next
    one is a decade further down. Where that holds for all in the end, they tell nothing, and the curve's own stands.

    Args:
        probe: `probe(index, lr)` restores the snapshot and trains for `steps` steps with the whole schedule in them, on
            the same batches each time.
        initial_score: The loss that scores a short training, before any training.
        curve: The measured sweep.
        context: What is known of the training, `total_steps` among it.
        steps: The length of one short training.
        reused_batches: Returns, after the short trainings, whether they were scored on batches that they were trained
            on: a loader of few batches and no validation data. Memorizing scores well at learning rates that are too
            high, so such short trainings may lower the curve's own suggestion and never raise it.

    Returns:
        All short trainings and the suggestion.
    """
    top = first_divergence_lr(curve, context) or float(curve.lrs[-1])
    own_lr = _own_lr(curve, context, top)
    highest = math.floor(PER_DECADE * math.log10(top / own_lr))
    rung: int | None = min(RUNGS_ABOVE, highest)
    probes: list[tuple[float, float]] = []
    tried: dict[int, Tried] = {}
    while rung is not None and len(tried) < MOST_PROBES:
        lr = own_lr * 10 ** (rung / PER_DECADE)
        trained = probe(len(probes), lr)
        probes.append((lr, trained.score))
        gain = initial_score - trained.score if math.isfinite(trained.score) else -math.inf
        tried[rung] = Tried(lr, gain, is_steady(trained.losses), largest_rise(trained.losses)[0])
        rung = _next_rung(tried, highest)
    try:
        suggestion = choose(tried, top, curve, context, steps)
        if _are_lost(tried) and _auto_lr(curve, context) is not None:
            suggestion = _kept(own_lr, suggestion, curve, LOST)
        elif reused_batches() and own_lr < suggestion.lr:
            suggestion = _kept(own_lr, suggestion, curve, REUSED)
    except NoSuggestionError:
        suggestion = None
    return Refined(suggestion=suggestion, probes=tuple(probes), warnings=_doubts(tried, suggestion, context, steps))


def is_steady(losses: npt.ArrayLike) -> bool:
    """Return whether the loss of a short training fell without a clear rise.

    It is steady unless its largest rise exceeds both `UNSTEADY_SHARE` of the fall and `UNSTEADY_NOISE` standard
    deviations of a single loss.

    Args:
        losses: The training losses, shape (n,).

    Returns:
        Whether it was steady; False where there are too few losses.

    Example:
        >>> falling = np.linspace(2.0, 1.0, 50)
        >>> bump = np.exp(-((np.arange(50) - 25) ** 2) / 20)
        >>> is_steady(falling), is_steady(falling + 0.5 * bump)
        (True, False)
    """
    share, deviations = largest_rise(losses)
    return share <= UNSTEADY_SHARE or deviations <= UNSTEADY_NOISE


def largest_rise(losses: npt.ArrayLike) -> tuple[float, float]:
    """Return the largest rise of the loss of a short training.

    With the smoothed losses L_i it is max_i (L_i - min_{j<i} L_j).

    Args:
        losses: The training losses, shape (n,).

    Returns:
        The rise as a share of the fall, and in standard deviations of a single loss; infinite where there is no fall,
        no noise, or too few losses.
    """
    losses = np.asarray(losses, dtype=np.float64)
    if len(losses) < MIN_POINTS:
        return math.inf, math.inf
    edge = math.ceil(PROBE_EDGE_SHARE * len(losses))
    smoothed = smooth(losses)[edge : len(losses) - edge]
    lowest = np.minimum.accumulate(smoothed)
    rise = float(np.max(smoothed - lowest))
    fall = float(np.median(losses[:MIN_POINTS]) - lowest[-1])
    deviation = float(np.mean(np.abs(np.diff(losses)))) * math.sqrt(math.pi) / 2
    return rise / fall if fall > 0 else math.inf, rise / deviation if deviation > 0 else math.inf


def choose(tried: Mapping[int, Tried], top: float, curve: Curve, context: Context, steps: int) -> Suggestion:
    """Return the suggestion that short trainings lead to.

    An unsteady one counts as steady where it gained more than all steady ones below it, and its loss fell by more than
    it rose; its learning rate is divided by `BELOW_PAYING`. Of the steady ones it takes the lowest learning rate whose
    gain is nearly the largest, moved to the top of a parabola through it and its neighbours, and held `BELOW_UNSTEADY`
    below unsteady ones. This is multiplied by (steps / total_steps)^`PROBE_LENGTH_POWER` and held below divergence.

    Args:
        tried: The short trainings by their rung, `PER_DECADE` a decade.
        top: The learning rate of divergence, or the largest one of the sweep.
        curve: The measured sweep.
        context: What is known of the training.
        steps: The length of one short training.

    Returns:
        The suggestion.

    Raises:
        NoSuggestionError: If no short training lowered the loss.
    """
    steady = _steady(tried) or tried
    if not max(each.gain for each in steady.values()) > 0:
        raise NoSuggestionError("refine: no short training lowered the loss. Look for a bug, or widen the range.")
    rung = _lowest_of_near_equals(steady)
    divisor = 1.0 if tried[rung].steady or rung not in _steady(tried) else BELOW_PAYING
    shift = 10 ** (_vertex([steady[near].gain for near in (rung - 1, rung, rung + 1) if near in steady]) / PER_DECADE)
    unsteady = min((each.lr for at, each in tried.items() if at > rung and at not in steady), default=math.inf)
    factor = (steps / (context.total_steps or steps)) ** PROBE_LENGTH_POWER
    if steady[rung].lr * shift / divisor <= unsteady / BELOW_UNSTEADY:
        lr = steady[rung].lr * shift / divisor * factor
        held = "" if divisor == 1 else f" / {divisor}, as its loss rose on the way"
        moved = "" if shift == 1 else f" x {shift:#.2g} as its neighbours suggest,"
        reason = f"short training at {steady[rung].lr:.1e}{held},{moved}"
    else:
        lr = unsteady / BELOW_UNSTEADY * factor
        reason = f"unsteady at {unsteady:.1e} / {BELOW_UNSTEADY},"
    reason += f" {for_training(factor, context)}"
    if lr > top / DIVERGENCE_MARGIN:
        lr = top / DIVERGENCE_MARGIN
        reason = f"divergence {top:.1e} / {DIVERGENCE_MARGIN}, the highest that is suggested"
    reason += f"; of {len(tried)} short trainings of {steps:,} steps {_ranking(tried, steady, rung)}"
    return Suggestion(lr=lr, rule="refine", reason=reason, index=_nearest(curve, lr))


def _lowest_of_near_equals(steady: Mapping[int, Tried]) -> int:
    """Return the lowest rung whose gain lacks less than `TIE` of the largest, and than `TIE_OF_RANGE` of the range."""
    most = max(each.gain for each in steady.values())
    least = most - min(TIE * most, TIE_OF_RANGE * (most - min(each.gain for each in steady.values())))
    return min(rung for rung, each in steady.items() if each.gain >= least)


def _ranking(tried: Mapping[int, Tried], steady: Mapping[int, Tried], chosen: int) -> str:
    """Return which short training scored best, and why another one was chosen where it was."""
    best, best_steady = (max(each, key=lambda rung: (each[rung].gain, -rung)) for each in (tried, steady))
    parts = [f"{tried[best].lr:.1e} scored best"]
    if best not in steady:
        parts[0] += ", but its loss rose on the way"
        parts.append(f"{tried[best_steady].lr:.1e} scored best of the steady ones")
    elif not tried[best].steady:
        parts[0] += ", though its loss rose on the way"
    if chosen != best_steady:
        share = tried[chosen].gain / tried[best_steady].gain
        parts.append(f"{tried[chosen].lr:.1e} gained {share:.0%} as much at a lower lr")
    return ", ".join(parts)


def _doubts(tried: Mapping[int, Tried], suggestion: Suggestion | None, context: Context, steps: int) -> tuple[str, ...]:
    """Return why the short trainings tell little, or nothing."""
    if suggestion is None:
        fact = "No short training of refine lowered the loss that scores it: refine adds nothing to the curve"
    elif all(each.rise > RISE_OF_DOUBT for each in tried.values()):
        fact = "In every short training of refine the loss rose by more than a third of its fall: they tell little"
    else:
        return ()
    more = f"refine={2 * MOST_PROBES * steps} steps, " if 2 * steps <= (context.total_steps or 0) else ""
    return (f"{fact}. Try {more}larger batches, or a val_loader with more samples.",)


def _next_rung(tried: Mapping[int, Tried], highest: int) -> int | None:
    gains, steady = [each.gain for each in tried.values()], _steady(tried)
    alike = max(gains) - min(gains) <= ALIKE * abs(max(gains))
    if len(tried) > 1 and (alike or _are_lost(tried)):
        return min(tried) - PER_DECADE
    best = max(steady, key=lambda rung: (steady[rung].gain, -rung), default=min(tried))
    if len(tried) == 1 or best == min(tried):
        return min(tried) - 1
    return best + 1 if best == max(tried) and best < highest else None


def _are_lost(tried: Mapping[int, Tried]) -> bool:
    """Return whether every short training took back more than `RISE_OF_LOST` of its fall."""
    return all(each.rise > RISE_OF_LOST for each in tried.values())


def _steady(tried: Mapping[int, Tried]) -> dict[int, Tried]:
    """Return the short trainings below the lowest unsteady one: a network that has died is steady above it.

    One that gained more than all below it, and whose loss fell by more than it rose, is not held against its learning
    rate: with RMSprop, and on targets with a large mean, the best ones rise on the way.
    """
    found: dict[int, Tried] = {}
    for rung, each in sorted(tried.items()):
        most = max((lower.gain for lower in found.values()), default=math.inf)
        pays = each.rise <= RISE_THAT_MAY_PAY and each.gain > most
        if each.gain == -math.inf or not (each.steady or pays):
            break
        found[rung] = each
    return found


def _vertex(gains: list[float]) -> float:
    """Return the place of a parabola's top, in rungs from the middle one of three; 0 if one of them is missing."""
    if len(gains) < 3 or not np.all(np.isfinite(gains)):
        return 0.0
    below, here, above = gains
    curvature = above - 2 * here + below
    return float(np.clip(0.5 * (below - above) / curvature, -0.5, 0.5)) if curvature < 0 else 0.0


def _kept(own_lr: float, found: Suggestion, curve: Curve, why: str) -> Suggestion:
    reason = f"the curve's own {own_lr:.1e}, as the short trainings, which suggest {found.lr:.1e}, {why}"
    return replace(found, lr=own_lr, reason=reason, index=_nearest(curve, own_lr))


def _nearest(curve: Curve, lr: float) -> int:
    return int(np.argmin(np.abs(np.log(curve.lrs) - math.log(lr))))


def _own_lr(curve: Curve, context: Context, top: float) -> float:
    return _auto_lr(curve, context) or top / 10 ** (RUNGS_ABOVE / PER_DECADE)


def _auto_lr(curve: Curve, context: Context) -> float | None:
    try:
        return suggest("auto", curve, context).lr
    except NoSuggestionError:
        return None
