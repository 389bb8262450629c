"""What clipping at the threshold of `result.clip_norm()` costs and saves.

    python -m tests.benchmarks.clipping --measure   # trains, and writes clipping.json
    python -m tests.benchmarks.clipping --report

Each task is trained with OneCycle at the suggested learning rate and at three times it: without clipping, at multiples
of the 90 % quantile of the gradient norms up to the suggestion, and at the threshold of `clip_norm`. The rule was
chosen on the first two seeds; on the other two, only no clipping and `clip_norm` are compared.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lrfinder import LRFinder
from tests.benchmarks.regret import Truth, load_truth
from tests.benchmarks.tasks import TASKS, train
from tests.benchmarks.truth import PATH as TRUTH

__all__ = ["NAMES", "load", "table"]

RESULTS = Path(__file__).with_suffix(".json")
MULTIPLES = (1, 2, 3, 3.5, 4, 5, 10)  # of the quantile
PEAKS = (None, 0.95, 0.98, 1.0)  # quantiles of the norms below divergence; the threshold is not lower
RULES = tuple(itertools.product(MULTIPLES, PEAKS))
FACTORS = (1.0, 3.0)
CHOSEN_ON, HELD_OUT = ("0", "1"), ("2", "3")  # seeds
RULE, NONE = "clip_norm", "none"
UNCLIPPED = 30.0  # times the quantile: no step is clipped
# Tasks of at most some hundred cheap steps that do not clip by themselves, of several kinds and optimizers.
NAMES = (
    "digits_mlp_adam", "digits_mlp_sgd", "noisy_labels_mlp_sgd_momentum", "large_batch_mlp_nesterov",
    "wine_mlp_adagrad", "teacher_mlp_rmsprop", "spirals_mlp_nadam", "mixture_sgd_momentum",
    "ill_conditioned_sgd_momentum", "text_lstm_nadam", "digits_cnn_batchnorm_nesterov", "mnist1d_cnn_sgd",
)  # fmt: skip


def sweep(name: str, seed: str, lr: float | None) -> dict[str, Any]:
    """Return a task's learning rate, by default the suggested one, and what thresholds are made of."""
    setup = TASKS[name].build(int(seed))
    finder = LRFinder(setup.model, setup.optimizer, loss_fn=setup.loss_fn)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = finder.find(setup.train_loader, total_steps=TASKS[name].total_steps, grad_norms=True, progress=False)
    lr = result.suggestion.lr if lr is None else lr
    divergence, norms = result.landmarks.divergence, result.grad_norms
    below = norms[np.isfinite(norms) & (result.lrs <= divergence)]
    return {
        "lr": lr,
        "quantile": float(np.quantile(norms[result.lrs <= lr], 0.9)),
        "peaks": {str(peak): float(np.quantile(below, peak)) for peak in PEAKS if peak},
        RULE: result.clip_norm(lr).max_norm,
    }


def measure(name: str, stored: dict[str, Any]) -> dict[str, Any]:
    """Train a task at both learning rates, without clipping and at every threshold; what is stored is kept."""
    for seed in (*CHOSEN_ON, *HELD_OUT):
        entry = stored.setdefault(seed, {"runs": {}})
        if RULE not in entry:
            entry.update(sweep(name, seed, entry.get("lr")))
        multiples = map(str, MULTIPLES) if seed in CHOSEN_ON else ()
        for factor, threshold in itertools.product(FACTORS, (NONE, *multiples, RULE)):
            if f"{factor} {threshold}" not in entry["runs"]:
                entry["runs"][f"{factor} {threshold}"] = run(name, seed, factor, threshold, entry)
    return stored


def run(name: str, seed: str, factor: float, threshold: str, entry: dict[str, Any]) -> list[float | None]:
    """Train a task once; where a lower threshold clipped nothing, its losses are returned."""
    runs, norm = entry["runs"], norm_of(threshold, entry)
    lower = [runs.get(f"{factor} {multiple}") for multiple in MULTIPLES if multiple * entry["quantile"] <= norm]
    if threshold != NONE and runs[f"{factor} {NONE}"] in lower:
        return list(runs[f"{factor} {NONE}"])
    task = dataclasses.replace(TASKS[name], max_grad_norm=norm if math.isfinite(norm) else None)
    start, final = train(task, factor * entry["lr"], int(seed))
    return [start, final if math.isfinite(final) else None]


def norm_of(threshold: str, entry: dict[str, Any]) -> float:
    """Return the norm that gradients are clipped to."""
    if threshold == NONE:
        return math.inf
    return float(entry[RULE]) if threshold == RULE else float(threshold) * entry["quantile"]


def load() -> dict[str, Any]:
    """Return what was measured, by task."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


@cache
def truths() -> dict[str, Truth]:
    """Return the truth of every task."""
    return load_truth(TRUTH, "one_cycle")


def regret(name: str, final: float | None) -> float:
    """Return the regret of a final loss by the task's truth; 1 where the training diverged."""
    truth = truths()[name]
    best, start = float(np.mean(truth.best)), float(np.mean(truth.starts))
    return 1.0 if final is None else float(np.clip((final - best) / (start - best), 0.0, 1.0))


def regrets(stored: dict[str, Any], factor: float, threshold: str, seeds: tuple[str, ...] = CHOSEN_ON) -> list[float]:
    """Return the mean regret of each task's trainings."""
    return [
        float(np.mean([regret(name, entries[seed]["runs"][f"{factor} {threshold}"][1]) for seed in seeds]))
        for name, entries in stored.items()
    ]


def between(name: str, entry: dict[str, Any], factor: float, rule: tuple[float, float | None]) -> float:
    """Return the regret at a rule's threshold, linear in its logarithm between the measured multiples."""
    multiple, peak = rule
    norm = max(multiple, entry["peaks"][str(peak)] / entry["quantile"] if peak else 0.0)
    finals = [entry["runs"][f"{factor} {threshold}"][1] for threshold in (*map(str, MULTIPLES), NONE)]
    places, values = np.log([*MULTIPLES, UNCLIPPED]), [regret(name, final) for final in finals]
    return float(np.interp(math.log(norm), places, values))


def left_out(stored: dict[str, Any]) -> tuple[float, float]:
    """Return the mean regrets at both learning rates, by the rule with the lowest ones on the other tasks."""
    found = {
        (name, rule, factor): np.mean([between(name, entries[seed], factor, rule) for seed in CHOSEN_ON])
        for (name, entries), rule, factor in itertools.product(stored.items(), RULES, FACTORS)
    }
    chosen = {
        name: min(
            RULES, key=lambda rule: sum(found[other, rule, f] for other in stored if other != name for f in FACTORS)
        )
        for name in stored
    }
    one, three = (float(np.mean([found[name, chosen[name], factor] for name in stored])) for factor in FACTORS)
    return one, three


def table(stored: dict[str, Any]) -> str:
    """Return the table of regrets in Markdown."""
    lines = [
        "| clipping at | regret at the suggestion | at 3 times it | worst task at 3 times it |",
        "|---|---|---|---|",
    ]
    rows = [(NONE, NONE, CHOSEN_ON), *((f"{m} times the 90% quantile", str(m), CHOSEN_ON) for m in MULTIPLES)]
    rows += [(f"`{RULE}`", RULE, CHOSEN_ON), (f"{NONE}, seeds held out", NONE, HELD_OUT)]
    for label, threshold, seeds in [*rows, (f"`{RULE}`, seeds held out", RULE, HELD_OUT)]:
        one, three = (regrets(stored, factor, threshold, seeds) for factor in FACTORS)
        lines.append(f"| {label} | {np.mean(one):.3f} | {np.mean(three):.3f} | {max(three):.2f} |")
    one, three = left_out(stored)
    return "\n".join([*lines, f"| a rule chosen without the task | {one:.3f} | {three:.3f} | |"])


def by_task(stored: dict[str, Any]) -> str:
    """Return what `clip_norm` costs at the suggestion and what is left at three times it, task by task, in Markdown."""
    seeds = (*CHOSEN_ON, *HELD_OUT)
    columns = [regrets(stored, factor, threshold, seeds) for factor in FACTORS for threshold in (NONE, RULE)]
    lines = ["| task | none | `clip_norm` | none, 3 times | `clip_norm`, 3 times |", "|---|---|---|---|---|"]
    for name, *values in zip(stored, *columns, strict=True):
        lines.append(f"| {name} | {' | '.join(f'{value:.3f}' for value in values)} |")
    return "\n".join(lines)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--report", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.measure:
        stored = load()
        for name in NAMES:
            stored[name] = measure(name, stored.get(name, {}))
            RESULTS.write_text(json.dumps(stored) + "\n")
            print(name, flush=True)
    if args.report:
        print(table(load()), by_task(load()), sep="\n\n")


if __name__ == "__main__":
    main()
