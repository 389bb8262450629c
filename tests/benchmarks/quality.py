"""How good the suggestions are: the regret of every rule, and of what else there is, against the grid search's truth.

    python -m tests.benchmarks.quality --report [--picture quality.png]

prints the table and draws the picture, from `truth.json` and `measured.json`; both modules say how they are made.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from lrfinder.curve.curve import Context
from lrfinder.curve.landmarks import Landmarks, find_landmarks
from lrfinder.curve.rules import suggest
from lrfinder.errors import NoSuggestionError
from tests.benchmarks import measured, truth
from tests.benchmarks.baselines import BASELINES
from tests.benchmarks.regret import Truth, bootstrap_interval, load_truth
from tests.benchmarks.tasks import TASKS

__all__ = ["Row", "load_cases", "rows", "table"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A task with its truth and what was measured on it."""

    name: str
    truth: Truth
    measured: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A way to choose a learning rate, scored.

    Args:
        name: What the table calls it.
        regrets: By task, one regret per case (a seed of the sweep).
        decades: |log10(suggested / best)| of all cases that have a suggestion.
        steps: Mean number of training steps spent on the choice.
    """

    name: str
    regrets: dict[str, list[float]]
    decades: list[float]
    steps: float

    @property
    def means(self) -> dict[str, float]:
        """Mean regret by task."""
        return {name: float(np.mean(values)) for name, values in self.regrets.items()}

    @property
    def cases(self) -> list[float]:
        """All cases' regrets."""
        return [regret for values in self.regrets.values() for regret in values]


def load_cases(schedule: str = "one_cycle") -> list[Case]:
    """Every task that has a truth under the schedule and was measured."""
    truths, stored = load_truth(truth.PATH, schedule), measured.load_measured()
    return [Case(name=name, truth=truths[name], measured=stored[name]) for name in sorted(truths) if name in stored]


# -------------------------------------------------------------------------------------------------------------- rows
Choice = Callable[[Case], Iterable[float | None]]


def _row(name: str, cases: list[Case], choose: Choice, steps: float) -> Row:
    regrets: dict[str, list[float]] = {}
    decades: list[float] = []
    for case in cases:
        rates = list(choose(case))
        regrets[case.name] = [case.truth.regret(rate) for rate in rates]
        decades += [case.truth.distance(rate) for rate in rates if rate is not None]
    return Row(name=name, regrets=regrets, decades=decades, steps=steps)


def suggested(rule: str, case: Case, *, horizon: bool, schedule: str = "one_cycle") -> list[float | None]:
    """The rates that one of our rules gives on the stored curves, one per seed."""
    task = TASKS[case.name]
    context = measured.context_of(task, task.total_steps if horizon else None, schedule)
    return [_rate(rule, stored, context) for stored in case.measured["find"].values()]


def _rate(rule: str, stored: dict[str, Any], context: Context) -> float | None:
    try:
        return suggest(rule, measured.as_curve(stored), context).lr
    except NoSuggestionError:
        return None


def _optimizer_best(case: Case, cases: list[Case]) -> list[float | None]:
    """The grid rate of the lowest mean regret over the other tasks with the same optimizer (and momentum or not)."""

    def kind(name: str) -> tuple[str, bool]:
        return TASKS[name].optimizer, "momentum" in TASKS[name].options

    others = [other.truth for other in cases if other.name != case.name and kind(other.name) == kind(case.name)]
    if not others:
        return [TASKS[case.name].usual_lr]
    rates = [truth.rate(k) for k in range(-36, 19)]
    return [min(rates, key=lambda lr: np.mean([other.regret(lr) for other in others]))]


def _at_random(case: Case) -> list[float | None]:
    """The cost of a sweep is less than a training, so it buys one draw: within two decades of the usual default."""
    return [TASKS[case.name].usual_lr * truth.rate(k) for k in range(-12, 13)]


def _prodigy(cases: list[Case]) -> Row:
    regrets: dict[str, list[float]] = {}
    for case in cases:
        finals = [np.inf if loss is None else loss for loss in case.measured["prodigy"].values()]
        seeds = [int(seed) for seed in case.measured["prodigy"]]
        shares = (np.array(finals) - case.truth.best[seeds]) / (case.truth.starts[seeds] - case.truth.best[seeds])
        regrets[case.name] = np.clip(shares, 0, 1).tolist()
    return Row(name="Prodigy (no learning rate)", regrets=regrets, decades=[], steps=0)


def landmark(name: str, case: Case) -> list[float | None]:
    """A landmark of the stored curves, one per seed, as if it were advice."""
    task = TASKS[case.name]
    context = measured.context_of(task, task.total_steps)
    curves = [measured.as_curve(stored) for stored in case.measured["find"].values()]
    return [getattr(find_landmarks(curve, context), name) for curve in curves]


def our_rows(cases: list[Case], schedule: str = "one_cycle") -> list[Row]:
    """`auto` with and without the length of the training, and the landmarks."""
    steps = float(np.mean([stored["steps"] for case in cases for stored in case.measured["find"].values()]))
    choices: dict[str, Choice] = {
        "auto": lambda case: suggested("auto", case, horizon=True, schedule=schedule),
        "auto without total_steps": lambda case: suggested("auto", case, horizon=False, schedule=schedule),
    }
    for field in fields(Landmarks):
        choices[field.name] = lambda case, name=field.name: landmark(name, case)  # type: ignore[misc]
    return [_row(name, cases, choose, steps) for name, choose in choices.items()]


def rows(cases: list[Case]) -> list[Row]:
    """Every row of the table."""
    found = our_rows(cases)
    refined = {case.name: list(case.measured["refined"].values()) for case in cases}
    steps = float(np.mean([each["steps"] for found_here in refined.values() for each in found_here]))
    found.insert(2, _row("refine", cases, lambda case: [each["lr"] for each in refined[case.name]], steps))
    for name in BASELINES:
        found.append(
            _row(name, cases, lambda case, n=name: [seed[n] for seed in case.measured["others"].values()], 100)
        )  # type: ignore[misc]
    found.append(_row("a usual default", cases, lambda case: [TASKS[case.name].usual_lr], 0))
    found.append(_row("best lr on other tasks with the optimizer", cases, lambda case: _optimizer_best(case, cases), 0))
    found.append(_row("one random lr", cases, _at_random, 130))
    found.append(_prodigy([case for case in cases if "prodigy" in case.measured]))
    whole = float(np.mean([TASKS[case.name].total_steps * len(case.truth.decades) for case in cases]))
    found.append(_row("grid search in full, one seed", cases, lambda case: case.truth.one_seed_search(), whole))
    return found


# ------------------------------------------------------------------------------------------------------------- report
def table(found: list[Row]) -> str:
    """The table in Markdown."""
    lines = [
        "| rule | mean regret (95 %) | worst task | cases over 0.05 | over 0.25 | median decades off | steps |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found:
        means, cases = np.array(list(row.means.values())), np.array(row.cases)
        low, high = bootstrap_interval(means)
        off = f"{np.median(row.decades):.2f}" if row.decades else "–"  # noqa: RUF001 - a dash where there is no number
        lines.append(
            f"| {row.name} | {means.mean():.3f} ({low:.3f} to {high:.3f}) | {means.max():.2f} "
            f"| {np.mean(cases > 0.05):.0%} "
            f"| {np.mean(cases > 0.25):.0%} | {off} | {row.steps:,.0f} |"
        )
    return "\n".join(lines)


def worst(row: Row, count: int = 8) -> str:
    """The tasks with the largest regret."""
    ordered = sorted(row.means.items(), key=lambda item: -item[1])[:count]
    return ", ".join(f"{name} {regret:.2f}" for name, regret in ordered)


def main() -> None:
    """Print the table; draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true", help="print the table (and, with --picture, draw it)")
    parser.add_argument("--picture", type=Path, help="where to save the picture")
    arguments = parser.parse_args()
    cases = load_cases()
    found = rows(cases)
    print(f"OneCycle, {len(cases)} tasks, {len(measured.SEEDS)} sweeps each\n\n{table(found)}\n")
    print(f"auto's worst: {worst(found[0])}\n")
    for schedule in ("constant", "cosine"):
        others = load_cases(schedule)
        print(f"{schedule}, {len(others)} tasks\n\n{table(our_rows(others, schedule)[:2])}\n")
    if arguments.picture:
        from tests.benchmarks.picture import draw

        draw(found, arguments.picture)


if __name__ == "__main__":
    main()
