"""How good verdicts on learning rates are: `lrfinder.curve.judge` on stored curves, against the grid search's truth.

    python -m tests.benchmarks.verdicts --report

prints what each level costs and how often the direction is right, from `truth.json` and `measured.json`: every learning
rate of the grid is judged on each of the five stored curves of its task, for a training with OneCycle.
"""

from __future__ import annotations

import argparse
import itertools
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from lrfinder.curve import Level, judge, suggest
from lrfinder.curve import verdicts as module
from lrfinder.curve.explosion import first_divergence_lr
from lrfinder.errors import NoSuggestionError
from tests.benchmarks import measured
from tests.benchmarks.quality import load_cases
from tests.benchmarks.tasks import TASKS

__all__ = ["Judged", "judge_all", "level_table", "score"]

BAD, GOOD = 0.25, 0.03  # regrets
NEAR = {Level.GOOD, Level.LOW, Level.HIGH}
BELOW, ABOVE = {Level.TOO_LOW, Level.LOW}, {Level.TOO_HIGH, Level.HIGH}


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One learning rate, its verdict's level, and the truth.

    Args:
        task: The task's name.
        level: The level.
        regret: What a training with it loses against the best one.
        side: -1 below the best learning rate, 0 at it, 1 above.
    """

    task: str
    level: Level
    regret: float
    side: int


@cache
def _curves() -> list[tuple[str, Any, Any, float | None, list[tuple[float, float, int]]]]:
    found = []
    for case in load_cases():
        task, truth = TASKS[case.name], case.truth
        context = measured.context_of(task, task.total_steps)
        grid = [(float(10**k), truth.regret(10**k), int(np.sign(round(k - np.log10(truth.best_lr), 6))))
                for k in truth.decades]  # fmt: skip
        for stored in case.measured["find"].values():
            curve = measured.as_curve(stored)
            try:
                lr = suggest("auto", curve, context).lr
            except NoSuggestionError:
                lr = None
            found.append((case.name, curve, context, lr, grid))
    return found


def judge_all() -> list[Judged]:
    """Judge every learning rate of the grid on every stored curve."""
    return [
        Judged(task=name, level=judge(lr, suggested, curve, context).level, regret=regret, side=side)
        for name, curve, context, suggested, grid in _curves()
        for lr, regret, side in grid
    ]


def score(judged: list[Judged]) -> dict[str, float]:
    """The shares that are promised."""
    bad = [each for each in judged if each.regret > BAD]
    told = [each for each in bad if each.level in BELOW | ABOVE]
    good = [each for each in judged if each.regret < GOOD]
    return {
        "bad that are not GOOD": float(np.mean([each.level is not Level.GOOD for each in bad])),
        "of those, direction right": float(
            np.mean([each.level in (BELOW if each.side < 0 else ABOVE) for each in told])
        ),
        "good that are GOOD, LOW or HIGH": float(np.mean([each.level in NEAR for each in good])),
        "good that are GOOD": float(np.mean([each.level is Level.GOOD for each in good])),
        "good that are TOO_HIGH": float(np.mean([each.level is Level.TOO_HIGH for each in good])),
        "good that are TOO_LOW": float(np.mean([each.level is Level.TOO_LOW for each in good])),
        "unknown": float(np.mean([each.level is Level.UNKNOWN for each in judged])),
    }


def level_table(judged: list[Judged]) -> str:
    """What each level costs."""
    lines = [f"{'level':10s}{'share':>8s}{'mean regret':>14s}{'median':>9s}{'under 0.03':>12s}{'over 0.25':>11s}"]
    for level in Level:
        regrets = np.array([each.regret for each in judged if each.level is level])
        if len(regrets):
            lines.append(
                f"{level.name:10s}{len(regrets) / len(judged):8.0%}{regrets.mean():14.2f}{np.median(regrets):9.2f}"
                f"{np.mean(regrets < GOOD):12.0%}{np.mean(regrets > BAD):11.0%}"
            )
    return "\n".join(lines)


# -------------------------------------------------------------------------------------------------------------- choose
CANDIDATES = {
    "LOW_BELOW": (1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 6),
    "HIGH_ABOVE": (3.0, 4.0, 5.0, 6.0, 8.0),
    "TOO_LOW_BELOW": (1 / 20, 1 / 30),
    "TOO_HIGH_DIVERGENCE": (5.0, 10.0, 20.0),
    "TOO_HIGH_STOP": (1.0, 2.0),
}


def left_out() -> tuple[list[Judged], Counter[Any]]:
    """Judge each task with the constants that suit the other tasks best; also how often each choice was made."""
    before = {name: getattr(module, name) for name in CANDIDATES}
    tables: dict[Any, dict[str, list[Judged]]] = {}
    for values in itertools.product(*CANDIDATES.values()):
        for name, value in zip(CANDIDATES, values, strict=True):
            setattr(module, name, value)
        tables[values] = _levels()
    for name, value in before.items():
        setattr(module, name, value)
    judged, choices = [], Counter()
    for task in next(iter(tables.values())):
        best = max(tables, key=lambda values: _objective(tables[values], task))
        choices[best] += 1
        judged += tables[best][task]
    return judged, choices


def _levels() -> dict[str, list[Judged]]:
    # As `judge_all`, without what does not depend on the constants.
    by_task: dict[str, list[Judged]] = {}
    for name, curve, divergence, suggested, grid in _divergences():
        for lr, regret, side in grid:
            level = module.level_of(lr, suggested, divergence, curve)
            by_task.setdefault(name, []).append(Judged(task=name, level=level, regret=regret, side=side))
    return by_task


@cache
def _divergences() -> list[Any]:
    return [
        (name, curve, first_divergence_lr(curve, context), lr, grid)
        for name, curve, context, lr, grid in _curves()
        if lr
    ]


def _objective(by_task: dict[str, list[Judged]], without: str) -> float:
    found = score([each for name, judged in by_task.items() if name != without for each in judged])
    missing = max(0.87 - found["bad that are not GOOD"], 0) + found["good that are TOO_HIGH"]
    return found["good that are GOOD"] - found["good that are TOO_LOW"] - 10 * missing


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true", help="print the tables")
    parser.add_argument("--left-out", action="store_true", help="also with constants chosen without the scored task")
    arguments = parser.parse_args()
    tables = {"constants as they are": judge_all()}
    if arguments.left_out:
        tables["constants chosen without the scored task"], choices = left_out()
        print(f"{choices.most_common(5)}\n")
    for title, judged in tables.items():
        print(f"{title}: {len(judged)} verdicts\n\n{level_table(judged)}\n")
        print("\n".join(f"{name:34s}{share:8.1%}" for name, share in score(judged).items()) + "\n")


if __name__ == "__main__":
    main()
