"""How `auto` does under the schedules that people train with, and what a factor for each schedule would be worth.

python -m tests.benchmarks.under_schedules --truth   # grid searches into schedules.json: minutes
python -m tests.benchmarks.under_schedules           # the table, from fresh sweeps: a minute
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from tests.benchmarks.constants import left_out
from tests.benchmarks.grid_search import load, save, search
from tests.benchmarks.raw_targets import find, suggested
from tests.benchmarks.regret import Truth, load_truth
from tests.benchmarks.schedules import SCHEDULES
from tests.benchmarks.tasks.small import SHORT

__all__ = ["PATH", "rows"]

PATH = Path(__file__).with_name("schedules.json")
SEEDS = (0, 1)  # of the trainings
SWEEP_SEEDS = (5, 6)
FACTORS = (0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.6, 2.0, 2.5)


def rows() -> list[str]:
    """A row of the table for each schedule."""
    truths = {name: load_truth(PATH, name) for name in SCHEDULES}
    tasks = sorted(truths["one_cycle"])
    lrs = {name: [suggested(find(SHORT[name], seed)) for seed in SWEEP_SEEDS] for name in tasks}
    return [_row(schedule, truths[schedule], lrs) for schedule in SCHEDULES]


def _row(schedule: str, truths: dict[str, Truth], lrs: dict[str, list[float | None]]) -> str:
    found = np.array([[_regret(truths[name], lrs[name], factor) for name in lrs] for factor in FACTORS])
    best = int(found.mean(1).argmin())
    ratios = [truths[name].best_lr / truths_lr for name, truths_lr in _one_cycle_best(lrs).items()]
    scored = [found[FACTORS.index(1.0)], found[best], left_out(found, list(lrs))]
    means = " | ".join(f"{each.mean():.3f}, {each.max():.2f}" for each in scored)
    return f"| {schedule} | {np.median(ratios):.2f} | {means} | {FACTORS[best]} |"


def _one_cycle_best(lrs: dict[str, list[float | None]]) -> dict[str, float]:
    truths = load_truth(PATH, "one_cycle")
    return {name: truths[name].best_lr for name in lrs}


def _regret(truth: Truth, lrs: list[float | None], factor: float) -> float:
    return float(np.mean([truth.regret(None if lr is None else lr * factor) for lr in lrs]))


def main() -> None:
    """Search, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truth", action="store_true", help="run the grid searches that are missing")
    torch.set_num_threads(1)
    if parser.parse_args().truth:
        entries = load(PATH)
        for name, task in SHORT.items():
            if name not in entries:
                entries[name] = search(task, list(SCHEDULES), SEEDS)
                save(PATH, "python -m tests.benchmarks.under_schedules --truth", entries)
        return
    print("| schedule | best lr / one_cycle's | auto | best factor | best factor left out | best factor is |")
    print("|---|---|---|---|---|---|")
    print("\n".join(rows()))


if __name__ == "__main__":
    main()
