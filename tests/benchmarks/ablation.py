"""What each part of refining buys: the regret without it.

    python -m tests.benchmarks.ablation

prints the table from `truth.json` and `measured.json`. Refining climbs stored short trainings (the measure `rungs`), so
that each variant sees the same ones; `refine` in the main table is `LRFinder.find(refine=True)` itself.
"""

from __future__ import annotations

import math
from typing import Any
from unittest.mock import patch

import numpy as np

from lrfinder.curve import ladder as refining
from lrfinder.curve.curve import Context, Curve
from lrfinder.search import FEWEST_HELD_OUT
from tests.benchmarks import measured
from tests.benchmarks.quality import Case, Row, load_cases, suggested
from tests.benchmarks.quality import table as in_markdown
from tests.benchmarks.tasks import TASKS

__all__ = ["VARIANTS", "climb", "outcome", "rows"]


def _from_divergence(curve: Curve, context: Context, top: float) -> float:
    return top / 10 ** (refining.RUNGS_ABOVE / refining.PER_DECADE)


VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "refine": ({}, {}),
    "scored on validation data": ({"scores": "val"}, {}),
    "scored on the last training losses": ({"scores": "train"}, {}),
    "held-out data trusted however little": ({"fewest": 0}, {}),
    "unsteady rates kept": ({}, {"UNSTEADY_SHARE": math.inf}),
    "unsteady rates passed over, without a distance": ({}, {"BELOW_UNSTEADY": 1.0}),
    "a rise counts though it pays": ({}, {"RISE_THAT_MAY_PAY": -1.0}),
    "short trainings that only rise tell something": ({}, {"RISE_OF_LOST": math.inf}),
    "without the correction for the length": ({}, {"PROBE_LENGTH_POWER": 0.0}),
    "without the tie rule": ({}, {"TIE": 0.0}),
    "without the parabola": ({}, {"_vertex": lambda gains: 0.0}),
    "without the cap below divergence": ({}, {"DIVERGENCE_MARGIN": 1e-9}),
    "from divergence down, not from auto": ({}, {"_own_lr": _from_divergence}),
    "three probes": ({}, {"MOST_PROBES": 3}),
    "two probes": ({}, {"MOST_PROBES": 2}),
    "annealed, seed 0": ({"seeds": ("0",)}, {}),
    "not annealed, seed 0": ({"seeds": ("0",), "rungs": "constant rungs"}, {}),
}
"""How the stored trainings are read, and what is put in the place of names in `lrfinder.curve.ladder`."""


def climb(
    case: Case,
    *,
    rungs: str = "rungs",
    scores: str = "batches",
    fewest: int = FEWEST_HELD_OUT,
    seeds: tuple[str, ...] | None = None,
    **changed: Any,
) -> list[float | None]:
    """The rates that refining gives on the stored short trainings, one per seed."""
    found = []
    task = TASKS[case.name]
    context = measured.context_of(task, task.total_steps)
    for seed, stored in case.measured[rungs].items():
        if seeds is None or seed in seeds:
            curve = measured.as_curve(case.measured["find"][seed])
            with patch.multiple(refining, largest_rise=tuple, **changed):
                suggestion = outcome(stored, curve, context, scores, fewest).suggestion
            found.append(stored["middle"] if suggestion is None else suggestion.lr)
    return found


def outcome(
    stored: dict[str, Any], curve: Curve, context: Context, scores: str = "batches", fewest: int = FEWEST_HELD_OUT
) -> refining.Refined:
    """What refining makes of the stored short trainings."""

    def probe(_: int, lr: float) -> refining.ShortTraining:
        rung = round(refining.PER_DECADE * math.log10(lr / stored["middle"]))
        entry = stored.get(str(rung), {})
        score = entry.get(scores, [0.0, None])[1]
        rise = [math.inf if number is None else number for number in entry.get("rise", [None, None])]
        # In place of the losses what is looked at in them.
        return refining.ShortTraining(math.inf if score is None else score, np.array(rise))

    start = next(entry[scores][0] for entry in stored.values() if isinstance(entry, dict) and scores in entry)
    reused = scores == "batches" and stored["held_out"] < fewest
    with patch.object(refining, "largest_rise", tuple):
        return refining.refine(probe, start, curve, context, stored["steps"], reused_batches=lambda: reused)


def rows(cases: list[Case]) -> list[Row]:
    """A row for each variant, and two for `auto`."""
    chosen = {
        "auto": lambda case: suggested("auto", case, horizon=True),
        "auto on 130 steps from 1e-7 to 10, without a scout": lambda case: list(case.measured["unscouted"].values()),
    }
    for name, (read, changed) in VARIANTS.items():
        chosen[name] = lambda case, read=read, changed=changed: climb(case, **read, **changed)
    found = []
    for name, choose in chosen.items():
        rates = {case.name: choose(case) for case in cases}
        regrets = {case.name: [case.truth.regret(rate) for rate in rates[case.name]] for case in cases}
        decades = [case.truth.distance(rate) for case in cases for rate in rates[case.name] if rate is not None]
        found.append(Row(name=name, regrets=regrets, decades=decades, steps=float("nan")))
    return found


def main() -> None:
    """Print the table."""
    found = rows(load_cases())
    print(in_markdown(found).replace(" nan |", " |"))
    for row in found:
        worst = sorted(row.means.items(), key=lambda item: -item[1])[:4]
        print(
            f"{row.name}: {np.mean(list(row.means.values())):.4f}, worst", ", ".join(f"{n} {r:.2f}" for n, r in worst)
        )


if __name__ == "__main__":
    main()
