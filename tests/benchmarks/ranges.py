"""How `auto` does on ranges that people give by hand, on linear grids, and on validation losses.

    python -m tests.benchmarks.ranges --record    # sweeps into ranges.json: minutes, resumable
    python -m tests.benchmarks.ranges             # the table

A recorded sweep has all of its grid's losses, up to the first that is not finite; the stop rule is applied when it is
read, so that a change of it needs no new recording.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lrfinder import NoSuggestionError
from lrfinder.curve import Curve, Sweep, grid, smooth, suggest
from tests.benchmarks.grid_search import load, save
from tests.benchmarks.measured import context_of
from tests.benchmarks.raw_targets import PATH as RAW_TRUTH
from tests.benchmarks.regret import Truth, load_truth
from tests.benchmarks.tasks import TASKS, Task, endless
from tests.benchmarks.tasks.raw_targets import RAW_TARGETS
from tests.benchmarks.truth import PATH as TRUTH

__all__ = ["CONDITIONS", "PATH", "Condition", "curve_of", "recorded_tasks"]

PATH = Path(__file__).with_name("ranges.json")
STANDARD = (
    "autoencoder_adam",
    "cancer_logistic_adam",
    "diabetes_linear_sgd",
    "digits_cnn_batchnorm_nesterov",
    "digits_mlp_adam",
    "digits_mlp_sgd",
    "full_batch_linear_adam",
    "ill_conditioned_sgd_momentum",
    "iris_softmax_sgd",
    "mixture_sgd_momentum",
    "mnist1d_cnn_batchnorm_sgd_momentum",
    "mnist1d_cnn_sgd",
    "mnist1d_mlp_adamw",
    "noisy_labels_mlp_sgd_momentum",
    "ratings_dense_adam",
    "ratings_sparse_sgd",
    "spirals_mlp_nadam",
    "spread_regression_adam",
    "teacher_mlp_rmsprop",
    "ten_thousand_steps_sgd_momentum",
    "tiny_batch_mlp_adam",
    "wine_mlp_adagrad",
)
"""The standard tasks whose steps are cheap, and two with batch normalization."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A way to call `find`. `start` None is the optimizer's own learning rate."""

    start: float | None
    end: float
    num_iter: int = 100
    mode: str = "exponential"
    val: bool = False
    seeds: tuple[int, ...] = (0,)

    def grid(self, task: Task) -> Any:
        """The learning rates."""
        return grid(task.usual_lr if self.start is None else self.start, self.end, self.num_iter, self.mode)


RANGES: dict[str, tuple[float | None, float]] = {
    "1e-7 to 10": (1e-7, 10.0),
    "1e-8 to 1": (1e-8, 1.0),
    "the optimizer's lr to 10": (None, 10.0),
    "1e-6 to 0.1": (1e-6, 0.1),
}
CONDITIONS: dict[str, Condition] = {
    f"{name}, {num_iter} points": Condition(
        start=start, end=end, num_iter=num_iter, seeds=(0, 1) if num_iter == 100 else (0,)
    )
    for name, (start, end) in RANGES.items()
    for num_iter in (50, 100, 300)
}
CONDITIONS["1e-7 to 10, validation loss"] = Condition(start=1e-7, end=10.0, val=True)
CONDITIONS["1e-7 to 1, validation loss"] = Condition(start=1e-7, end=1.0, val=True)
CONDITIONS["1e-6 to 1, linear"] = Condition(start=1e-6, end=1.0, mode="linear")
CONDITIONS["1e-4 to 0.1, linear"] = Condition(start=1e-4, end=0.1, mode="linear")


def recorded_tasks() -> dict[str, Task]:
    """The tasks by name."""
    return {name: TASKS[name] for name in STANDARD} | RAW_TARGETS


def record(task: Task, condition: Condition, seed: int) -> list[float]:
    """The losses of a sweep; it ends before the first that is not finite."""
    setup = task.build(seed)
    held_out = _held_out(setup.val_batch, task.batch_size)
    losses: list[float] = []
    for lr, batch in zip(condition.grid(task), endless(setup), strict=False):
        for group in setup.optimizer.param_groups:
            group["lr"] = float(lr)
        loss = float(setup.train_step(batch))
        if condition.val and math.isfinite(loss):
            setup.model.eval()
            with torch.no_grad():
                loss = float(np.mean([float(setup.val_loss_fn(setup.model, each)) for each in held_out]))
            setup.model.train()
        if not math.isfinite(loss):
            break
        losses.append(float(f"{loss:.5g}"))
    return losses


def _held_out(batch: tuple[torch.Tensor, ...], size: int) -> list[tuple[torch.Tensor, ...]]:
    parts = zip(*(tensor.split(size) for tensor in batch), strict=True)
    return [part for _, part in zip(range(8), parts, strict=False)]


def curve_of(task: Task, condition: Condition, losses: list[float]) -> Curve:
    """The curve that `find` would have measured."""
    sweep = Sweep(condition.grid(task), None) if condition.val else Sweep(condition.grid(task))
    for loss in [*losses, math.inf]:
        if sweep.ask() is None:
            break
        sweep.tell(loss)
    return Curve(
        lrs=sweep.lrs,
        losses=sweep.losses,
        smoothed=smooth(sweep.losses),
        indices=sweep.indices,
        stop_reason=sweep.stop_reason,
        stop_lr=sweep.stop_lr,
    )


def record_all() -> None:
    """Record what is missing."""
    entries = load(PATH)
    for name, task in recorded_tasks().items():
        entry = entries.setdefault(name, {})
        for label, condition in CONDITIONS.items():
            for seed in condition.seeds:
                if str(seed) not in entry.setdefault(label, {}):
                    entry[label][str(seed)] = record(task, condition, seed)
        save(PATH, "python -m tests.benchmarks.ranges --record", entries)


def regret(task: Task, truth: Truth, curve: Curve, *, val: bool) -> float | None:
    """The regret of `auto` on a curve, None where it makes no suggestion."""
    context = replace(context_of(task, task.total_steps), val=val)
    try:
        return truth.regret(suggest("auto", curve, context).lr)
    except NoSuggestionError:
        return None


def rows(names: Iterable[str]) -> list[str]:
    """A row of the table for each condition, over these tasks."""
    entries, truths = load(PATH), load_truth(TRUTH) | load_truth(RAW_TRUTH)
    tasks, lines = recorded_tasks(), []
    for label, condition in CONDITIONS.items():
        found = [
            regret(tasks[name], truths[name], curve_of(tasks[name], condition, losses), val=condition.val)
            for name in names
            for losses in entries[name][label].values()
        ]
        scored = np.array([each for each in found if each is not None])
        over = int((scored > 0.99).sum())
        lines.append(
            f"| {label} | {scored.mean():.3f} | {np.median(scored):.3f} | {over} | {found.count(None)} | {len(found)} |"
        )
    return lines


def main() -> None:
    """Record, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true")
    if parser.parse_args().record:
        torch.set_num_threads(1)
        record_all()
        return
    for title, names in (("standard tasks", STANDARD), ("targets as they are", tuple(RAW_TARGETS))):
        print(
            f"{title}\n\n| range | mean regret | median | at 1.0 | no suggestion | sweeps |\n|---|---|---|---|---|---|"
        )
        print("\n".join(rows(names)) + "\n")


if __name__ == "__main__":
    main()
