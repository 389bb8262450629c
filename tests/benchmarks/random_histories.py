"""Histories of the random trainings, which the networks of `lrfinder.diagnose` learn from.

    python -m tests.benchmarks.random_histories

writes `random_histories.npz` beside this file: half an hour on one core, resumable by task. Each task is first trained
under OneCycle over a grid of learning rates, then at `FACTORS` times the best of them under each schedule.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.benchmarks.histories import (
    DROP_FACTORS,
    DROPS,
    FACTORS,
    SCHEDULES,
    Floats,
    History,
    averaged,
    compact,
    expanded,
    multipliers,
    save,
)
from tests.benchmarks.random_tasks import RandomTask, draw_task, train_copies

__all__ = ["SEEDS", "load_random_histories"]

PATH = Path(__file__).with_name("random_histories.npz")
SEEDS = range(160)
LEAST_GAIN = 0.05  # share of its first loss that a task must gain at the best learning rate; others teach nothing
PLANS = [
    (schedule, factor, place)
    for schedule in SCHEDULES
    for place, factor in enumerate(DROP_FACTORS if schedule in DROPS else FACTORS)
]


def grid_of(task: RandomTask) -> Floats:
    """The learning rates among which the best one is looked for, four a decade."""
    if task.optimizer not in {"SGD", "SGDm", "Nesterov"}:
        return 10 ** np.arange(-5.5, 1.51, 0.25)
    return 10 ** np.arange(-7.0, 1.01, 0.25) if task.constant_loss is not None else 10 ** np.arange(-4.5, 2.51, 0.25)


def record(task: RandomTask) -> dict[str, Any]:
    """All trainings of a task, as arrays; the first axis is the training."""
    steps, grid = task.total_steps, grid_of(task)
    _, val_losses, before = train_copies(task, multipliers("one_cycle", steps)[:, None] * grid)
    start = before if task.constant_loss is None else task.constant_loss
    best_lr = grid[np.argmin(np.minimum(np.nan_to_num(val_losses[-1], nan=np.inf), start))]
    shapes = np.stack([multipliers(schedule, steps, place) for schedule, _, place in PLANS], 1)
    schedules, factors, places = (np.array(values) for values in zip(*PLANS, strict=True))
    losses, val_losses, _ = train_copies(task, shapes * best_lr * factors)
    return {
        "schedule": schedules,
        "factor": factors,
        "place": places,
        "losses": losses.T,
        "val_losses": val_losses.T,
        "start": np.full(len(PLANS), start),
        "best_lr": np.array(best_lr),
        "total_steps": np.array(steps),
    }


def load(path: Path = PATH) -> dict[str, dict[str, Any]]:
    """Read what was recorded, by task."""
    stored: dict[str, dict[str, Any]] = {}
    if path.exists():
        with np.load(path) as flat:
            for key in flat.files:
                name, _, field = key.rpartition("/")
                stored.setdefault(name, {})[field] = flat[key]
    return stored


def load_random_histories(path: Path = PATH) -> list[History]:
    """Read every recorded training of the tasks that can be learnt."""
    found = []
    for name, rows in load(path).items():
        histories = _histories(name, rows)
        start, end = histories[0].start, min(history.final for history in histories)
        if start - end > LEAST_GAIN * abs(start):
            found += histories
    return found


def _histories(name: str, rows: dict[str, Any]) -> list[History]:
    losses, steps = expanded(rows), int(rows["total_steps"])
    return [
        History(
            task=name,
            schedule=str(rows["schedule"][i]),
            factor=float(rows["factor"][i]),
            lrs=averaged(
                rows["factor"][i] * rows["best_lr"] * multipliers(str(rows["schedule"][i]), steps, rows["place"][i])
            ),
            losses=losses[i],
            val_losses=rows["val_losses"][i].astype(float),
            start=float(rows["start"][i]),
            total_steps=steps,
        )
        for i in range(len(losses))
    ]


def main() -> None:
    """Record what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", type=Path, default=PATH)
    parser.add_argument("--seeds", type=int, nargs=2, default=(SEEDS.start, SEEDS.stop), metavar=("FIRST", "STOP"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    stored = load(arguments.path)
    for seed in range(*arguments.seeds):
        task = draw_task(seed)
        if task.name not in stored:
            stored[task.name] = compact(record(task))
            save(stored, arguments.path)


if __name__ == "__main__":
    main()
