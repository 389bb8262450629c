"""What a budget of steps buys: `refine`, a grid search and successive halving, on the same tasks.

    python -m tests.benchmarks.budget --record                  # short trainings into budget.json: minutes
    python -m tests.benchmarks.budget [--picture budget.png]    # the table

The short trainings of a task have lengths of 4 to 1,200 steps, the whole schedule in them. Refining tries four learning
rates about the one of `auto`, after a sweep. The two searches try eight: 1.5 decades about the usual default without a
sweep, or from 1 1/3 decades below `auto`'s to one above it, after a sweep. All of them score on the same held-out
batches and correct for the length in the same way.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from lrfinder.curve import ladder as refining
from lrfinder.curve.curve import Context, Curve
from lrfinder.curve.ladder import PER_DECADE, largest_rise
from lrfinder.curve.rules import suggest
from lrfinder.search import FEWEST_HELD_OUT
from lrfinder.training.held_out import held_out_count
from tests.benchmarks.grid_search import load, save
from tests.benchmarks.measured import HELD_OUT, as_curve, context_of, find
from tests.benchmarks.raw_targets import PATH as RAW_TRUTH
from tests.benchmarks.regret import Truth, load_truth
from tests.benchmarks.side_by_side import Copy, SideBySide, batches_of
from tests.benchmarks.tasks import TASKS, Task, fingerprint
from tests.benchmarks.tasks.raw_targets import RAW_TARGETS
from tests.benchmarks.tasks.small import SHORT
from tests.benchmarks.truth import PATH as TRUTH
from tests.benchmarks.under_schedules import PATH as SHORT_TRUTH

__all__ = ["BUDGETS", "PATH", "WAYS", "load_cases", "points", "recorded_tasks", "table"]

PATH = Path(__file__).with_name("budget.json")
SEEDS = (0, 1)
LENGTHS = (4, 9, 18, 37, 75, 150, 300, 600, 1200)  # of the short trainings, each about half of the next
BUDGETS = (150, 300, 600, 1200, 2400, 4800)  # four of the length that is three places further
RUNGS = range(6, -6, -1)  # thirds of a decade about the learning rate of `auto`
PLACES = range(8)  # of the searches, about the usual learning rate
STANDARD = (
    "autoencoder_adam",
    "cancer_logistic_adam",
    "deep_tanh_sgd_momentum",
    "diabetes_linear_sgd",
    "digits_mlp_adam",
    "digits_mlp_sgd",
    "digits_softmax_sgd",
    "full_batch_linear_adam",
    "ill_conditioned_sgd_momentum",
    "iris_softmax_sgd",
    "teacher_mlp_rmsprop",
    "ten_thousand_steps_sgd_momentum",
    "tiny_batch_mlp_adam",
)
"""The standard tasks that train side by side with cheap steps."""
GROUPS = {"standard tasks": STANDARD, "targets as they are": tuple(RAW_TARGETS), "small trainings": tuple(SHORT)}


def recorded_tasks() -> dict[str, Task]:
    """All tasks of this table."""
    return RAW_TARGETS | SHORT | {name: TASKS[name] for name in STANDARD}


def usual(task: Task, place: int) -> float:
    """A learning rate of the searches without a sweep."""
    return task.usual_lr * 10 ** (3 * place / (len(PLACES) - 1) - 1.5)


# ------------------------------------------------------------------------------------------------------------ record
def record(task: Task) -> dict[str, Any]:
    """The curves of two seeds, and their short trainings of all lengths up to the task's own."""
    entry: dict[str, Any] = {} if task.name in SHORT else {"fingerprint": fingerprint(task)}
    lrs = []
    for seed in SEEDS:
        curve = find(task, seed)
        middle = suggest("auto", as_curve(curve), context_of(task, task.total_steps)).lr
        entry[str(seed)] = {"find": curve, "middle": float(f"{middle:.6g}"), "short": {}}
        lrs.append({str(rung): middle * 10 ** (rung / PER_DECADE) for rung in RUNGS})
        lrs[-1] |= {f"usual {place}": usual(task, place) for place in PLACES}
    for length in sorted({min(length, task.total_steps) for length in LENGTHS}):
        copies = [Copy(lr=lr, seed=seed) for seed in SEEDS for lr in lrs[SEEDS.index(seed)].values()]
        before, after, rises = short_trainings(task, copies, length)
        places = [(seed, name) for seed in SEEDS for name in lrs[SEEDS.index(seed)]]
        for (seed, name), start, end, rise in zip(places, before, after, rises, strict=True):
            here = entry[str(seed)]["short"].setdefault(str(length), {"start": _short(float(np.mean(start)))})
            here[name] = [_short(float(np.mean(end))), *map(_short, rise)]
    return entry


def short_trainings(task: Task, copies: Sequence[Copy], steps: int) -> tuple[Any, Any, list[tuple[float, float]]]:
    """Held-out losses before and after, shape (copies, held-out batches), and the rises of the training losses."""
    seeds = list(dict.fromkeys(copy.seed for copy in copies))
    which = torch.tensor([seeds.index(copy.seed) for copy in copies])
    held_out, rows = zip(*(_split(task, seed, steps) for seed in seeds), strict=True)
    network = SideBySide(replace(task, total_steps=steps), copies)

    def score() -> Any:
        return torch.stack(
            [network.losses(torch.stack(each)[which]) for each in zip(*held_out, strict=True)], 1
        ).numpy()

    before = score()
    losses = network.train(torch.stack([next(stream) for stream in rows])[which] for _ in range(steps)).numpy().T
    after = np.where(np.isfinite(losses).all(1)[:, None], score(), np.inf)
    rises = [largest_rise(each) if np.isfinite(each).all() else (math.inf, math.inf) for each in losses]
    return before, after, rises


def _split(task: Task, seed: int, steps: int) -> tuple[list[Tensor], Iterator[Tensor]]:
    """The held-out batches and the endless rest of the first epoch, as refining splits it."""
    epoch = len(task.parts().train[0]) // min(task.batch_size, len(task.parts().train[0]))
    first = list(itertools.islice(batches_of(task, seed), min(epoch, steps + HELD_OUT)))
    count = held_out_count(len(first), steps, HELD_OUT)
    return first[: count or HELD_OUT], itertools.cycle(first[count:])


def held_out_batches(task: Task, steps: int) -> int:
    """How many batches the short trainings leave out."""
    epoch = len(task.parts().train[0]) // min(task.batch_size, len(task.parts().train[0]))
    return held_out_count(min(epoch, steps + HELD_OUT), steps, HELD_OUT)


def _short(number: float) -> float | None:
    return float(f"{number:.5g}") if math.isfinite(number) else None


# ------------------------------------------------------------------------------------------------------------- score
@dataclass(frozen=True, kw_only=True)
class Case:
    """A task and a seed: what was recorded, and how a learning rate is scored.

    Args:
        task: The task.
        truth: Its grid search.
        curve: The sweep.
        stored: What was recorded with the seed.
    """

    task: Task
    truth: Truth
    curve: Curve
    stored: dict[str, Any]

    @property
    def context(self) -> Context:
        """What the finder knows of the training."""
        return context_of(self.task, self.task.total_steps)

    def length(self, steps: int) -> int:
        """Of a short training, which is no longer than the training."""
        return min(steps, self.task.total_steps)

    def short(self, name: str, steps: int) -> list[float]:
        """The score of a short training, and how far its loss rose on the way; infinite where it diverged."""
        return [
            math.inf if number is None else number for number in self.stored["short"][str(self.length(steps))][name]
        ]

    def scaled(self, lr: float, steps: int) -> float:
        """A learning rate that suits a short training, for the whole one."""
        return float(lr * (self.length(steps) / self.task.total_steps) ** refining.PROBE_LENGTH_POWER)


def load_cases(names: Iterable[str] | None = None) -> list[Case]:
    """All that was recorded of these tasks, by default of all."""
    entries, tasks = load(PATH), recorded_tasks()
    truths = load_truth(TRUTH) | load_truth(RAW_TRUTH) | load_truth(SHORT_TRUTH)
    return [
        Case(task=tasks[name], truth=truths[name], curve=as_curve(entry[seed]["find"]), stored=entry[seed])
        for name, entry in entries.items()
        if names is None or name in names
        for seed in map(str, SEEDS)
    ]


Found = tuple[float, int]
"""A learning rate, and the steps that were spent on it without those of the sweep."""


def outcome(case: Case, budget: int) -> tuple[refining.Refined, int]:
    """What refining makes of the stored short trainings, and the steps that it spends."""
    steps, spent = case.length(LENGTHS[BUDGETS.index(budget) + 3]), 0

    def probe(_: int, lr: float) -> refining.ShortTraining:
        nonlocal spent
        spent += steps
        rung = round(PER_DECADE * math.log10(lr / case.stored["middle"]))
        score, *rise = case.short(str(max(rung, min(RUNGS))), steps)
        # In place of the losses what is looked at in them.
        return refining.ShortTraining(score, np.array(rise))

    start, few = case.stored["short"][str(steps)]["start"], held_out_batches(case.task, steps) < FEWEST_HELD_OUT
    with patch.multiple(refining, largest_rise=tuple):
        found = refining.refine(probe, start, case.curve, case.context, steps, reused_batches=lambda: few)
    return found, spent


def refined(case: Case, budget: int) -> Found:
    """What refining finds."""
    found, spent = outcome(case, budget)
    return (case.stored["middle"] if found.suggestion is None else found.suggestion.lr), spent


def grid_search(case: Case, budget: int, lrs: dict[str, float]) -> Found:
    """The best of eight learning rates, each in a short training of an eighth of the budget."""
    steps = LENGTHS[BUDGETS.index(budget) + 2]
    best = min(lrs, key=lambda name: case.short(name, steps)[0])
    return case.scaled(lrs[best], steps), len(lrs) * case.length(steps)


def successive_halving(case: Case, budget: int, lrs: dict[str, float]) -> Found:
    """The best of two learning rates, the best of four in trainings half as long, those the best of eight."""
    first, spent, left = BUDGETS.index(budget), 0, list(lrs)
    for steps in LENGTHS[first : first + 3]:
        spent += len(left) * case.length(steps)
        left = sorted(left, key=lambda name: case.short(name, steps)[0])[: len(left) // 2]
    return case.scaled(lrs[left[0]], steps), spent


def about_auto(case: Case) -> dict[str, float]:
    """Eight learning rates about the one of `auto`."""
    return {str(rung): case.stored["middle"] * 10 ** (rung / PER_DECADE) for rung in range(-4, 4)}


def about_usual(case: Case) -> dict[str, float]:
    """Eight learning rates about the usual one."""
    return {f"usual {place}": usual(case.task, place) for place in PLACES}


WAYS: dict[str, tuple[bool, Callable[[Case, int], Found]]] = {
    "refine": (True, refined),
    "grid search after a sweep": (True, lambda case, budget: grid_search(case, budget, about_auto(case))),
    "successive halving after a sweep": (True, lambda case, budget: successive_halving(case, budget, about_auto(case))),
    "grid search": (False, lambda case, budget: grid_search(case, budget, about_usual(case))),
    "successive halving": (False, lambda case, budget: successive_halving(case, budget, about_usual(case))),
}
"""By name: whether a sweep comes before it, and what it finds."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """How a way to spend a budget did.

    Args:
        steps: Mean number of steps, with those of the sweep.
        means: Mean regret of each task.
    """

    steps: float
    means: dict[str, float]

    def __str__(self) -> str:
        """Mean regret and worst task."""
        return f"{np.mean(list(self.means.values())):.3f}, {max(self.means.values()):.2f}"


def point(cases: Sequence[Case], found: Sequence[Found]) -> Point:
    """Score what was found."""
    regrets: dict[str, list[float]] = {}
    for case, (lr, _) in zip(cases, found, strict=True):
        regrets.setdefault(case.task.name, []).append(case.truth.regret(lr))
    means = {name: float(np.mean(values)) for name, values in regrets.items()}
    return Point(steps=float(np.mean([spent for _, spent in found])), means=means)


def points(cases: Sequence[Case]) -> dict[str, list[Point]]:
    """How each way does with each budget; `auto` spends none."""
    swept = [int(case.stored["find"]["steps"]) for case in cases]
    found = {"auto": [point(cases, [(_auto(case), steps) for case, steps in zip(cases, swept, strict=True)])]}
    for name, (after_sweep, way) in WAYS.items():
        found[name] = []
        for budget in BUDGETS:
            lrs = [way(case, budget) for case in cases]
            spent = [(lr, steps + after_sweep * sweep) for (lr, steps), sweep in zip(lrs, swept, strict=True)]
            found[name].append(point(cases, spent))
    return found


def _auto(case: Case) -> float:
    return suggest("auto", case.curve, case.context).lr


def table(found: dict[str, list[Point]]) -> str:
    """The table in Markdown: mean regret and worst task of each way (row) with each budget (column)."""
    lines = [f"| budget | {' | '.join(f'{budget:,}' for budget in BUDGETS)} |", "|---|" + "---|" * len(BUDGETS)]
    for name, here in found.items():
        cells = [str(each) for each in here] if len(here) > 1 else [str(here[0])] * len(BUDGETS)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(found: dict[str, list[Point]], path: Path) -> None:
    """Save the mean regret against the steps, those of the sweep among them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for index, (name, here) in enumerate(found.items()):
        steps, means = [each.steps for each in here], [np.mean(list(each.means.values())) for each in here]
        axes.plot(steps, means, "o--" if not WAYS.get(name, (True,))[0] else "o-", color=f"C{index}", label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    ticks = [100, 200, 500, 1000, 2000, 5000]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    ticks = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("optimizer steps spent, those of the sweep among them")
    axes.set_ylabel("mean regret")
    axes.grid(color="0.9")
    axes.legend()
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Record what is missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="record the short trainings that are missing")
    parser.add_argument("--picture", type=Path, help="where to save the picture")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.record:
        entries = load(PATH)
        for name, task in recorded_tasks().items():
            if name not in entries:
                entries[name] = record(task)
                save(PATH, "python -m tests.benchmarks.budget --record", entries)
        return
    for label, names in GROUPS.items():
        found = points(load_cases(names))
        count = len(found["auto"][0].means)
        print(f"{label} ({count})\n\n{table(found)}\n")
    found = points(load_cases())
    print(f"all\n\n{table(found)}")
    if arguments.picture:
        draw(found, arguments.picture)


if __name__ == "__main__":
    main()
