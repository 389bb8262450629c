"""What the constants of `auto` and `refine` are worth when they are chosen without the task that they are scored on.

    python -m tests.benchmarks.constants

tries a grid of constants on the stored curves and short trainings. For each task it takes those that do best on average
over the other tasks (leave one task out), or over the tasks with other optimizers (leave one optimizer out), and scores
them on the task.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt

from lrfinder.curve import auto
from lrfinder.curve import ladder as refine
from lrfinder.errors import NoSuggestionError
from tests.benchmarks import measured
from tests.benchmarks.ablation import climb
from tests.benchmarks.quality import Case, load_cases
from tests.benchmarks.tasks import TASKS

__all__ = ["AUTO", "REFINE", "left_out"]

Grid = Mapping[str, Iterable[float]]

AUTO: Grid = {
    "BELOW_VALLEY": (2.8, 3.4, 4.2, 5.2, 6.5),
    "BELOW_DIVERGENCE": (3.0, 4.0, 5.0, 6.5, 8.5),
    "BELOW_ALWAYS": (1.5, 2.0, 3.0),
    "CLEAR_VALLEY": (2.0, 2.5, 3.0),
    "LENGTH_POWER": (0.1, 0.2, 0.3, 0.4),
}
REFINE: Grid = {
    "TIE": (0.0, 0.02, 0.04),
    "PROBE_LENGTH_POWER": (0.1, 0.15, 0.2, 0.3),
    "UNSTEADY_SHARE": (0.05, 0.1, 0.2),
    "UNSTEADY_NOISE": (1.5, 2.5, 4.0),
    "BELOW_UNSTEADY": (2.0, 3.5, 4.5, 6.0),
}


def regrets(cases: list[Case], module: Any, grid: Grid, rates: Callable[[Case], list[float | None]]) -> Any:
    """Mean regret of each task (columns) with each choice of constants (rows), and the choices."""
    choices = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    table = np.empty((len(choices), len(cases)))
    for row, choice in enumerate(choices):
        with patch.multiple(module, **choice):
            for column, case in enumerate(cases):
                table[row, column] = np.mean([case.truth.regret(rate) for rate in rates(case)])
    return table, choices


def left_out(table: npt.NDArray[np.float64], groups: list[str]) -> npt.NDArray[np.float64]:
    """Regret of each task with the constants that do best on the tasks of other groups."""
    scored = np.empty(table.shape[1])
    for group in set(groups):
        here = np.array([each == group for each in groups])
        scored[here] = table[table[:, ~here].mean(1).argmin(), here]
    return scored


def auto_rates() -> Callable[[Case], list[float | None]]:
    """Return what gives a task's rates on its stored curves, which are read once."""
    curves: dict[str, list[Any]] = {}

    def rates(case: Case) -> list[float | None]:
        task = TASKS[case.name]
        if case.name not in curves:
            curves[case.name] = [measured.as_curve(stored) for stored in case.measured["find"].values()]
        context = measured.context_of(task, task.total_steps)
        return [_rate(curve, context) for curve in curves[case.name]]

    return rates


def _rate(curve: Any, context: Any) -> float | None:
    try:
        return auto.choose(curve, context)[0]
    except NoSuggestionError:
        return None


def main() -> None:
    """Print how the constants do, as they are and left out."""
    cases = load_cases()
    tasks = [case.name for case in cases]
    optimizers = [TASKS[name].optimizer + " with momentum" * ("momentum" in TASKS[name].options) for name in tasks]
    for module, grid, rates in ((auto, AUTO, auto_rates()), (refine, REFINE, climb)):
        table, choices = regrets(cases, module, grid, rates)
        own = {name: getattr(module, name) for name in grid}
        best = int(table.mean(1).argmin())
        print(f"{module.__name__}: {len(choices)} choices of constants")
        for name, scored in (
            ("as they are", table[choices.index(own)]),
            ("best on all tasks", table[best]),
            ("leave one task out", left_out(table, tasks)),
            ("leave one optimizer out", left_out(table, optimizers)),
        ):
            worst = ", ".join(f"{tasks[i]} {scored[i]:.2f}" for i in np.argsort(-scored)[:4])
            print(f"  {name}: mean {scored.mean():.3f}, worst {scored.max():.2f} ({worst})")
        print(f"  the best: {json.dumps(choices[best])}")


if __name__ == "__main__":
    main()
