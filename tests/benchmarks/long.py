"""How `auto` and `refine` do on trainings of 10,000 to 100,000 steps.

python -m tests.benchmarks.long --truth     # grid searches into long.json: half an hour
python -m tests.benchmarks.long             # the tables, from fresh sweeps: minutes
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lrfinder.curve.auto import LENGTH_POWER
from tests.benchmarks.constants import left_out
from tests.benchmarks.grid_search import load, save, search
from tests.benchmarks.raw_targets import find, suggested
from tests.benchmarks.regret import Truth, load_truth
from tests.benchmarks.tasks import Task
from tests.benchmarks.tasks.small import LONG
from tests.benchmarks.truth import mean_losses

__all__ = ["PATH"]

PATH = Path(__file__).with_name("long.json")
SEEDS = (0, 1)  # of the trainings
SWEEP_SEEDS = (5, 6, 7)
POWERS, KNEES = (0.0, 0.15, 0.3, 0.45, 0.6), (1000, 2000, 5000)
FIRST = sorted({*range(-14, 15, 2), *range(-6, 10)})  # grid places of the first round, from the usual learning rate


def find_truth() -> None:
    """Run the grid searches that are missing, the shortest first."""
    entries = load(PATH)
    for name, task in sorted(LONG.items(), key=lambda item: item[1].total_steps):
        if name not in entries:
            entries[name] = _searched(task)
            save(PATH, "python -m tests.benchmarks.long --truth", entries)


def _searched(task: Task) -> dict[str, Any]:
    """One round, which is wide enough nearly always; else a second one."""
    entry = search(task, ["one_cycle"], SEEDS, first=FIRST, rounds=1)
    losses = mean_losses(entry["final"]["one_cycle"], entry["start"])
    best = min(losses, key=lambda place: losses[place])
    if {best - 1, best + 1} <= set(losses):
        return entry
    return search(task, ["one_cycle"], SEEDS, first=FIRST, rounds=2)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a range test with `refine` suggests, and what it took."""

    auto: float | None
    refine: float | None
    steps: int


def find_lrs(task: Task, seed: int) -> Found:
    """A range test with `refine` at its default budget."""
    result = find(task, seed, refine=True)
    return Found(auto=result.suggest("auto").lr, refine=suggested(result), steps=result.steps)


def table(truths: dict[str, Truth], found: dict[str, list[Found]]) -> str:
    """The table in Markdown."""
    lines = [
        "| task | best lr | auto / best | auto | refine / best | refine | steps |",
        "|---|---|---|---|---|---|---|",
    ]
    means: dict[str, list[float]] = {"auto": [], "refine": []}
    for name, here in found.items():
        truth, cells = truths[name], []
        for rule, of_rule in means.items():
            lrs = [getattr(each, rule) for each in here]
            of_rule.append(float(np.mean([truth.regret(lr) for lr in lrs])))
            cells.append(f"{np.exp(np.mean(np.log(lrs))) / truth.best_lr:.2f} | {of_rule[-1]:.3f}")
        steps = np.mean([each.steps for each in here])
        lines.append(f"| {name} | {truth.best_lr:.1e} | {' | '.join(cells)} | {steps:,.0f} |")
    total = " | | ".join(f"{np.mean(each):.3f}, {max(each):.2f}" for each in means.values())
    return "\n".join([*lines, f"| **mean, worst task** | | | {total} | |"])


def law(truths: dict[str, Truth], found: dict[str, list[Found]]) -> str:
    """What other powers of the length beyond a knee would be worth, as a table in Markdown.

    `auto` is lr ~ steps^-0.3 for all lengths. A row is another power, a column where it begins; the last row takes for
    each task the power that is best on the others.
    """
    regrets = np.array([[_with_power(truths, found, power, knee) for knee in KNEES] for power in POWERS])
    heads = " | ".join(f"{knee:,} steps" for knee in KNEES)
    lines = [f"| lr ~ steps^-p beyond | {heads} |", "|---" * (len(KNEES) + 1) + "|"]
    for power, row in zip(POWERS, regrets, strict=True):
        lines.append(f"| p = {power:g} | {' | '.join(f'{each.mean():.3f}, {each.max():.2f}' for each in row)} |")
    out = [left_out(regrets[:, column], list(found)) for column in range(len(KNEES))]
    lines.append(f"| chosen without the task | {' | '.join(f'{each.mean():.3f}, {each.max():.2f}' for each in out)} |")
    return "\n".join(lines)


def _with_power(truths: dict[str, Truth], found: dict[str, list[Found]], power: float, knee: int) -> list[float]:
    factors = {name: max(LONG[name].total_steps / knee, 1) ** (LENGTH_POWER - power) for name in found}
    return [
        float(np.mean([truths[name].regret(None if each.auto is None else each.auto * factors[name]) for each in here]))
        for name, here in found.items()
    ]


def main() -> None:
    """Search, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truth", action="store_true", help="run the grid searches that are missing")
    torch.set_num_threads(1)
    if parser.parse_args().truth:
        find_truth()
        return
    truths = load_truth(PATH)
    names = sorted(truths, key=lambda name: LONG[name].total_steps)
    found = {name: [find_lrs(LONG[name], seed) for seed in SWEEP_SEEDS] for name in names}
    print(f"{table(truths, found)}\n\n{law(truths, found)}")


if __name__ == "__main__":
    main()
