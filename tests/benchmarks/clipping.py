"""What clipping at the threshold of `result.clip_norm()` costs and saves.

    python -m tests.benchmarks.clipping --measure   # trains, and writes clipping.json
    python -m tests.benchmarks.clipping --report

Each task is trained with OneCycle at the suggested learning rate and at three times it, without clipping and with
clipping at a quantile of the gradient norms. A training that ends above the loss before it counts as diverged.
"""

from __future__ import annotations

import argparse
import dataclasses
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
QUANTILES = (0.5, 0.9, 1.0)
FACTORS = (1.0, 3.0)
SEEDS = (0, 1)
# Tasks of at most some hundred cheap steps that do not clip by themselves, of several kinds and optimizers.
NAMES = (
    "digits_mlp_adam", "digits_mlp_sgd", "noisy_labels_mlp_sgd_momentum", "large_batch_mlp_nesterov",
    "wine_mlp_adagrad", "teacher_mlp_rmsprop", "spirals_mlp_nadam", "mixture_sgd_momentum",
    "ill_conditioned_sgd_momentum", "text_lstm_nadam", "digits_cnn_batchnorm_nesterov", "mnist1d_cnn_sgd",
)  # fmt: skip


def suggested(name: str, seed: int) -> dict[str, Any]:
    """Return the suggestion of a task, and the thresholds at each quantile."""
    setup = TASKS[name].build(seed)
    finder = LRFinder(setup.model, setup.optimizer, loss_fn=setup.loss_fn)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = finder.find(setup.train_loader, total_steps=TASKS[name].total_steps, grad_norms=True, progress=False)
    found, thresholds = result.suggestion.lr, {}
    before = clipping.QUANTILE
    for quantile in QUANTILES:
        clipping.QUANTILE = quantile
        thresholds[str(quantile)] = result.clip_norm(found).max_norm
    clipping.QUANTILE = before
    return {"lr": found, "thresholds": thresholds}


def measure(name: str) -> dict[str, Any]:
    """Train a task at both learning rates, without clipping and at every threshold."""
    found: dict[str, Any] = {}
    for seed in SEEDS:
        advice = suggested(name, seed)
        runs: dict[str, Any] = {}
        for factor in FACTORS:
            for quantile in ("none", *advice["thresholds"]):
                threshold = None if quantile == "none" else advice["thresholds"][quantile]
                task = dataclasses.replace(TASKS[name], max_grad_norm=threshold)
                start, final = train(task, factor * advice["lr"], seed)
                runs[f"{factor} {quantile}"] = [start, final if math.isfinite(final) else None]
        found[str(seed)] = advice | {"runs": runs}
    return found


def load() -> dict[str, Any]:
    """Return what was measured, by task."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def regrets(stored: dict[str, Any], factor: float, quantile: str) -> list[float]:
    """Return the regret of each training, by the truth of its task."""
    truths, found = load_truth(TRUTH, "one_cycle"), []
    for name, seeds in stored.items():
        best, start = float(np.mean(truths[name].best)), float(np.mean(truths[name].starts))
        for entry in seeds.values():
            final = entry["runs"][f"{factor} {quantile}"][1]
            found.append(1.0 if final is None else float(np.clip((final - best) / (start - best), 0.0, 1.0)))
    return found


def table(stored: dict[str, Any]) -> str:
    """Return the table of regrets and diverged trainings, in Markdown."""
    count = sum(len(seeds) for seeds in stored.values())
    head = f"| clipping at | regret at the suggestion | at 3 times it | diverged at 3 times it, of {count} |"
    lines = [head, "|---|---|---|---|"]
    for quantile in ("none", *map(str, QUANTILES)):
        one, three = (regrets(stored, factor, quantile) for factor in FACTORS)
        diverged = sum(regret > 0.9 for regret in three)
        label = "none" if quantile == "none" else f"the {float(quantile):.0%} quantile"
        lines.append(f"| {label} | {np.mean(one):.3f} | {np.mean(three):.3f} | {diverged} |")
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
            if name not in stored:
                stored[name] = measure(name)
                RESULTS.write_text(json.dumps(stored) + "\n")
                print(name, flush=True)
    if args.report:
        print(table(load()))


if __name__ == "__main__":
    main()
