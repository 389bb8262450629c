"""What clipping at the threshold of `result.clip_norm()` costs and saves.

    python -m tests.benchmarks.clipping --measure   # trains, and writes clipping.json
    python -m tests.benchmarks.clipping --report

Each task is trained with OneCycle at the suggested learning rate and at three times it, without clipping and with
clipping at multiples of the 90 % quantile of the gradient norms at stable learning rates.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lrfinder import LRFinder
from lrfinder.curve import clipping
from tests.benchmarks.regret import load_truth
from tests.benchmarks.tasks import TASKS, train
from tests.benchmarks.truth import PATH as TRUTH

__all__ = ["NAMES", "load", "table"]

RESULTS = Path(__file__).with_suffix(".json")
MULTIPLES = (1, 2, 3, 5, 10)  # of the quantile
FACTORS = (1.0, 3.0)
SEEDS = (0, 1)
# Tasks of at most some hundred cheap steps that do not clip by themselves, of several kinds and optimizers.
NAMES = (
    "digits_mlp_adam", "digits_mlp_sgd", "noisy_labels_mlp_sgd_momentum", "large_batch_mlp_nesterov",
    "wine_mlp_adagrad", "teacher_mlp_rmsprop", "spirals_mlp_nadam", "mixture_sgd_momentum",
    "ill_conditioned_sgd_momentum", "text_lstm_nadam", "digits_cnn_batchnorm_nesterov", "mnist1d_cnn_sgd",
)  # fmt: skip


def suggested(name: str, seed: int) -> dict[str, Any]:
    """Return the suggested learning rate of a task, and the quantile of its gradient norms."""
    setup = TASKS[name].build(seed)
    finder = LRFinder(setup.model, setup.optimizer, loss_fn=setup.loss_fn)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = finder.find(setup.train_loader, total_steps=TASKS[name].total_steps, grad_norms=True, progress=False)
    found = result.suggestion.lr
    return {"lr": found, "quantile": result.clip_norm(found).max_norm / clipping.ABOVE_QUANTILE, "runs": {}}


def measure(name: str, stored: dict[str, Any]) -> dict[str, Any]:
    """Train a task at both learning rates, without clipping and at every threshold; what is stored is kept."""
    for seed in SEEDS:
        entry = stored.setdefault(str(seed), None) or suggested(name, seed)
        stored[str(seed)] = entry
        for factor, multiple in itertools.product(FACTORS, ("none", *map(str, MULTIPLES))):
            if f"{factor} {multiple}" not in entry["runs"]:
                threshold = None if multiple == "none" else float(multiple) * entry["quantile"]
                task = dataclasses.replace(TASKS[name], max_grad_norm=threshold)
                start, final = train(task, factor * entry["lr"], seed)
                entry["runs"][f"{factor} {multiple}"] = [start, final if math.isfinite(final) else None]
    return stored


def load() -> dict[str, Any]:
    """Return what was measured, by task."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def regrets(stored: dict[str, Any], factor: float, multiple: str) -> dict[str, float]:
    """Return the mean regret of each task's trainings, by its truth."""
    truths, found = load_truth(TRUTH, "one_cycle"), {}
    for name, seeds in stored.items():
        best, start = float(np.mean(truths[name].best)), float(np.mean(truths[name].starts))
        finals = [entry["runs"][f"{factor} {multiple}"][1] for entry in seeds.values()]
        each = [1.0 if final is None else np.clip((final - best) / (start - best), 0.0, 1.0) for final in finals]
        found[name] = float(np.mean(each))
    return found


def chosen(stored: dict[str, Any]) -> str:
    """Return the multiple with the lowest mean regret over both learning rates, on these tasks."""
    costs = {m: sum(sum(regrets(stored, factor, m).values()) for factor in FACTORS) for m in map(str, MULTIPLES)}
    return min(costs, key=costs.__getitem__)


def left_out(stored: dict[str, Any]) -> tuple[float, float]:
    """Return the mean regrets at both learning rates with the multiple chosen without the scored task."""
    picks = {name: chosen({other: stored[other] for other in stored if other != name}) for name in stored}
    one, three = (
        float(np.mean([regrets({name: stored[name]}, factor, picks[name])[name] for name in stored]))
        for factor in FACTORS
    )
    return one, three


def table(stored: dict[str, Any]) -> str:
    """Return the table of regrets in Markdown."""
    lines = [
        "| clipping at | regret at the suggestion | at 3 times it | worst task at 3 times it |",
        "|---|---|---|---|",
    ]
    for multiple in ("none", *map(str, MULTIPLES)):
        one, three = (list(regrets(stored, factor, multiple).values()) for factor in FACTORS)
        label = "none" if multiple == "none" else f"{multiple} times the 90% quantile"
        lines.append(f"| {label} | {np.mean(one):.3f} | {np.mean(three):.3f} | {max(three):.2f} |")
    one, three = left_out(stored)
    return "\n".join([*lines, f"| a multiple chosen without the task | {one:.3f} | {three:.3f} | |"])


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
        print(table(load()))


if __name__ == "__main__":
    main()
