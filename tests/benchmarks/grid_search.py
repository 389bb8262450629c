"""Train a task at a grid of learning rates until the best one is interior, all of them side by side.

What `truth` does for the standard tasks with one training after the other, for the further tasks: they are small, and
all of their trainings run as one batched network. The files have the format of `truth.json`.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.side_by_side import Copy, train_side_by_side
from tests.benchmarks.tasks import Task
from tests.benchmarks.truth import mean_losses, rate, wanted

__all__ = ["load", "save", "search"]

HALF_WIDTH = 7
"""Grid places of a third of a decade on either side of the usual learning rate that are run at first."""


def search(
    task: Task,
    schedules: Sequence[str],
    seeds: Sequence[int],
    *,
    worst: float | None = None,
    first: Sequence[int] = range(-2 * HALF_WIDTH, 2 * HALF_WIDTH + 1, 2),
    rounds: int | None = None,
) -> dict[str, Any]:
    """Train at the grid's learning rates under each schedule.

    Args:
        task: What is trained.
        schedules: Keys of `tests.benchmarks.schedules.SCHEDULES`.
        seeds: The seeds of each cell.
        worst: The loss that counts as no progress; by default the one before the training.
        first: Grid places of the first round, from the usual learning rate.
        rounds: Rounds of trainings at most; by default as many as it takes.

    Returns:
        `start` by seed, `final` by schedule, grid place and seed (None where it is not finite), and `seconds`.
    """
    entry: dict[str, Any] = {"start": {}, "final": {schedule: {} for schedule in schedules}}
    began = time.perf_counter()
    middle = 2 * round(3 * math.log10(task.usual_lr))
    places = {schedule: {middle + i for i in first} for schedule in schedules}
    for done in itertools.count():
        if done == rounds or not any(places.values()):
            break
        cells = [(schedule, k, seed) for schedule in schedules for k in sorted(places[schedule]) for seed in seeds]
        copies = [Copy(lr=rate(k), seed=seed, schedule=schedule) for schedule, k, seed in cells]
        for (schedule, k, seed), before, after in zip(cells, *train_side_by_side(task, copies), strict=True):
            entry["start"][str(seed)] = _short(before if worst is None else worst)
            entry["final"][schedule].setdefault(str(k), {})[str(seed)] = _short(after)
        places = {schedule: _missing(entry, schedule, task) for schedule in schedules}
    for schedule, curve in entry["final"].items():
        entry["final"][schedule] = {k: curve[k] for k in sorted(curve, key=int)}
    entry["seconds"] = round(time.perf_counter() - began, 1)
    return entry


def _missing(entry: dict[str, Any], schedule: str, task: Task) -> set[int]:
    losses = mean_losses(entry["final"][schedule], entry["start"])
    places = wanted(losses, task.usual_lr)
    below = {min(losses) - 2 * i for i in (1, 2, 3)} if any(k < min(losses) for k in places) else set()
    above = {max(losses) + 2 * i for i in (1, 2, 3)} if any(k > max(losses) for k in places) else set()
    return places | below | above


def _short(number: float) -> float | None:
    return float(f"{number:.5g}") if math.isfinite(number) else None


def load(path: Path) -> dict[str, Any]:
    """The stored entries by name, none where there is no file."""
    return json.loads(path.read_text())["tasks"] if path.exists() else {}


def save(path: Path, command: str, entries: dict[str, Any]) -> None:
    """Write the entries, a line each."""
    lines = [f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in sorted(entries.items())]
    new = path.with_suffix(".new")
    new.write_text(f'{{"command": {json.dumps(command)}, "tasks": {{\n' + ",\n".join(lines) + "\n}}\n")
    Path(new).replace(path)
