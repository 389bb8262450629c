"""Diagnose a finished or running training from its losses: was the learning rate too high or too low?

The constants were chosen on some of the recorded trainings in `tests/benchmarks`; `python -m tests.benchmarks.diagnosis
--report` scores them on the others.
"""

import dataclasses
import enum
import operator
import textwrap
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from lrfinder.curve.arrays import Floats
from lrfinder.curve.history import MIN_ENTRIES, History, read_history, row_of_numbers
from lrfinder.curve.signs import Signs, measure_signs
from lrfinder.errors import ArgumentError

__all__ = ["Diagnosis", "Stretch", "TrainingVerdict", "diagnose"]

MOST_UNREST = 0.08  # share of the training
MOST_RISE = 10.0  # times the whole fall; a higher rise counts however short it is
NO_FALL = 1.5  # standard deviations of a bin
FLAT_RISE = 2.6  # standard deviations that a flat loss may rise
NOT_HALF = 0.7  # share of the fall at half of the summed lr, below which progress was slow to come
STILL_FALLING = 0.25  # late progress per summed lr, as a share of the average
FALLING_AT_DECAY = 0.5  # the same where the learning rate decayed early
LEAST_TREND = 2.0  # standard errors of the slope
PICK_UP = 1.5  # early and late progress per summed lr, as a multiple of that in the second quarter
AT_ONCE = 0.9  # share of the fall between the first two entries
EARLY_DECAY = 0.35  # share of the training
FAR_FROM_HALF = 0.62  # share of the fall at half of the summed lr, below which a factor of ten is advised
VAL_RISE = 0.2  # share of the fall of the validation loss that it has to rise again
PRINTED_WIDTH = 100  # characters in a line
PRINTED = ("unrest", "rise", "half", "late", "decayed_after")  # the evidence that is printed
LEAST_VAL = 6  # validation losses that tell overfitting


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What a training's history says of its learning rate.

    Args:
        verdict: The verdict.
        reason: What was seen, and what to do, in one or two sentences.
        evidence: The measured numbers by name; `Signs` in `lrfinder.curve` documents them.
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

    With the smoothed training loss $L$, its start $S$ and end $E$, and the share $x$ of the summed learning rate:

    - **too high**: the loss becomes NaN, does not fall, or spends a clear part of the training above its earlier
      minimum;
    - **too low**: the loss falls in proportion to the summed learning rate to the very end, so that at $x = 1/2$ much
      of the fall $S - E$ is still to come;
    - **decayed too early**: the same, where the learning rate fell below a third of its peak early;
    - **fine**: the loss fell and has settled;
    - **unclear**: anything else, such as a first average that holds nearly the whole fall and may hide an explosion.

    The verdict does not depend on the offset or the scale of the losses, nor on the scale of the learning rates.

    Args:
        losses: Training losses in order, evenly spaced: one per step, the mean of every k steps, or one per epoch; NaN
            or None where one is missing. At least 12, shape (N,).
        lrs: The learning rate of each entry, shape (N,). Without it the learning rate counts as constant, and much
            less can be told.
        val_losses: Validation losses in order, evenly spread over the same training, shape (V,); they tell overfitting
            apart.
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
    overfit = None if val_losses is None else _overfitting(row_of_numbers("val_losses", val_losses))
    if history.finite < MIN_ENTRIES or len(history) < MIN_ENTRIES:
        return _of_few(history)
    signs = measure_signs(history)
    found = decide(history, signs, done)
    if lrs is None and found.verdict is TrainingVerdict.FINE:
        found = dataclasses.replace(found, reason=f"{found.reason} Pass lrs to tell more.")
    if overfit is not None and found.verdict is not TrainingVerdict.TOO_HIGH:
        found = _overfitted(*overfit, history.entries)
    numbers = {name: value for name, value in dataclasses.asdict(signs).items() if isinstance(value, float)}
    return dataclasses.replace(found, evidence=numbers)


def decide(history: History, signs: Signs, done: float = 1.0) -> Diagnosis:
    """Return the diagnosis of a history, without its evidence.

    Args:
        history: The cleaned and binned history.
        signs: What was measured on it.
        done: The share of the training that the history covers.

    Returns:
        The diagnosis.
    """
    found = _lost(history) or _unstable(history, signs) or _flat(history, signs)
    return found or _slow(history, signs, done) or _hidden(signs) or _settled(signs)


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


def _unstable(history: History, signs: Signs) -> Diagnosis | None:
    if signs.unrest <= (0.0 if signs.rise > MOST_RISE else MOST_UNREST):
        return None
    stretch = _stretch(history, signs.unrest_bins, "above its earlier minimum")
    if signs.fall < NO_FALL:
        reason = (
            "The loss rose and did not come back below its start: training diverged. Try a tenth of the learning rate."
        )
        return _found(TrainingVerdict.TOO_HIGH, reason, 0.1, stretch)
    reason = (
        f"The loss spent {signs.unrest:.0%} of the training above its earlier minimum, by up to {signs.rise:.2g} times "
        "its whole fall: the training was unstable. Try a third of the learning rate."
    )
    return _found(TrainingVerdict.TOO_HIGH, reason, 0.3, stretch)


def _flat(history: History, signs: Signs) -> Diagnosis | None:
    if signs.fall >= NO_FALL:
        return None
    stretch = _stretch(history, (0, len(history)), "no clear fall")
    if signs.trend > LEAST_TREND and signs.rise_noise < FLAT_RISE:
        reason = (
            "The loss fell by less than its noise, and it fell all the time: there was hardly any progress. Try ten "
            "times the learning rate."
        )
        return _found(TrainingVerdict.TOO_LOW, reason, 10.0, stretch)
    reason = (
        "The loss neither fell nor rose clearly. Either the learning rate is far too low, or it was so high that "
        "training collapsed in its first steps, or there was nothing left to learn: run a range test."
    )
    return _found(TrainingVerdict.UNCLEAR, reason, None, stretch)


def _slow(history: History, signs: Signs, done: float) -> Diagnosis | None:
    early = signs.decayed_after < EARLY_DECAY
    falling = signs.late > (FALLING_AT_DECAY if early else STILL_FALLING)
    if not (falling and signs.half < NOT_HALF and signs.trend > LEAST_TREND):
        return None
    if not early and _picks_up(signs):
        return None
    if early:
        first = min(round(signs.decayed_after * len(history)), len(history) - 1)
        stretch = _stretch(history, (first, len(history)), "learning rate decayed")
        reason = (
            f"The learning rate fell below a third of its peak after {signs.decayed_after:.0%} of the training, while "
            "the loss was still falling with it. Keep the peak for longer: decay towards the end of the training."
        )
        return _found(TrainingVerdict.DECAYED_TOO_EARLY, reason, 1.0, stretch)
    stretch = _stretch(history, signs.late_bins, "still falling")
    if done < 0.5:
        reason = (
            f"The loss is falling steadily, {done:.0%} into the training: too early to tell whether the learning rate "
            "is too low."
        )
        return _found(TrainingVerdict.UNCLEAR, reason, None, stretch)
    advice = 10.0 if signs.half < FAR_FROM_HALF else 5.0
    reason = (
        f"The loss fell in proportion to the summed learning rate to the very end: at half of it, {signs.half:.0%} of "
        f"the fall had come. Try {advice:g} times the learning rate."
    )
    return _found(TrainingVerdict.TOO_LOW, reason, advice, stretch)


def _picks_up(signs: Signs) -> bool:
    """Return whether progress per summed learning rate slowed down and then gained: a decaying lr calms a high one."""
    first, second = 4 * signs.quarter, 4 * (signs.half - signs.quarter)
    return min(first, signs.late) > PICK_UP * second


def _hidden(signs: Signs) -> Diagnosis | None:
    if signs.at_once < AT_ONCE:
        return None
    reason = (
        f"{min(signs.at_once, 1.0):.0%} of the fall lies between the first two entries. If they are averages, the "
        "first may hide that the loss exploded: log the loss of every step, or more often."
    )
    return _found(TrainingVerdict.UNCLEAR, reason, None, Stretch(first=0, stop=2, name="nearly the whole fall"))


def _settled(signs: Signs) -> Diagnosis:
    if signs.half >= NOT_HALF or signs.late <= STILL_FALLING:
        share = min(max(signs.half, 0.0), 1.0)
        reason = f"The loss fell without unrest and settled: {share:.0%} of the fall had come at half of the summed lr."
    else:
        reason = "The loss fell without unrest, and gained as the learning rate decayed."
    return _found(TrainingVerdict.FINE, reason, 1.0)


def _overfitted(rise: float, lowest: float, entries: int) -> Diagnosis:
    reason = (
        f"The validation loss rose again by {rise:.0%} of its fall while the training loss did not: the model "
        "overfits, and the training loss cannot tell whether the learning rate is right. Stop earlier, regularize, or "
        "use more data."
    )
    stretch = Stretch(first=min(round(lowest * entries), entries - 1), stop=entries, name="validation loss rises")
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
