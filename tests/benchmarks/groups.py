"""Learning rates of parameter groups in fine-tuning: one for all, fixed ratios, or one found for each group.

    python -m tests.benchmarks.groups --measure   # trains, and writes groups.json
    python -m tests.benchmarks.groups --report

MiniLM and EfficientNet-Lite0 with a new head are trained with OneCycle at what each strategy gives. Regret is measured
from the best single learning rate of the grid search, so that it is negative where groups do better than that.
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lrfinder import LRFinder, find_each_group, make_scheduler
from tests.benchmarks.regret import load_truth
from tests.benchmarks.tasks import TASKS, endless
from tests.benchmarks.tasks.task import Setup
from tests.benchmarks.truth import PATH as TRUTH

__all__ = ["NAMES", "STRATEGIES", "load", "table"]

RESULTS = Path(__file__).with_suffix(".json")
NAMES = ("minilm_all_layers_adamw", "efficientnet_all_layers_sgd_momentum")
SEEDS = (0, 1)
STRATEGIES = {
    "one lr for all groups": {"body": 1.0, "head": 1.0},
    "head at ten times the body": {"body": 0.1, "head": 1.0},
    "tenfold ladder: first layers, body, head": {"first": 0.01, "body": 0.1, "head": 1.0},
    "found for each group: body, head": {"body": 1.0, "head": 1.0},
    "found for each group: first layers, body, head": {"first": 1.0, "body": 1.0, "head": 1.0},
}


def part_of(name: str, parts: dict[str, float]) -> str:
    """Return the part of the network that a parameter belongs to."""
    layer = name.partition(".")[0]
    if layer in {"head", "_fc"}:
        return "head"
    return "first" if "first" in parts and layer in {"words", "positions", "norm", "_conv_stem", "_bn0"} else "body"


def with_groups(setup: Setup, task: Any, parts: dict[str, float]) -> torch.optim.Optimizer:
    """Return an optimizer of the task's kind with a group for each part, at the ratios given."""
    found: dict[str, list[nn.Parameter]] = {part: [] for part in parts}
    for name, parameter in setup.model.named_parameters():
        if parameter.requires_grad:
            found[part_of(name, parts)].append(parameter)
    groups = [
        {"params": found[part], "lr": ratio * task.usual_lr, "name": part}
        for part, ratio in parts.items()
        if found[part]
    ]
    return getattr(torch.optim, task.optimizer)(groups, lr=task.usual_lr, **task.options)


def group_lrs(name: str, strategy: str, seed: int) -> list[float]:
    """Return the learning rate of each group by a strategy."""
    task, parts = TASKS[name], STRATEGIES[strategy]
    setup = task.build(seed)
    finder = LRFinder(setup.model, with_groups(setup, task, parts), loss_fn=setup.loss_fn)
    options: dict[str, Any] = {"total_steps": task.total_steps, "progress": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if strategy.startswith("found"):
            return find_each_group(finder, setup.train_loader, **options).group_lrs()
        return finder.find(setup.train_loader, **options).group_lrs()


def train(name: str, strategy: str, lrs: list[float], seed: int) -> float:
    """Return the validation loss after a training with OneCycle at these peak learning rates."""
    task = TASKS[name]
    setup = task.build(seed)
    optimizer = with_groups(setup, task, STRATEGIES[strategy])
    object.__setattr__(setup, "optimizer", optimizer)
    scheduler = make_scheduler(optimizer, "one_cycle", lrs, total_steps=task.total_steps)
    batches = endless(setup)
    for _ in range(task.total_steps):
        if not math.isfinite(float(setup.train_step(next(batches)))):
            return math.inf
        scheduler.step()
    return setup.evaluate()


def load() -> dict[str, Any]:
    """Return what was measured: by task, strategy and seed the learning rates and the final loss."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def measure() -> None:
    """Measure what is not stored yet."""
    stored = load()
    for name in NAMES:
        for strategy in STRATEGIES:
            for seed in SEEDS:
                runs = stored.setdefault(name, {}).setdefault(strategy, {})
                if str(seed) in runs:
                    continue
                lrs = group_lrs(name, strategy, seed)
                final = train(name, strategy, lrs, seed)
                runs[str(seed)] = {"lrs": lrs, "final": final if math.isfinite(final) else None}
                RESULTS.write_text(json.dumps(stored, indent=1) + "\n")
                print(name, strategy, seed, [f"{lr:.1e}" for lr in lrs], f"{final:.4g}", flush=True)


def table(stored: dict[str, Any]) -> str:
    """Return the table of regrets in Markdown."""
    truths = load_truth(TRUTH, "one_cycle")
    names = [name for name in NAMES if name in stored]
    lines = [f"| strategy | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for strategy in STRATEGIES:
        cells = []
        for name in names:
            best, start = float(np.mean(truths[name].best)), float(np.mean(truths[name].starts))
            finals = [run["final"] for run in stored[name].get(strategy, {}).values()]
            regret = [1.0 if final is None else (final - best) / (start - best) for final in finals]
            cells.append(f"{np.mean(regret):.3f}" if regret else "")
        lines.append(f"| {strategy} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--report", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.measure:
        measure()
    if args.report:
        print(table(load()))


if __name__ == "__main__":
    main()
