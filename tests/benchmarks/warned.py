"""Whether a warning is given where a suggestion is bad, and only there.

    python -m tests.benchmarks.warned

reads the stored curves of the standard tasks, the recorded sweeps of `ranges`, and the short trainings of `ablation`
and `budget`. A case is warned of if the curve or the short trainings have a warning, or if there is no suggestion.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lrfinder import NoSuggestionError
from lrfinder.curve import Context, Curve, Refined, curve_warnings, suggest
from tests.benchmarks import ablation, budget, measured
from tests.benchmarks.grid_search import load
from tests.benchmarks.quality import load_cases
from tests.benchmarks.ranges import CONDITIONS, PATH, RAW_TRUTH, TRUTH, curve_of, recorded_tasks
from tests.benchmarks.regret import Truth, load_truth
from tests.benchmarks.tasks import TASKS

__all__ = ["Case", "cases", "refined_cases", "row"]

BAD, GOOD = 0.25, 0.05  # regrets above and below


@dataclass(frozen=True, kw_only=True)
class Case:
    """A sweep with its regret."""

    scouted: bool
    regret: float
    warned: bool


def cases() -> Iterator[Case]:
    """Every stored sweep."""
    for case in load_cases():
        task = TASKS[case.name]
        context = measured.context_of(task, task.total_steps)
        for stored in case.measured["find"].values():
            yield _case(measured.as_curve(stored), context, case.truth, scouted=True)
    truths, tasks = load_truth(TRUTH) | load_truth(RAW_TRUTH), recorded_tasks()
    for name, entry in load(PATH).items():
        for label, condition in CONDITIONS.items():
            context = replace(measured.context_of(tasks[name], tasks[name].total_steps), val=condition.val)
            for losses in entry[label].values():
                yield _case(curve_of(tasks[name], condition, losses), context, truths[name], scouted=False)


def refined_cases() -> Iterator[Case]:
    """Every refined suggestion: on the standard tasks, and on those of `budget` with 600 steps."""
    for case in load_cases():
        task = TASKS[case.name]
        context = measured.context_of(task, task.total_steps)
        for seed, stored in case.measured["rungs"].items():
            curve = measured.as_curve(case.measured["find"][seed])
            found = ablation.outcome(stored, curve, context)
            yield _refined_case(found, stored["middle"], curve, context, case.truth)
    for each in budget.load_cases():
        found, _ = budget.outcome(each, 600)
        yield _refined_case(found, each.stored["middle"], each.curve, each.context, each.truth)


def _refined_case(found: Refined, middle: float, curve: Curve, context: Context, truth: Truth) -> Case:
    lr = middle if found.suggestion is None else found.suggestion.lr
    return Case(scouted=True, regret=truth.regret(lr), warned=bool(found.warnings or curve_warnings(curve, context)))


def _case(curve: Curve, context: Context, truth: Truth, *, scouted: bool) -> Case:
    try:
        lr = suggest("auto", curve, context).lr
    except NoSuggestionError:
        return Case(scouted=scouted, regret=1.0, warned=True)
    return Case(scouted=scouted, regret=truth.regret(lr), warned=bool(curve_warnings(curve, context)))


def row(label: str, found: list[Case]) -> str:
    """A row of the table."""
    bad, good = [each for each in found if each.regret > BAD], [each for each in found if each.regret < GOOD]
    shares = [sum(each.warned for each in group) / max(len(group), 1) for group in (bad, good)]
    return f"| {label} | {len(found)} | {len(bad)} | {shares[0]:.0%} | {len(good)} | {shares[1]:.0%} |"


def main() -> None:
    """Print the table."""
    found = list(cases())
    print(f"| sweeps | cases | regret over {BAD} | of these warned | regret under {GOOD} | of these warned |")
    print("|---|---|---|---|---|---|")
    print(row("scouted range", [each for each in found if each.scouted]))
    print(row("range given by hand, linear, validation loss", [each for each in found if not each.scouted]))
    print(row("all", found))
    print(row("refine, scouted range", list(refined_cases())))


if __name__ == "__main__":
    main()
