"""Judge a learning rate by a measured curve: is it too low or too high?

The constants were chosen on the benchmark in `tests/benchmarks`; `python -m tests.benchmarks.verdicts --report` prints
what each level costs there.
"""

import dataclasses
import enum
import math

from lrfinder.curve.curve import Context, Curve
from lrfinder.curve.explosion import first_divergence_lr
from lrfinder.curve.remedies import how_to_see_divergence
from lrfinder.curve.stop_rule import StopReason

__all__ = ["Level", "Verdict", "judge"]

TOO_LOW_BELOW = 1 / 30  # times the suggestion
LOW_BELOW = 1 / 4  # times the suggestion
HIGH_ABOVE = 5.0  # times the suggestion
TOO_HIGH_DIVERGENCE = 20.0  # times the lr of divergence
TOO_HIGH_STOP = 2.0  # times the lr at which a diverging sweep was stopped
UNSEEN_ABOVE = 10.0  # times the largest lr of a sweep that showed no divergence


class Level(enum.Enum):
    """How a learning rate compares with the one that the curve suggests."""

    TOO_LOW = "too low"
    LOW = "low"
    GOOD = "good"
    HIGH = "high"
    TOO_HIGH = "too high"
    UNKNOWN = "unknown"

    @property
    def expectation(self) -> str:
        """What to expect of a training, in a few words."""
        return _EXPECTATIONS[self]


_EXPECTATIONS = {
    Level.TOO_LOW: "expect hardly any progress",
    Level.LOW: "expect slow training",
    Level.GOOD: "near the suggestion",
    Level.HIGH: "expect unstable training",
    Level.TOO_HIGH: "expect divergence or NaN",
    Level.UNKNOWN: "the curve cannot tell",
}
_CONSEQUENCES = {
    Level.TOO_LOW: "expect hardly any progress within the training",
    Level.LOW: "expect slow training that ends far from where it could",
    Level.GOOD: "expect about the result that the suggestion gives",
    Level.HIGH: "expect unstable training: the loss stays high until the learning rate decays, or diverges",
    Level.TOO_HIGH: "expect the loss to diverge or to become NaN",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """The judgement of one learning rate.

    Args:
        lr: The learning rate that was judged.
        level: How it compares with the suggestion.
        factor: The learning rate divided by the suggestion, NaN without a suggestion.
        reason: What was compared and what to expect in training, one sentence.
    """

    lr: float
    level: Level
    factor: float
    reason: str

    def __str__(self) -> str:
        """Return a few words, such as "14x below: expect slow training".

        Example:
            >>> print(Verdict(lr=1e-3, level=Level.LOW, factor=0.07, reason=""))
            14x below: expect slow training
        """
        if self.level in {Level.GOOD, Level.UNKNOWN}:
            return self.level.expectation
        return f"{times(self.factor)}: {self.level.expectation}"


def times(factor: float) -> str:
    """Return how far above or below 1 a factor is, in two words.

    Args:
        factor: A positive number.

    Returns:
        The distance with two digits.

    Example:
        >>> times(0.25), times(3.21), times(123)
        ('4x below', '3.2x above', '120x above')
    """
    distance = f"{max(factor, 1 / factor):.2g}"
    if "e" in distance and float(distance) < 1e6:
        distance = f"{float(distance):.0f}"
    return f"{distance}x {'above' if factor >= 1 else 'below'}"


def judge(lr: float, suggested_lr: float | None, curve: Curve, context: Context, *, ratio: float = 1.0) -> Verdict:
    """Judge a learning rate by its distance from the suggestion and from divergence.

    Args:
        lr: The learning rate to judge, positive.
        suggested_lr: The suggestion of `auto` or of refining; None where the curve shows none.
        curve: The measured sweep.
        context: What is known of the training.
        ratio: For a parameter group whose lr was this multiple of the sweep's: `lr` is the group's, all else is the
            sweep's.

    Returns:
        The verdict; `Level.UNKNOWN` without a suggestion, and far above a sweep that showed no divergence.

    Example:
        >>> import numpy as np
        >>> lrs = np.geomspace(1e-4, 1e-1, 31)
        >>> losses = 1 / (1 + lrs / 0.01)
        >>> curve = Curve(lrs=lrs, losses=losses, smoothed=losses, indices=np.arange(31), stop_reason=None)
        >>> judge(1e-4, 1e-2, curve, Context()).level
        <Level.TOO_LOW: 'too low'>
    """
    if suggested_lr is None:
        reason = "The range test has no suggestion to compare with; its message says what is missing."
        return Verdict(lr=lr, level=Level.UNKNOWN, factor=math.nan, reason=reason)
    divergence, factor, of_sweep = first_divergence_lr(curve, context), lr / (ratio * suggested_lr), lr / ratio
    if divergence is None and of_sweep > UNSEEN_ABOVE * float(curve.lrs[-1]):
        reason = (
            f"The range test went up to {ratio * curve.lrs[-1]:.1e} and saw no divergence; it cannot tell what happens "
            f"at {lr:.1e}. {how_to_see_divergence(curve, context)}"
        )
        return Verdict(lr=lr, level=Level.UNKNOWN, factor=factor, reason=reason)
    level = level_of(of_sweep, suggested_lr, divergence, curve)
    place = f"{lr:.1e} is {times(factor)} the suggestion {ratio * suggested_lr:.1e}"
    if level is Level.GOOD:
        place = f"{lr:.1e} is near the suggestion {ratio * suggested_lr:.1e}"
    elif factor > 1 and divergence is not None:
        place += f", and {times(of_sweep / divergence)} the divergence at {ratio * divergence:.1e}"
    return Verdict(lr=lr, level=level, factor=factor, reason=f"{place}: {_CONSEQUENCES[level]}.")


def level_of(lr: float, suggested_lr: float, divergence: float | None, curve: Curve) -> Level:
    """Return the level of a learning rate.

    Args:
        lr: The learning rate to judge.
        suggested_lr: The suggestion.
        divergence: Where the loss starts to rise for good, None where it does not.
        curve: The measured sweep.

    Returns:
        The level, never `Level.UNKNOWN`.
    """
    factor = lr / suggested_lr
    if factor > HIGH_ABOVE and divergence is not None:
        diverged = curve.stop_reason in {StopReason.DIVERGED, StopReason.NONFINITE}
        stop_lr = curve.stop_lr if diverged and curve.stop_lr is not None else math.inf
        if lr > TOO_HIGH_DIVERGENCE * divergence or lr > TOO_HIGH_STOP * stop_lr:
            return Level.TOO_HIGH
    if factor > HIGH_ABOVE or (divergence is not None and lr > divergence):
        return Level.HIGH
    if factor >= LOW_BELOW:
        return Level.GOOD
    return Level.LOW if factor >= TOO_LOW_BELOW else Level.TOO_LOW
