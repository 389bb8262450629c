"""Regret: the share of the reachable improvement that a learning rate forgoes, by the stored truth.

For a seed with the loss `start` before the training, regret(s) = (loss(s) - best) / (start - best), clipped to [0, 1]:
0 is as good as the best rate of the grid, 1 is no training, or divergence. The best rate is chosen on the other seeds
and scored on this one; a single seed chooses for itself. Between grid points the loss is linear in the rate's
logarithm; beyond the grid it stays as at its end.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Truth", "bootstrap_interval", "load_truth"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The final losses of one task under one schedule.

    Args:
        decades: log10 of the grid's rates, shape (K,).
        starts: The loss before the training, shape (seeds,).
        finals: The loss after it, at most the start's (a diverged run counts as none), shape (K, seeds).
    """

    decades: Floats
    starts: Floats
    finals: Floats

    @cached_property
    def _others(self) -> Floats:
        # Mean over all seeds but this one, shape (K, seeds).
        seeds = self.finals.shape[1]
        if seeds == 1:
            return self.finals
        return np.asarray((self.finals.sum(1, keepdims=True) - self.finals) / (seeds - 1))

    @cached_property
    def best(self) -> Floats:
        """Loss at the best rate, which the other seeds chose, shape (seeds,)."""
        return self.finals[np.argmin(self._others, 0), np.arange(len(self.starts))]

    @cached_property
    def best_lr(self) -> float:
        """The rate of the lowest mean loss."""
        return float(10 ** self.decades[np.argmin(self.finals.mean(1))])

    def loss(self, lr: float) -> Floats:
        """Final losses at a rate, shape (seeds,)."""
        return np.array([np.interp(math.log10(lr), self.decades, column) for column in self.finals.T])

    def regret_of_losses(self, losses: Floats) -> float:
        """Mean regret of final losses, one per seed; not finite ones have diverged."""
        losses = np.where(np.isfinite(losses), losses, np.inf)
        return float(np.mean(np.clip((losses - self.best) / np.maximum(self.starts - self.best, 1e-12), 0, 1)))

    def regret(self, lr: float | None) -> float:
        """Mean regret of a rate over the seeds; 1 where a rule had no suggestion."""
        return 1.0 if lr is None or not lr > 0 or not math.isfinite(lr) else self.regret_of_losses(self.loss(lr))

    def distance(self, lr: float) -> float:
        """|log10(lr / best)|."""
        return abs(math.log10(lr / self.best_lr))

    def one_seed_search(self) -> list[float]:
        """Rates that a grid search with a single seed would give, one per seed."""
        return [float(10 ** self.decades[i]) for i in np.argmin(self.finals, 0)]


def load_truth(path: Path, schedule: str = "one_cycle") -> dict[str, Truth]:
    """Read the stored truth of every task that has one under the schedule."""
    stored: dict[str, Any] = json.loads(path.read_text())["tasks"]
    return {name: _truth(entry, schedule) for name, entry in stored.items() if entry.get("final", {}).get(schedule)}


def _truth(entry: dict[str, Any], schedule: str) -> Truth:
    curve = dict(sorted(entry["final"][schedule].items(), key=lambda item: int(item[0])))
    seeds = sorted(set.intersection(*(set(finals) for finals in curve.values())))
    starts = np.array([entry["start"][seed] for seed in seeds])
    finals = np.array([[math.inf if curve[k][seed] is None else curve[k][seed] for seed in seeds] for k in curve])
    return Truth(decades=np.array([int(k) / 6 for k in curve]), starts=starts, finals=np.minimum(finals, starts))


def bootstrap_interval(values: Floats, draws: int = 2000) -> tuple[float, float]:
    """The middle 95 % of the mean when the tasks are resampled with replacement."""
    rng = np.random.default_rng(0)
    means = rng.choice(values, (draws, len(values))).mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
