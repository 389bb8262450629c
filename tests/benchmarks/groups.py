"""Learning rates of parameter groups in fine-tuning: one for all, fixed ratios, or one found for each group.

    python -m tests.benchmarks.groups --measure   # trains, and writes groups.json
    python -m tests.benchmarks.groups --report

MiniLM and EfficientNet-Lite0 with a new head are trained with OneCycle at what each strategy gives. Regret is measured
from the best single learning rate of the grid search in `truth.json`, so that it is negative where groups do better
than that. MiniLM's embeddings are frozen with two groups, as in that grid search, and trained with three.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lrfinder import LRFinder, find_each_group, make_scheduler
from tests.benchmarks.regret import load_truth
from tests.benchmarks.tasks import TASKS, endless
from tests.benchmarks.tasks.pretrained import sentences
from tests.benchmarks.tasks.task import Setup
from tests.benchmarks.truth import PATH as TRUTH

__all__ = ["NAMES", "SPLITS", "load", "table"]

RESULTS = Path(__file__).with_suffix(".json")
NAMES = ("minilm_all_layers_adamw", "efficientnet_all_layers_sgd_momentum")
SEEDS = (0, 1)
FIRST_LAYERS = frozenset({"words", "positions", "norm", "_conv_stem", "_bn0"})
HEADS = frozenset({"head", "_fc"})
ONE, TEN, LADDER, FOUND = "one lr for all", "head at ten times the rest", "tenfold ladder", "found for each group"
# Ratios of the groups, from the first layers to the head. With two groups the tenfold ladder is the head at ten times.
SPLITS = {
    "body, head": {ONE: (1.0, 1.0), TEN: (0.1, 1.0), FOUND: (1.0, 1.0)},
    "first layers, body, head": {
        ONE: (1.0, 1.0, 1.0), TEN: (0.1, 0.1, 1.0), LADDER: (0.01, 0.1, 1.0), FOUND: (1.0, 1.0, 1.0),
    },
}  # fmt: skip


class UsedWords(nn.Module):
    """An embedding of those words only that occur in the data: it trains as the whole table does, in much less time."""

    def __init__(self, words: nn.Embedding) -> None:
        super().__init__()
        used = torch.unique(torch.cat([part[0].flatten() for part in sentences()]))
        self.register_buffer("place", torch.zeros(words.num_embeddings, dtype=torch.long))
        self.place[used] = torch.arange(len(used))
        self.weight = nn.Parameter(words.weight.detach()[used].clone())

    def forward(self, tokens: Tensor) -> Tensor:
        return nn.functional.embedding(self.place[tokens], self.weight)


def part_of(name: str, parts: list[str]) -> str:
    """Return the part of the network that a parameter belongs to."""
    layer = name.partition(".")[0]
    if layer in HEADS:
        return "head"
    return "first layers" if "first layers" in parts and layer in FIRST_LAYERS else "body"


def in_groups(name: str, split: str, ratios: tuple[float, ...], seed: int) -> Setup:
    """Return a task's training with a parameter group for each part, at the ratios given."""
    task, parts = TASKS[name], split.split(", ")
    setup = task.build(seed)
    if "first layers" in parts:
        if name.startswith("minilm"):
            setup.model.words = UsedWords(setup.model.words)
        setup.model.requires_grad_(True)
    found: dict[str, list[nn.Parameter]] = {part: [] for part in parts}
    for parameter_name, parameter in setup.model.named_parameters():
        if parameter.requires_grad:
            found[part_of(parameter_name, parts)].append(parameter)
    groups = [
        {"params": found[part], "lr": ratio * task.usual_lr, "name": part}
        for part, ratio in zip(parts, ratios, strict=True)
    ]
    optimizer = getattr(torch.optim, task.optimizer)(groups, lr=task.usual_lr, **task.options)
    object.__setattr__(setup, "optimizer", optimizer)
    return setup


def group_lrs(name: str, split: str, strategy: str, seed: int) -> list[float]:
    """Return the learning rate of each group by a strategy."""
    setup = in_groups(name, split, SPLITS[split][strategy], seed)
    finder = LRFinder(setup.model, setup.optimizer, loss_fn=setup.loss_fn)
    options: dict[str, Any] = {"total_steps": TASKS[name].total_steps, "progress": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if strategy == FOUND:
            return find_each_group(finder, setup.train_loader, **options).group_lrs()
        return finder.find(setup.train_loader, **options).group_lrs()


def train(name: str, split: str, lrs: list[float], seed: int) -> float:
    """Return the validation loss after a training with OneCycle at these peak learning rates."""
    steps = TASKS[name].total_steps
    setup = in_groups(name, split, tuple(lrs), seed)
    scheduler = make_scheduler(setup.optimizer, "one_cycle", lrs, total_steps=steps)
    batches = endless(setup)
    for _ in range(steps):
        if not math.isfinite(float(setup.train_step(next(batches)))):
            return math.inf
        scheduler.step()
    return setup.evaluate()


def load() -> dict[str, Any]:
    """Return what was measured: by task, split, strategy and seed the learning rates and the final loss."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def measure() -> None:
    """Measure what is not stored yet."""
    stored = load()
    for seed, name, (split, strategies) in itertools.product(SEEDS, NAMES, SPLITS.items()):
        for strategy in strategies:
            runs = stored.setdefault(name, {}).setdefault(split, {}).setdefault(strategy, {})
            if str(seed) not in runs:
                runs[str(seed)] = known(stored, name, split, strategy, seed) or run(name, split, strategy, seed)
                RESULTS.write_text(json.dumps(stored, indent=1) + "\n")
                print(seed, name, split, strategy, runs[str(seed)], flush=True)


def run(name: str, split: str, strategy: str, seed: int) -> dict[str, Any]:
    """Return the learning rate of each group, and the loss after training with them."""
    lrs = group_lrs(name, split, strategy, seed)
    final = train(name, split, lrs, seed)
    return {"lrs": lrs, "final": final if math.isfinite(final) else None}


def known(stored: dict[str, Any], name: str, split: str, strategy: str, seed: int) -> dict[str, Any] | None:
    """Return the same training with two groups, where a third one has the body's ratio and the same layers train."""
    if name.startswith("minilm") or split == "body, head" or strategy not in {ONE, TEN}:
        return None
    two = stored[name]["body, head"][strategy][str(seed)]
    return {**two, "lrs": [two["lrs"][0], *two["lrs"]]}


def regret(name: str, runs: dict[str, Any]) -> float:
    """Return the mean regret of final losses from the best single learning rate; 1 where a training diverged."""
    truth = load_truth(TRUTH, "one_cycle")[name]
    best, start = float(np.mean(truth.best)), float(np.mean(truth.starts))
    finals = [start if run["final"] is None else min(run["final"], start) for run in runs.values()]
    return (float(np.mean(finals)) - best) / (start - best)


def table(stored: dict[str, Any]) -> str:
    """Return the table of regrets in Markdown."""
    lines = [f"| groups | lrs | {' | '.join(NAMES)} |", f"|---|---|{'---|' * len(NAMES)}"]
    for split, strategies in SPLITS.items():
        for strategy in strategies:
            runs = [stored.get(name, {}).get(split, {}).get(strategy, {}) for name in NAMES]
            cells = [f"{regret(name, each):.3f}" if each else "" for name, each in zip(NAMES, runs, strict=True)]
            lines.append(f"| {split} | {strategy} | {' | '.join(cells)} |")
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
