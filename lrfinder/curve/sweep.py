"""The range test as a state machine: it is asked for learning rates and told losses.

It knows nothing of models or tensors, so a plain loop, a framework's callbacks and a test with a list of numbers drive
it alike.
"""

import math
from collections import deque
from collections.abc import Sequence
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from lrfinder.curve.arrays import Floats
from lrfinder.curve.stop_rule import DEFAULT_STOP_RULE, StopReason, StopRule, StopRuleState
from lrfinder.errors import ArgumentError

__all__ = ["MIN_POINTS", "MODES", "Sweep", "grid"]

MODES = ("exponential", "linear")
MIN_POINTS = 5  # fewer show no shape


def grid(start_lr: float, end_lr: float, num_iter: int, mode: str = "exponential") -> Floats:
    """Return the learning rates of a sweep; both ends are exact.

    Args:
        start_lr: The first and smallest learning rate, > 0.
        end_lr: The last and largest learning rate, > `start_lr`.
        num_iter: Number of learning rates, at least `MIN_POINTS`.
        mode: `"exponential"` (equal ratios, the usual one) or `"linear"` (equal differences).

    Returns:
        The learning rates, strictly increasing, shape (num_iter,).

    Raises:
        ArgumentError: If an end is not positive and finite, the range is reversed or too narrow for `num_iter`
            different learning rates, there are too few points, or the mode is unknown.

    Example:
        >>> [f"{lr:.0e}" for lr in grid(1e-4, 1.0, 5)]
        ['1e-04', '1e-03', '1e-02', '1e-01', '1e+00']
    """
    for name, lr in (("start_lr", start_lr), ("end_lr", end_lr)):
        if not (math.isfinite(lr) and lr > 0):
            raise ArgumentError(f"{name} must be a positive finite number, got {name}={lr!r}; try 1e-7 to 10.")
    if end_lr <= start_lr:
        raise ArgumentError(f"end_lr must exceed start_lr={start_lr!r}, got {end_lr=}; swap them or raise end_lr.")
    if num_iter < MIN_POINTS:
        raise ArgumentError(f"too few points: num_iter must be at least {MIN_POINTS}, got {num_iter=}; 100 is usual.")
    if mode not in MODES:
        raise ArgumentError(f"mode must be one of {', '.join(MODES)}, got {mode=}.")
    lrs: Floats
    if mode == "exponential":
        lrs = np.exp(np.linspace(math.log(start_lr), math.log(end_lr), num_iter))
    else:
        lrs = np.linspace(start_lr, end_lr, num_iter)
    lrs[0], lrs[-1] = start_lr, end_lr
    if not (lrs[1:] > lrs[:-1]).all():
        raise ArgumentError(
            f"end_lr is too close to start_lr={start_lr!r} for {num_iter=} learning rates, got {end_lr=}; raise end_lr."
        )
    return lrs


class Sweep:
    """An ask-and-tell range test: gives the next learning rate and is told the loss.

    `ask` may run ahead of `tell` where losses are read late; a loss belongs to the oldest learning rate that was asked
    for and whose loss was not told. A non-finite loss ends the sweep and is no point of it; its learning rate is
    `stop_lr`. Losses that are told after the stop are dropped.

    Example:
        >>> sweep = Sweep(grid(1e-4, 1.0, 5))
        >>> while (lr := sweep.ask()) is not None:
        ...     kept = sweep.tell(-lr)
        >>> sweep.stop_reason
        <StopReason.FINISHED: 'finished'>
    """

    def __init__(
        self,
        lrs: Sequence[float] | Floats,
        stop_rule: StopRule | None = DEFAULT_STOP_RULE,
        *,
        max_skips_in_row: int = 5,
    ) -> None:
        """Start at the first learning rate.

        Args:
            lrs: The learning rates to try, strictly increasing, shape (num_iter,); see `grid`.
            stop_rule: When a rise is divergence, or None to stop at a non-finite loss only.
            max_skips_in_row: Number of skipped steps in a row, after the first point, that count as divergence: a
                GradScaler that finds overflows at every step will find them at every larger learning rate.

        Raises:
            ArgumentError: If the learning rates are not positive, finite and strictly increasing.
        """
        self._grid: Floats = np.array(lrs, dtype=np.float64)
        if self._grid.ndim != 1 or not (np.isfinite(self._grid) & (self._grid > 0)).all():
            raise ArgumentError(f"lrs must be a flat list of positive finite numbers, got {lrs=}; see `grid`.")
        if not (self._grid[1:] > self._grid[:-1]).all():
            raise ArgumentError(f"lrs must be strictly increasing, got {lrs=}; sort them and drop repeated ones.")
        self._lrs: list[float] = self._grid.tolist()
        self._watch = None if stop_rule is None else StopRuleState(stop_rule, len(self._grid))
        self._max_skips_in_row = max_skips_in_row
        self._skips_in_row = 0
        self._next = 0
        self._pending: deque[int] = deque()
        self._points: list[tuple[int, float]] = []  # one list, so that an interrupt cannot find half a point
        self._stop_lr: float | None = None
        self._stop_reason: StopReason | None = None

    @property
    def lrs(self) -> Floats:
        """The learning rates of the points so far, shape (T,)."""
        return self._grid[self.indices]

    @property
    def losses(self) -> Floats:
        """The losses of the points so far, shape (T,)."""
        return np.fromiter(map(itemgetter(1), self._points), np.float64, len(self._points))

    @property
    def indices(self) -> npt.NDArray[np.intp]:
        """The index of each point in the grid, shape (T,)."""
        return np.fromiter(map(itemgetter(0), self._points), np.intp, len(self._points))

    @property
    def num_points(self) -> int:
        """The number of points so far."""
        return len(self._points)

    def point(self, number: int) -> tuple[float, float]:
        """Return a point.

        Args:
            number: Its index among the points, from 0.

        Returns:
            Its learning rate and its loss.
        """
        index, loss = self._points[number]
        return self._lrs[index], loss

    @property
    def done(self) -> bool:
        """Whether the sweep has ended."""
        return self._stop_reason is not None

    @property
    def stop_reason(self) -> StopReason | None:
        """Why the sweep ended, None while it runs."""
        return self._stop_reason

    @property
    def stop_lr(self) -> float | None:
        """The learning rate at which the sweep was stopped (DIVERGED, NONFINITE), else None."""
        return self._stop_lr

    def ask(self) -> float | None:
        """Return the learning rate of the next step.

        Returns:
            The learning rate, None once the sweep has ended or the grid is used up.
        """
        if self._stop_reason is not None or self._next == len(self._lrs):
            return None
        index = self._next
        self._pending.append(index)
        self._next = index + 1
        return self._lrs[index]

    def tell(self, loss: float) -> bool:
        """Take the loss of the oldest step whose loss was not told.

        Args:
            loss: The loss; it may be negative.

        Returns:
            Whether it became a point: False if it is not finite, or was told after the stop.
        """
        index, loss = self._oldest("tell"), float(loss)
        if self._stop_reason is not None and self._is_cut():
            return False
        if not math.isfinite(loss):
            self._stop(StopReason.NONFINITE, index)
            return False
        self._skips_in_row = 0
        self._points.append((index, loss))
        if self._watch is not None and self._watch.diverged(loss):
            self._stop(StopReason.DIVERGED, index)
        if self._next == len(self._lrs):
            self.finish()
        return True

    def skip(self) -> None:
        """Record that a GradScaler skipped the oldest step whose loss was not told; the curve gets a gap there."""
        index = self._oldest("skip")
        if self._is_cut():
            return
        self._skips_in_row += 1
        if self._points and self._skips_in_row >= self._max_skips_in_row:
            self._stop(StopReason.DIVERGED, index)
        self.finish()

    def retry(self) -> None:
        """Give the first learning rate once more, as while a GradScaler still looks for its first scale.

        Raises:
            RuntimeError: If the newest step is not at the first learning rate, or its loss was told.
        """
        if not self._pending or self._pending[-1] != 0:
            raise RuntimeError(
                "Sweep.retry() is for the first learning rate, before its loss is told; call skip() later on."
            )
        self._pending.pop()
        self._next = 0

    def exhaust(self) -> None:
        """Record that the data ended; the losses of earlier steps may still be told."""
        if not self.done:
            self._stop_reason = StopReason.EXHAUSTED

    def finish(self) -> None:
        """Mark the sweep as FINISHED if the loss of every step was told; `tell` and `skip` do so by themselves."""
        if not self._pending and self._next == len(self._grid) and not self.done:
            self._stop_reason = StopReason.FINISHED

    def _oldest(self, caller: str) -> int:
        if not self._pending:
            raise RuntimeError(f"Sweep.{caller}() without a step that waits for its loss; call ask() first.")
        return self._pending.popleft()

    def _is_cut(self) -> bool:
        return self._stop_reason is StopReason.DIVERGED or self._stop_reason is StopReason.NONFINITE

    def _stop(self, reason: StopReason, index: int) -> None:
        self._stop_reason = reason
        self._stop_lr = self._lrs[index]
