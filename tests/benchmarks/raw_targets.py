"""How `auto` and `refine` do on targets as they are, with a mean and a scale, and on data of a few samples.

    python -m tests.benchmarks.raw_targets --truth     # grid searches into raw_targets.json: minutes
    python -m tests.benchmarks.raw_targets             # the table, from fresh sweeps: a minute
    python -m tests.benchmarks.raw_targets --refine    # with refine: minutes

Regret is measured from the loss of the best constant prediction: a network that has died counts as no progress.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lrfinder import LRFinder, NoSuggestionError, RangeTestResult
from tests.benchmarks.grid_search import load, save, search
from tests.benchmarks.regret import Truth, load_truth
from tests.benchmarks.tasks import Task, fingerprint
from tests.benchmarks.tasks.raw_targets import RAW_TARGETS, best_constant_loss

__all__ = ["PATH", "find", "regrets", "table"]

PATH = Path(__file__).with_name("raw_targets.json")
SEEDS = (0, 1, 2)


def find(task: Task, seed: int, **options: Any) -> RangeTestResult:
    """A range test on the task, its warnings kept in the result and not shown."""
    setup = task.build(seed)
    finder = LRFinder(setup.model, setup.optimizer, loss_fn=setup.loss_fn, max_grad_norm=setup.max_grad_norm)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return finder.find(setup.train_loader, total_steps=task.total_steps, progress=False, **options)


def suggested(result: RangeTestResult) -> float | None:
    """The suggested learning rate, None where there is none."""
    try:
        return result.suggestion.lr
    except NoSuggestionError:
        return None


def regrets(truths: dict[str, Truth], **options: Any) -> dict[str, list[float]]:
    """The regrets of each task's sweeps."""
    return {
        name: [truths[name].regret(suggested(find(task, seed, **options))) for seed in SEEDS]
        for name, task in RAW_TARGETS.items()
    }


def table(rows: dict[str, dict[str, list[float]]], truths: dict[str, Truth]) -> str:
    """The table in Markdown: a row a task, a column of mean regrets for each way to choose."""
    lines = [f"| task | best lr | {' | '.join(rows)} |", f"|---|---|{'---|' * len(rows)}"]
    for name in RAW_TARGETS:
        means = " | ".join(f"{np.mean(found[name]):.2f}" for found in rows.values())
        lines.append(f"| {name.replace('_', ' ')} | {truths[name].best_lr:.1e} | {means} |")
    means_of = {label: [float(np.mean(each)) for each in found.values()] for label, found in rows.items()}
    total = " | ".join(f"{np.mean(means):.3f}, {max(means):.2f}" for means in means_of.values())
    return "\n".join([*lines, f"| **mean, worst task** | | {total} |"])


def main() -> None:
    """Search, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truth", action="store_true", help="run the grid searches that are missing")
    parser.add_argument("--refine", action="store_true", help="add a column for refine")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.truth:
        entries = load(PATH)
        for name, task in RAW_TARGETS.items():
            if entries.get(name, {}).get("fingerprint") != fingerprint(task):
                found = search(task, ["one_cycle"], SEEDS, worst=best_constant_loss(task))
                entries[name] = {"fingerprint": fingerprint(task), **found}
                save(PATH, "python -m tests.benchmarks.raw_targets --truth", entries)
        return
    truths = load_truth(PATH)
    rows = {"auto": regrets(truths)}
    if arguments.refine:
        rows["refine"] = regrets(truths, refine=True)
    print(table(rows, truths))


if __name__ == "__main__":
    main()
