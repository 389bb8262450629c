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
    StopReason.FINISHED: (
        "Every learning rate of the grid was tried. Raise end_lr if the loss was still falling at the end."
    ),
    StopReason.DIVERGED: "The loss rose and stayed high. Nothing needs to be done: a range test should end so.",
    StopReason.NONFINITE: (
        "The loss became NaN or infinite. Nothing needs to be done if it diverged there; "
        "if the learning rate was far too low for that, look for the NaN in the model or the data."
    ),
    StopReason.EXHAUSTED: (
        "The loader ended before the grid of learning rates did. "
        "Pass a DataLoader or a list, which can be iterated again, or lower num_iter."
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StopRule:
    """When a rise of the loss is divergence.

    The rule compares losses with each other only, so an offset or a positive scale of the loss changes nothing.
    The loss has diverged once it has stayed above

        floor + max(`return_share` * (start - floor), `noise_factor` * noise)

    for several points in a row, where *floor* is the lowest running median so far, *start* the median of the first
    points and *noise* the mean absolute difference of successive unequal losses over the first fifth of the grid, or
    down to the floor if that is later: noise that grows with the loss hides no rise. A loss that fell and came back for
    good counts too, as when all units of a network have died.

    Args:
        patience: Number of points in a row that must be high, at least.
        patience_share: The same as a share of the grid; the larger of the two counts.
        return_share: Share of the fall that has to be lost again.
        noise_factor: Multiple of the noise that the loss has to rise.
        warmup: Number of points before the rule may stop the sweep; they give the start.
        noise_share: Share of the grid that gives the noise, or the points down to the floor where they are more.
    """

    patience: int = 3
    patience_share: float = 0.15
    return_share: float = 0.5
    noise_factor: float = 6.0
    warmup: int = 5
    noise_share: float = 0.2

    def steps(self, num_points: int) -> int:
        """Return the number of points in a row that have to be high in a sweep of `num_points`."""
        return max(self.patience, math.ceil(self.patience_share * num_points))


DEFAULT_STOP_RULE = StopRule()

_TOLERANCE = 1e-9  # relative: a loss exactly at the threshold is not above it, whatever the rounding


class StopRuleState:
    """The running state of a stop rule; each loss takes constant time."""

    def __init__(self, rule: StopRule, num_points: int) -> None:
        """Start before the first loss."""
        self._rule = rule
        self._steps_needed = rule.steps(num_points)
        self._noise_factor = (1 + _TOLERANCE) * rule.noise_factor
        self._window: deque[float] = deque(maxlen=rule.warmup)
        self._last = math.nan
        self._start = self._floor = math.inf
        self._return = 0.0  # how far the loss must rise to have come back
        self._changes = 0.0  # sum of the absolute changes from loss to loss
        self._changed = 0  # number of changes in that sum
        self._in_row = 0
        self._noise_points = math.ceil(rule.noise_share * num_points)
        self._waiting = (0.0, 0)  # sum and number of the changes since the floor
        self._seen = 0

    def diverged(self, loss: float) -> bool:
        """Return whether the sweep has diverged with the next loss.

        Args:
            loss: The loss, finite.

        Returns:
            Whether it has.
        """
        rise, change, self._last = loss - self._floor, abs(loss - self._last), loss
        self._window.append(loss)
        self._seen += 1
        if rise > self._return and self._changed and rise > self._noise_factor * (self._changes / self._changed):
            self._in_row += 1
            return self._in_row >= self._steps_needed
        self._in_row = 0
        # Equal neighbours are no noise: a constant loss that flips its last bit has not diverged.
        if change > 0:
            self._waiting = (self._waiting[0] + change, self._waiting[1] + 1)
        if self._seen <= self._noise_points:
            self._count_changes()
        if loss < self._floor:  # otherwise the running median cannot be lower than before
            self._lower()
        return False

    def _lower(self) -> None:
        if len(self._window) < self._rule.warmup:
            return
        level = sorted(self._window)[self._rule.warmup // 2]
        if self._floor == math.inf:
            self._start = level
        if level < self._floor:
            self._floor = level
            self._count_changes()
        self._return = (1 + _TOLERANCE) * self._rule.return_share * (self._start - self._floor)

    def _count_changes(self) -> None:
        self._changes += self._waiting[0]
        self._changed += self._waiting[1]
        self._waiting = (0.0, 0)
