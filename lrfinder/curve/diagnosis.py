"""Diagnose a finished or running training from its losses: was the learning rate too high or too low?

Small networks say how probable each answer is; they learnt it from some of the recorded trainings in
`tests/benchmarks`, and `python -m tests.benchmarks.diagnosis --report` scores them on the others. Losses that are not
finite, a loss that diverged and a loss that hardly moved are told by rules.
"""

import dataclasses
import enum
import operator
import textwrap
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from lrfinder.curve.arrays import Floats
from lrfinder.curve.classifier import Probabilities, probabilities
from lrfinder.curve.history import MIN_ENTRIES, History, read_history, row_of_numbers
from lrfinder.curve.signs import Signs, measure_signs
from lrfinder.curve.val_signs import LEAST_VAL, measure_val_signs
from lrfinder.errors import ArgumentError

__all__ = ["Diagnosis", "Stretch", "TrainingVerdict", "diagnose"]

MOST_UNREST = 0.08  # share of the training
MOST_RISE = 10.0  # times the whole fall; a higher rise counts however short it is
NO_FALL = 1.5  # standard deviations of a bin
LIKELY = 0.5  # probability from which on a learning rate is called fine
FLAT_LIKELY = 0.6  # probability from which on a loss that hardly moved is called too low
FLAT_CERTAIN = 0.85  # the same where it does not fall clearly
LEAST_TREND = 2.0  # standard errors of the slope that are a clear fall
AT_ONCE = 0.9  # share of the fall between the first two entries
EARLY_DECAY = 0.35  # share of the training
STEADY = 0.7  # share of the fall at half of the summed lr, below which the loss fell along with it
FAR_FROM_HALF = 0.62  # share of the fall at half of the summed lr, below which a factor of ten is advised
VAL_RISE = 0.2  # share of the fall of the validation loss that it has to rise again
PRINTED_WIDTH = 100  # characters in a line
PRINTED = ("fine", "too_low", "too_high", "unrest", "rise", "half", "late", "decayed_after")  # printed evidence


class TrainingVerdict(enum.Enum):
    """What was wrong with the learning rate of a training."""

    TOO_LOW = "too low"
    FINE = "fine"
    TOO_HIGH = "too high"
    DECAYED_TOO_EARLY = "decayed too early"
    UNCLEAR = "unclear"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stretch:
    """The part of a history that decided the verdict.

    Args:
        first: Its first entry.
        stop: One past its last entry.
        name: What is seen there, a few words.
    """

    first: int
    stop: int
    name: str


FIRST_TWO = Stretch(first=0, stop=2, name="nearly the whole fall")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What a training's history says of its learning rate.

    Args:
        verdict: The verdict.
        reason: What was seen, and what to do, in one or two sentences.
        evidence: The probabilities of `fine`, `too_low` and `too_high`, and the measured numbers by name; `Signs` in
            `lrfinder.curve` documents them.
        advice: The factor by which to change the peak learning rate next, 1 to keep it, None without advice.
        stretch: The part of the history that decided, None where no part stands out.
    """

    verdict: TrainingVerdict
    reason: str
    evidence: Mapping[str, float]
    advice: float | None
    stretch: Stretch | None = None

    def __str__(self) -> str:
        """Return the verdict, the reason and the main numbers, for a terminal."""
        lines = [f"learning rate: {self.verdict.value}", *textwrap.wrap(self.reason, PRINTED_WIDTH)]
        numbers = [f"{name} {self.evidence[name]:.2g}" for name in PRINTED if name in self.evidence]
        return "\n  ".join([*lines, *(["evidence: " + ", ".join(numbers)] if numbers else [])])


def diagnose(
    losses: npt.ArrayLike,
    lrs: npt.ArrayLike | None = None,
    *,
    val_losses: npt.ArrayLike | None = None,
    total_steps: int | None = None,
) -> Diagnosis:
    r"""Diagnose a training from its losses: was the learning rate too low or too high, or did it decay too early?

    Small networks, which learnt from thousands of recorded trainings, say how probable each answer is. They see some
    twenty numbers, such as the largest rise of the loss, or the share of its fall at half of the summed learning rate:

    - **too high**: the loss becomes NaN, rises and stays up, or looks like those of trainings that would have ended
      lower with a lower learning rate;
    - **too low**: the loss falls in proportion to the summed learning rate to the very end;
    - **decayed too early**: the same, where the learning rate fell below a third of its peak early;
    - **fine**: no learning rate would have made much of a difference;
    - **unclear**: none is probable enough. So are a loss that hardly moved, a first average that holds nearly the whole
      fall and may hide an explosion, and a model that overfits, where its losses do not say too high.

    Validation losses help: they tell progress from memorizing.

    The verdict does not depend on the offset or the scale of the losses, nor on the scale of the learning rates.

    Args:
        losses: Training losses in order, evenly spaced: one per step, the mean of every k steps, or one per epoch; NaN
            or None where one is missing. At least 12, shape (N,).
        lrs: The learning rate of each entry, shape (N,). Without it the learning rate counts as constant, and much
            less can be told.
        val_losses: Validation losses in order, evenly spread over the same training, the last one at its end; six or
            more count, shape (V,).
        total_steps: Entries that the whole history will have, where the training is still running.

    Returns:
        The verdict with its reason, the measured numbers, and what to try next.

    Raises:
        ArgumentError: An argument is not a row of numbers, the lengths of `losses` and `lrs` differ, a learning rate
            is negative, or `total_steps` is less than the number of losses.

    Example:
        >>> import numpy as np
        >>> steps = np.arange(500)
        >>> diagnose(3.0 - 0.001 * steps).verdict
        <TrainingVerdict.TOO_LOW: 'too low'>
        >>> diagnose(0.5 + 2.0 * np.exp(-steps / 50)).verdict
        <TrainingVerdict.FINE: 'fine'>
    """  # noqa: DOC502 - raised by the functions that read the arguments
    history = read_history(losses, lrs)
    done = _share_done(history.entries, total_steps)
    val_row = None if val_losses is None else row_of_numbers("val_losses", val_losses)
    if history.finite < MIN_ENTRIES or len(history) < MIN_ENTRIES:
        return _of_few(history)
    signs = measure_signs(history)
    chances = probabilities(signs, None if val_row is None else measure_val_signs(val_row, history))
    found = decide(history, signs, chances, done)
    if lrs is None and found.verdict is TrainingVerdict.FINE:
        found = dataclasses.replace(found, reason=f"{found.reason} Pass lrs to tell more.")
    overfit = None if val_row is None else _overfitting(val_row)
    if overfit is not None:
        found = _overfitted(found, *overfit, history.entries)
    return dataclasses.replace(found, evidence=_evidence(signs, chances))


def decide(history: History, signs: Signs, chances: Probabilities, done: float = 1.0) -> Diagnosis:
    """Return the diagnosis of a history, without its evidence.

    Args:
        history: The cleaned and binned history.
        signs: What was measured on it.
        chances: How probable each answer is.
        done: The share of the training that the history covers.

    Returns:
        The diagnosis.
    """
    found = _lost(history) or _diverged(history, signs) or _flat(history, signs, chances)
    if found is not None:
        return found
    if chances.too_high > max(chances.least_high, chances.too_low):
        return _high(history, signs, chances)
    if chances.too_low > chances.least_low:
        return _slow(history, signs, chances, done)
    return _hidden(signs) or _settled(signs, chances)


def _evidence(signs: Signs, chances: Probabilities) -> dict[str, float]:
    numbers = {name: value for name, value in dataclasses.asdict(signs).items() if isinstance(value, float)}
    return {"fine": chances.fine, "too_low": chances.too_low, "too_high": chances.too_high, **numbers}


# ------------------------------------------------------------------------------------------------------------ verdicts
def _found(
    verdict: TrainingVerdict, reason: str, advice: float | None = None, stretch: Stretch | None = None
) -> Diagnosis:
    return Diagnosis(verdict=verdict, reason=reason, evidence={}, advice=advice, stretch=stretch)


def _of_few(history: History) -> Diagnosis:
    if history.lost is not None and history.finite:
        return _lost(history) or _found(TrainingVerdict.UNCLEAR, "")
    if not history.finite:
        reason = (
            "No loss is finite. If each entry is one step, look for NaN in the model or the data: the first loss is "
            "computed before any update. If entries are averages, the learning rate may also be far too high."
        )
        return _found(TrainingVerdict.UNCLEAR, reason)
    reason = (
        f"There are {history.finite} finite losses, and {MIN_ENTRIES} are needed to tell anything: log the loss more "
        "often."
    )
    return _found(TrainingVerdict.UNCLEAR, reason)


def _lost(history: History) -> Diagnosis | None:
    if history.lost is None:
        return None
    reason = (
        f"The loss is NaN or infinite from entry {history.lost} of {history.entries} on: training diverged. Try a "
        "tenth of the learning rate; if that fails too, look for NaN in the model or the data."
    )
    stretch = Stretch(first=history.lost, stop=history.entries, name="no finite loss")
    return _found(TrainingVerdict.TOO_HIGH, reason, 0.1, stretch)


def _diverged(history: History, signs: Signs) -> Diagnosis | None:
    if signs.fall >= NO_FALL or signs.unrest <= (0.0 if signs.rise > MOST_RISE else MOST_UNREST):
        return None
    stretch = _stretch(history, signs.unrest_bins, "above its earlier minimum")
    reason = "The loss rose and did not come back below its start: training diverged. Try a tenth of the learning rate."
    return _found(TrainingVerdict.TOO_HIGH, reason, 0.1, stretch)


def _flat(history: History, signs: Signs, chances: Probabilities) -> Diagnosis | None:
    if signs.fall >= NO_FALL:
        return None
    stretch = _stretch(history, (0, len(history)), "no clear fall")
    least = FLAT_LIKELY if signs.trend > LEAST_TREND else FLAT_CERTAIN
    if signs.trend > 0 and chances.too_low > max(chances.least_low, least):
        reason = (
            f"The loss fell by less than its noise. {_similar(chances.too_low, 'low')} Try ten times the learning rate."
        )
        return _found(TrainingVerdict.TOO_LOW, reason, 10.0, stretch)
    reason = (
        "The loss neither fell nor rose clearly. Either the learning rate is far too low, or it was so high that "
        "training collapsed in its first steps, or there was nothing left to learn: run a range test."
    )
    return _found(TrainingVerdict.UNCLEAR, reason, None, stretch)


def _similar(probability: float, side: str) -> str:
    return (
        f"Of the recorded trainings with such losses, about {probability:.0%} had a learning rate that was too {side}."
    )


def _high(history: History, signs: Signs, chances: Probabilities) -> Diagnosis:
    similar = f"{_similar(chances.too_high, 'high')} Try a third of the learning rate."
    if signs.unrest == 0 and signs.at_once >= AT_ONCE:
        return _found(TrainingVerdict.TOO_HIGH, f"{_first_fall(signs)} {similar}", 0.3, FIRST_TWO)
    if signs.unrest == 0:
        return _found(TrainingVerdict.TOO_HIGH, f"The loss has no long rise. {similar}", 0.3)
    stretch = _stretch(history, signs.unrest_bins, "above its earlier minimum")
    seen = (
        f"The loss spent {signs.unrest:.0%} of the training above its earlier minimum, by up to {signs.rise:.2g} times "
        "its whole fall."
    )
    return _found(TrainingVerdict.TOO_HIGH, f"{seen} {similar}", 0.3, stretch)


def _slow(history: History, signs: Signs, chances: Probabilities, done: float) -> Diagnosis:
    similar = _similar(chances.too_low, "low")
    if signs.decayed_after < EARLY_DECAY:
        first = min(round(signs.decayed_after * len(history)), len(history) - 1)
        stretch = _stretch(history, (first, len(history)), "learning rate decayed")
        reason = (
            f"The learning rate fell below a third of its peak after {signs.decayed_after:.0%} of the training, and "
            f"the loss could have fallen further. {similar} Keep the peak for longer: decay towards the end of the "
            "training."
        )
        return _found(TrainingVerdict.DECAYED_TOO_EARLY, reason, 1.0, stretch)
    stretch = _stretch(history, signs.late_bins, "still falling" if signs.late > 0 else "end of the training")
    if done < 0.5:
        reason = (
            f"The loss is falling steadily, {done:.0%} into the training: too early to tell whether the learning rate "
            "is too low."
        )
        return _found(TrainingVerdict.UNCLEAR, reason, None, stretch)
    advice = 10.0 if signs.half < FAR_FROM_HALF else 5.0
    come = min(max(signs.half, 0.0), 1.0)
    steady = signs.half < STEADY
    where = "The loss fell along with the summed learning rate: at half of it" if steady else "At half of the summed lr"
    reason = f"{where}, {come:.0%} of the fall had come. {similar} Try {advice:g} times the learning rate."
    return _found(TrainingVerdict.TOO_LOW, reason, advice, stretch)


def _hidden(signs: Signs) -> Diagnosis | None:
    if signs.at_once < AT_ONCE:
        return None
    return _found(TrainingVerdict.UNCLEAR, _first_fall(signs), None, FIRST_TWO)


def _first_fall(signs: Signs) -> str:
    return (
        f"{min(signs.at_once, 1.0):.0%} of the fall lies between the first two entries. If they are averages, the "
        "first may hide that the loss exploded: log the loss of every step, or more often."
    )


def _settled(signs: Signs, chances: Probabilities) -> Diagnosis:
    share = min(max(signs.half, 0.0), 1.0)
    if chances.fine > LIKELY:
        reason = (
            f"{share:.0%} of the fall had come at half of the summed learning rate, and nothing points to another one."
        )
        return _found(TrainingVerdict.FINE, reason, 1.0)
    reason = (
        f"Trainings with such losses were fine ({chances.fine:.0%}), too low ({chances.too_low:.0%}) or too high "
        f"({chances.too_high:.0%}): run a range test."
    )
    return _found(TrainingVerdict.UNCLEAR, reason)


def _overfitted(found: Diagnosis, rise: float, lowest: float, entries: int) -> Diagnosis:
    """Return what an overfitting model leaves of a diagnosis: its learning rate can still be too high."""
    seen = (
        f"The validation loss rose again by {rise:.0%} of its fall while the training loss did not: the model overfits."
    )
    stretch = Stretch(first=min(round(lowest * entries), entries - 1), stop=entries, name="validation loss rises")
    if found.verdict is TrainingVerdict.TOO_HIGH and found.stretch is not None:
        return found  # the training loss rose as well
    if found.verdict is TrainingVerdict.TOO_HIGH:
        return dataclasses.replace(found, reason=f"{seen} {found.reason}", stretch=stretch)
    reason = f"{seen} Whether the learning rate is right cannot be told. Stop earlier, regularize, or use more data."
    return _found(TrainingVerdict.UNCLEAR, reason, None, stretch)


# ------------------------------------------------------------------------------------------------------------- helpers
def _share_done(entries: int, total_steps: int | None) -> float:
    if total_steps is None:
        return 1.0
    try:
        total = operator.index(total_steps)
    except TypeError:
        total = 0
    if total < entries:
        raise ArgumentError(
            f"diagnose(total_steps=...) must be a whole number, at least the number of losses, {entries}, got "
            f"{total_steps!r}; it counts the entries that the whole history will have."
        )
    return entries / total


def _overfitting(val_losses: Floats) -> tuple[float, float] | None:
    """Return the rise of the validation loss as a share of its fall, and the share of the training before it."""
    places = np.flatnonzero(np.isfinite(val_losses))
    known = val_losses[places]
    if len(known) < LEAST_VAL:
        return None
    smoothed = np.convolve(known, np.full(3, 1 / 3), "valid")
    lowest = int(np.argmin(smoothed))
    fall, rise = float(known[0] - smoothed[lowest]), float(smoothed[-1] - smoothed[lowest])
    overfits = 0 < lowest < len(smoothed) - 2 and fall > 0 and rise > VAL_RISE * fall
    return (rise / fall, float(places[lowest + 1] + 1) / len(val_losses)) if overfits else None


def _stretch(history: History, bins: tuple[int, int], name: str) -> Stretch:
    first, stop = int(history.edges[bins[0], 0]), int(history.edges[max(bins[1], bins[0] + 1) - 1, 1])
    return Stretch(first=first, stop=stop, name=name)
