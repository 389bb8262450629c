"""The grid of learning rates and the stop rule: a state machine that is asked for rates and told losses.

Nothing here knows of models or tensors. A plain loop pulls the sweep, a framework's callback pushes it, and a test
drives it with a list of numbers.
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
MIN_POINTS = 5
"""Fewer points than this show no shape."""


def grid(start_lr: float, end_lr: float, num_iter: int, mode: str = "exponential") -> Floats:
    """Return the learning rates of a sweep, both ends hit exactly.

    Args:
        start_lr: The first and smallest rate, > 0.
        end_lr: The last and largest rate, > `start_lr`.
        num_iter: How many rates, at least `MIN_POINTS`.
        mode: `"exponential"` (equal ratios, the usual one) or `"linear"` (equal differences).

    Returns:
        The rates, strictly increasing, shape (num_iter,).

    Raises:
        ArgumentError: If a rate is not positive and finite, the range is reversed or too narrow for `num_iter`
            different rates, there are too few points, or the mode is unknown.

    Example:
        >>> [f"{lr:.0e}" for lr in grid(1e-4, 1.0, 5)]
        ['1e-04', '1e-03', '1e-02', '1e-01', '1e+00']
    """
    for name, rate in (("start_lr", start_lr), ("end_lr", end_lr)):
        if not (math.isfinite(rate) and rate > 0):
            raise ArgumentError(f"{name} must be a positive finite number, got {name}={rate!r}; try 1e-7 to 10.")
    if end_lr <= start_lr:
        raise ArgumentError(f"end_lr must exceed start_lr={start_lr!r}, got {end_lr=}; swap them or raise end_lr.")
    if num_iter < MIN_POINTS:
        raise ArgumentError(f"too few points: num_iter must be at least {MIN_POINTS}, got {num_iter=}; 100 is usual.")
    if mode not in MODES:
        raise ArgumentError(f"mode must be one of {', '.join(MODES)}, got {mode=}.")
    rates: Floats
    if mode == "exponential":
        rates = np.exp(np.linspace(math.log(start_lr), math.log(end_lr), num_iter))
    else:
        rates = np.linspace(start_lr, end_lr, num_iter)
    rates[0], rates[-1] = start_lr, end_lr
    if not (rates[1:] > rates[:-1]).all():
        raise ArgumentError(
            f"end_lr is too close to start_lr={start_lr!r} for {num_iter=} rates, got {end_lr=}; raise end_lr."
        )
    return rates


class Sweep:
    """An ask-and-tell range test: gives the next learning rate and is told the loss.

    `ask` may run ahead of `tell`, by as many steps as the caller reads its losses late; a loss always belongs to the
    oldest rate that was asked for and not told yet. A non-finite loss ends the sweep at once and is cut, its rate kept
    as `stop_lr`. What was asked for beyond the stop is cut as it is told.

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
        """Start at the first rate.

        Args:
            lrs: The rates to try, strictly increasing, shape (num_iter,); see `grid`.
            stop_rule: When a rise is divergence, or None to stop at nothing but a non-finite loss.
            max_skips_in_row: So many skipped steps in a row, after the first real point, are divergence too: a
                GradScaler that finds overflows at every step will find them at every larger rate.

        Raises:
            ArgumentError: If the rates are not positive, finite and strictly increasing.
        """
        self._grid: Floats = np.array(lrs, dtype=np.float64)
        if self._grid.ndim != 1 or not (np.isfinite(self._grid) & (self._grid > 0)).all():
            raise ArgumentError(f"lrs must be a flat list of positive finite rates, got {lrs=}; see `grid`.")
        if not (self._grid[1:] > self._grid[:-1]).all():
            raise ArgumentError(f"lrs must be strictly increasing, got {lrs=}; sort them and drop repeated rates.")
        self._rates: list[float] = self._grid.tolist()
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
        """The rates of the points kept so far, shape (T,)."""
        return self._grid[self.indices]

    @property
    def losses(self) -> Floats:
        """The losses of the points kept so far, shape (T,)."""
        return np.fromiter(map(itemgetter(1), self._points), np.float64, len(self._points))

    @property
    def indices(self) -> npt.NDArray[np.intp]:
        """The place of each kept point in the grid, shape (T,)."""
        return np.fromiter(map(itemgetter(0), self._points), np.intp, len(self._points))

    @property
    def num_points(self) -> int:
        """How many points were kept so far."""
        return len(self._points)

    def point(self, number: int) -> tuple[float, float]:
        """Return a kept point.

        Args:
            number: Its place among them, counted from 0.

        Returns:
            Its rate and its loss.
        """
        index, loss = self._points[number]
        return self._rates[index], loss

    @property
    def done(self) -> bool:
        """Whether no further rate will be given."""
        return self._stop_reason is not None

    @property
    def stop_reason(self) -> StopReason | None:
        """Why the sweep ended, None while it runs."""
        return self._stop_reason

    @property
    def stop_lr(self) -> float | None:
        """The rate at which the stop was called (DIVERGED) or the loss was not finite (NONFINITE), else None."""
        return self._stop_lr

    def ask(self) -> float | None:
        """Return the rate for the next step, or None once the sweep is over or the grid is used up.

        Returns:
            The learning rate, or None.
        """
        if self._stop_reason is not None or self._next == len(self._rates):
            return None
        index = self._next
        self._pending.append(index)
        self._next = index + 1
        return self._rates[index]

    def tell(self, loss: float) -> bool:
        """Take the loss of the oldest step that was asked for and not told yet.

        Args:
            loss: The loss measured there; it may be negative.

        Returns:
            True if it became a point of the curve, False if it was cut: not finite, or told after the stop.
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
        if self._next == len(self._rates):
            self.finish()
        return True

    def skip(self) -> None:
        """Note that a GradScaler skipped the oldest untold step: a gap that keeps its place in the grid."""
        index = self._oldest("skip")
        if self._is_cut():
            return
        self._skips_in_row += 1
        if self._points and self._skips_in_row >= self._max_skips_in_row:
            self._stop(StopReason.DIVERGED, index)
        self.finish()

    def retry(self) -> None:
        """Ask for the newest rate once more, as while a GradScaler still looks for its first scale.

        Raises:
            RuntimeError: If no step is waiting for its loss, or the newest one isn't at the first rate.
        """
        if not self._pending or self._pending[-1] != 0:
            raise RuntimeError("Sweep.retry() is for the first rate, before its loss is told; call skip() later on.")
        self._pending.pop()
        self._next = 0

    def exhaust(self) -> None:
        """Note that the data ended; steps that were asked for before may still be told."""
        if not self.done:
            self._stop_reason = StopReason.EXHAUSTED

    def finish(self) -> None:
        """Mark the sweep as FINISHED if every rate was asked for and told; `tell` and `skip` do so by themselves."""
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
        self._stop_lr = self._rates[index]
