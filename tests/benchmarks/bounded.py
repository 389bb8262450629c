"""How `auto` does where a sweep hardly rises: fake quantizers, spectral norm, bounded outputs, tasks solved by a sweep.

python -m tests.benchmarks.bounded --truth   # grid searches into bounded.json: a minute
python -m tests.benchmarks.bounded           # the table, from fresh sweeps
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.benchmarks.grid_search import load, save
from tests.benchmarks.raw_targets import find, suggested
from tests.benchmarks.regret import load_truth
from tests.benchmarks.tasks import Task, train
from tests.benchmarks.tasks.bounded import BOUNDED
from tests.benchmarks.truth import mean_losses, rate, wanted

__all__ = ["PATH", "search"]

PATH = Path(__file__).with_name("bounded.json")
SEEDS = (0, 1)  # of the trainings
SWEEP_SEEDS = (5, 6)


def search(task: Task) -> dict[str, Any]:
    """A grid search, one training after the other: two of the networks have buffers."""
    starts: dict[str, float] = {}
    curve: dict[str, dict[str, float | None]] = {}
    middle = 2 * round(3 * math.log10(task.usual_lr))
    places = {middle + 2 * i for i in range(-3, 6)}
    while places and len(curve) < 22:
        for k in sorted(places):
            for seed in map(str, SEEDS):
                before, after = train(task, rate(k), int(seed))
                starts[seed] = float(f"{before:.5g}")
                curve.setdefault(str(k), {})[seed] = float(f"{after:.5g}") if math.isfinite(after) else None
        places = {k for k in wanted(mean_losses(curve, starts), task.usual_lr) if k % 2 == 0}
    return {"start": starts, "final": {"one_cycle": {k: curve[k] for k in sorted(curve, key=int)}}}


def main() -> None:
    """Search, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truth", action="store_true", help="run the grid searches that are missing")
    torch.set_num_threads(1)
    if parser.parse_args().truth:
        entries = load(PATH)
        for name, task in BOUNDED.items():
            if name not in entries:
                entries[name] = search(task)
                save(PATH, "python -m tests.benchmarks.bounded --truth", entries)
        return
    truths = load_truth(PATH)
    print("| task | best lr | 100 points: suggested lr | regret | 300 points: suggested lr | regret |")
    print("|---|---|---|---|---|---|")
    for name, task in BOUNDED.items():
        cells = []
        for num_iter in (100, 300):
            lrs = [suggested(find(task, seed, num_iter=num_iter)) for seed in SWEEP_SEEDS]
            shown = ", ".join("none" if lr is None else f"{lr:.1e}" for lr in lrs)
            cells.append(f"{shown} | {np.mean([truths[name].regret(lr) for lr in lrs]):.2f}")
        print(f"| {name.replace('_', ' ')} | {truths[name].best_lr:.1e} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
