"""When a sweep ends, and why."""

import dataclasses
import enum
import math
from collections import deque

__all__ = ["DEFAULT_STOP_RULE", "StopReason", "StopRule", "StopRuleState"]


class StopReason(enum.Enum):
    """Why a sweep ended."""

    FINISHED = "finished"
    DIVERGED = "diverged"
    NONFINITE = "nonfinite"
    EXHAUSTED = "exhausted"

    @property
    def explanation(self) -> str:
        """Why the sweep ended, then what to do about it."""
        return _EXPLANATIONS[self]


_EXPLANATIONS = {
    StopReason.FINISHED: "Every rate of the grid was tried. Raise end_lr if the loss was still falling at the end.",
    StopReason.DIVERGED: "The loss rose and stayed high. Nothing needs doing: this is how a range test should end.",
    StopReason.NONFINITE: (
        "The loss became NaN or infinite. Nothing needs doing if it diverged there; "
        "if it happened at a rate that is far too small, look for the NaN in the model or the data."
    ),
    StopReason.EXHAUSTED: (
        "The loader ended before the grid of rates did. Pass a loader that can be iterated again, or lower num_iter."
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StopRule:
    """When a rise of the loss is divergence.

    The rule compares losses only with each other, so adding a constant to all of them or scaling them by a positive
    factor changes nothing. The loss has diverged once it has stayed above

        floor + max(`return_share` * (start - floor), `noise_factor` * noise)

    for several points in a row, where *floor* is the lowest running median so far, *start* the median of the first
    points and *noise* the mean absolute difference of successive unequal losses before the rise. So a blow-up counts,
    and so does a loss that fell and came back for good, as when all units of a network have died.

    Args:
        patience: The least number of points in a row that must be high.
        patience_share: The same as a share of the grid; the larger of the two holds, so that persistence means
            a stretch of learning rates, not a count of steps.
        return_share: How much of the fall has to be lost again.
        noise_factor: How many mean absolute differences the loss has to rise.
        warmup: How many points are looked at before the rule may fire; they give start and noise.
    """

    patience: int = 3
    patience_share: float = 0.15
    return_share: float = 0.5
    noise_factor: float = 6.0
    warmup: int = 5

    def steps(self, num_points: int) -> int:
        """Return how many points in a row have to be high in a sweep of `num_points`."""
        return max(self.patience, math.ceil(self.patience_share * num_points))


DEFAULT_STOP_RULE = StopRule()

_TIE = 1e-9  # a loss exactly at the threshold isn't above it, whatever the rounding


class StopRuleState:
    """The running state of a stop rule: takes in each loss in constant time and says whether the sweep has diverged."""

    def __init__(self, rule: StopRule, num_points: int) -> None:
        """Start before the first loss."""
        self._rule = rule
        self._steps_needed = rule.steps(num_points)
        self._noise_factor = (1 + _TIE) * rule.noise_factor
        self._window: deque[float] = deque(maxlen=rule.warmup)
        self._last = math.nan
        self._start = self._floor = math.inf
        self._return = 0.0  # how far the loss must rise to have come back
        self._changes = 0.0  # the sum of the changes from loss to loss ...
        self._changed = 0  # ... and how many there were
        self._in_row = 0

    def diverged(self, loss: float) -> bool:
        """Take in the next loss.

        Args:
            loss: The loss, finite.

        Returns:
            Whether the sweep has diverged with it.
        """
        rise, change, self._last = loss - self._floor, abs(loss - self._last), loss
        self._window.append(loss)
        if rise > self._return and self._changed and rise > self._noise_factor * (self._changes / self._changed):
            self._in_row += 1
            return self._in_row >= self._steps_needed
        self._in_row = 0
        # Equal neighbours tell nothing of the noise: a constant loss that flips its last bit has not diverged.
        if change > 0:
            self._changes += change
            self._changed += 1
        if loss < self._floor:  # else the running median cannot have become the lowest
            self._lower()
        return False

    def _lower(self) -> None:
        if len(self._window) < self._rule.warmup:
            return
        level = sorted(self._window)[self._rule.warmup // 2]
        if self._floor == math.inf:
            self._start = level
        self._floor = min(self._floor, level)
        self._return = (1 + _TIE) * self._rule.return_share * (self._start - self._floor)
