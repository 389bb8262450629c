"""Histories of whole trainings at known learning rates: too low, right, too high, and decayed too early.

    python -m tests.benchmarks.histories

writes `histories.npz` beside this file: an hour on one core, resumable by task. Every task is trained at
`FACTORS` times the best peak learning rate under OneCycle (from `truth.json`), under each of `SCHEDULES`.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tests.benchmarks import raw_targets, truth, under_schedules
from tests.benchmarks.regret import load_truth
from tests.benchmarks.tasks import TASKS as STANDARD
from tests.benchmarks.tasks import endless, fingerprint
from tests.benchmarks.tasks.raw_targets import RAW_TARGETS, best_constant_loss
from tests.benchmarks.tasks.small import SHORT

__all__ = [
    "ENTRIES",
    "FACTORS",
    "FIRST",
    "HELD_OUT",
    "PATH",
    "SCHEDULES",
    "SECOND",
    "TASK_NAMES",
    "History",
    "load_histories",
    "multipliers",
]

Floats = npt.NDArray[np.float64]

TASKS = STANDARD | SHORT | RAW_TARGETS

PATH = Path(__file__).with_name("histories.npz")
ENTRIES = 200  # stored losses per training: that of the first step, then means of equally many steps
STEPS_PER_SPREAD, LARGEST, NO_LOSS = 40, 2**30, -(2**31)
VALIDATIONS = 16  # stored validation losses per training, evenly spaced, the last one at the end
FACTORS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  # times OneCycle's best learning rate
DROP_FACTORS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
DROPS = {"drop_10": 0.1, "drop_100": 0.01}
DROP_AT = (0.05, 0.1, 0.2)  # share of the training after which the learning rate drops; they take turns
SCHEDULES = ("one_cycle", "constant", "linear", *DROPS)
FIRST = (
    "iris_softmax_sgd", "cancer_logistic_adam", "diabetes_linear_sgd", "wine_mlp_adagrad",
    "ill_conditioned_sgd_momentum", "noisy_labels_mlp_sgd_momentum", "teacher_mlp_rmsprop", "digits_mlp_sgd",
    "digits_mlp_muon", "full_batch_linear_adam", "mixture_sgd_momentum", "ratings_sparse_sgd", "ratings_dense_adam",
    "cnn_new_head_sgd_momentum", "digits_mlp_adam", "spirals_mlp_nadam", "tiny_batch_mlp_adam",
    "large_batch_mlp_nesterov", "autoencoder_adam", "spread_regression_adam", "digits_softmax_sgd", "mnist1d_cnn_sgd",
    "text_lstm_nadam", "contrastive_mlp_adamw", "ratings_sparse_adagrad",
)  # fmt: skip
FURTHER = (  # chosen by kind and cost before any was trained; the first, third, ... of each kind were looked at later
    tuple(SHORT),
    tuple(RAW_TARGETS)[::3],
    ("cnn_noisier_data_sgd_momentum", "minilm_head_adam", "efficientnet_head_adam", "digits_cnn_batchnorm_nesterov",
     "digits_cnn_rmsprop", "mnist1d_cnn_adam", "mnist1d_cnn_batchnorm_sgd_momentum", "conv_autoencoder_adamax",
     "deep_tanh_sgd_momentum", "text_gru_sgd_momentum"),
)  # fmt: skip
COSTLY = ("mnist1d_cnn_adam", "conv_autoencoder_adamax", "text_gru_sgd_momentum")  # the last in line, not trained yet
SECOND = tuple(name for kind in FURTHER for name in kind[::2])
HELD_OUT = tuple(name for kind in FURTHER for name in kind[1::2] if name not in COSTLY)  # nothing was chosen on these
TASK_NAMES = (*FIRST, *SECOND, *HELD_OUT)


@dataclass(frozen=True, kw_only=True)
class History:
    """One recorded training.

    Args:
        task: The task's name.
        schedule: One of `SCHEDULES`.
        factor: Its peak learning rate as a multiple of OneCycle's best.
        lrs: Mean learning rate of each entry, shape (ENTRIES,) at most.
        losses: Mean training loss of each entry, NaN from the first loss on that was not finite.
        val_losses: Validation losses at even distances, shape (VALIDATIONS,).
        start: Validation loss before the training, or of the best constant where targets come as they are.
        total_steps: Optimizer steps.
    """

    task: str
    schedule: str
    factor: float
    lrs: Floats
    losses: Floats
    val_losses: Floats
    start: float
    total_steps: int

    @property
    def final(self) -> float:
        """Validation loss after the training, at most the one before; a diverged training has gained nothing."""
        return min(float(self.val_losses[-1]), self.start) if math.isfinite(self.val_losses[-1]) else self.start


def multipliers(schedule: str, total_steps: int, place: int = 0) -> Floats:
    """Learning rate of every step as a share of the peak, shape (total_steps,); `place` chooses when it drops."""
    share = np.arange(total_steps) / total_steps
    if schedule in DROPS:
        return np.where(share < DROP_AT[place % len(DROP_AT)], 1.0, DROPS[schedule])
    if schedule == "linear":
        return 1 - share
    if schedule == "one_cycle":  # torch's defaults, without its cycled momentum
        up, down = 0.5 - 0.5 * np.cos(np.pi * share / 0.3), 0.5 + 0.5 * np.cos(np.pi * (share - 0.3) / 0.7)
        return np.where(share < 0.3, 0.04 + 0.96 * up, down)
    return np.ones(total_steps)


def averaged(values: Floats) -> Floats:
    """The first value alone, then means of stretches of equal length, as nearly as possible."""
    if len(values) <= ENTRIES:
        return values
    edges = np.concatenate([[0], np.linspace(1, len(values), ENTRIES).round().astype(int)])
    return np.add.reduceat(values, edges[:-1]) / np.diff(edges)


def train(name: str, lrs: Floats, seed: int = 0) -> tuple[Floats, Floats, float]:
    """Training losses (NaN from the first that is not finite), validation losses, and the one before the training."""
    task = TASKS[name]
    setup = task.build(seed)
    start, batches = setup.evaluate(), endless(setup)
    losses, val_losses = np.full(len(lrs), np.nan), np.full(VALIDATIONS, np.nan)
    checks = np.linspace(0, len(lrs), VALIDATIONS + 1).round().astype(int)[1:].tolist()
    for step, lr in enumerate(lrs.tolist(), start=1):
        for group in setup.optimizer.param_groups:
            group["lr"] = lr
        losses[step - 1] = float(setup.train_step(next(batches)))
        if not math.isfinite(losses[step - 1]):
            losses[step - 1] = np.nan
            break
        if step in checks:
            val_losses[checks.index(step)] = setup.evaluate()
    return losses, np.where(np.isfinite(val_losses), val_losses, np.nan), start


def record(name: str, best_lr: float) -> dict[str, Any]:
    """All trainings of a task, as arrays; the first axis is the training."""
    steps = TASKS[name].total_steps
    rows: dict[str, list[Any]] = {key: [] for key in ("schedule", "factor", "place", "losses", "val_losses", "start")}
    for schedule in SCHEDULES:
        for place, factor in enumerate(DROP_FACTORS if schedule in DROPS else FACTORS):
            losses, val_losses, start = train(name, factor * best_lr * multipliers(schedule, steps, place))
            start = best_constant_loss(RAW_TARGETS[name]) if name in RAW_TARGETS else start
            for key, value in zip(rows, (schedule, factor, place, losses, val_losses, start), strict=True):
                rows[key].append(value)
    return {key: np.array(values) for key, values in rows.items()} | {"best_lr": np.array(best_lr)}


def compact(rows: dict[str, Any]) -> dict[str, Any]:
    """The same with averaged losses as whole multiples of a step: a hundredth of the distance between the quartiles."""
    losses = np.array([averaged(each) for each in rows["losses"]])
    middle, (low, high) = np.nanmedian(losses, 1), np.nanquantile(losses, [0.25, 0.75], axis=1)
    step = np.maximum((high - low) / STEPS_PER_SPREAD, 1e-12 * np.abs(middle) + 1e-30)
    codes = np.nan_to_num(np.clip((losses - middle[:, None]) / step[:, None], -LARGEST, LARGEST).round(), nan=NO_LOSS)
    return {
        **rows,
        "losses": codes.astype(np.int32),
        "middle": middle,
        "step": step,
        "val_losses": rows["val_losses"].astype(np.float32),
    }


def expanded(rows: dict[str, Any]) -> Floats:
    """The losses that `compact` stored."""
    losses = rows["middle"][:, None] + rows["step"][:, None] * rows["losses"]
    return np.where(rows["losses"] == NO_LOSS, np.nan, losses)


def save(stored: dict[str, dict[str, Any]], path: Path) -> None:
    """Write all tasks to one file."""
    flat = {f"{name}/{key}": value for name, rows in sorted(stored.items()) for key, value in rows.items()}
    new = path.with_suffix(".new.npz")
    np.savez_compressed(new, **flat)
    new.replace(path)


def load(path: Path) -> dict[str, dict[str, Any]]:
    """Read what `save` wrote, without tasks whose source has changed since."""
    stored: dict[str, dict[str, Any]] = {}
    with np.load(path) as flat:
        for key in flat.files:
            name, field = key.split("/")
            stored.setdefault(name, {})[field] = flat[key]
    return {
        name: rows
        for name, rows in stored.items()
        if name in TASKS and str(rows["fingerprint"]) == fingerprint(TASKS[name], train)
    }


def load_histories(path: Path = PATH) -> list[History]:
    """Read every recorded training."""
    histories = []
    for name, rows in load(path).items():
        steps, losses = TASKS[name].total_steps, expanded(rows)
        for i, (schedule, factor) in enumerate(zip(rows["schedule"], rows["factor"], strict=True)):
            lrs = factor * rows["best_lr"] * multipliers(str(schedule), steps, int(rows["place"][i]))
            history = History(
                task=name,
                schedule=str(schedule),
                factor=float(factor),
                lrs=averaged(lrs),
                losses=losses[i],
                val_losses=rows["val_losses"][i].astype(float),
                start=float(rows["start"][i]),
                total_steps=steps,
            )
            histories.append(history)
    return histories


def record_all(names: Iterable[str], path: Path, unbinned: Path | None = None) -> None:
    """Record the tasks that are missing."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    stored, paths = load(path) if path.exists() else {}, (truth.PATH, raw_targets.PATH, under_schedules.PATH)
    truths = {name: found for source in paths for name, found in load_truth(source).items()}
    for name in names:
        if name not in stored:
            rows = record(name, truths[name].best_lr)
            if unbinned is not None:
                np.savez_compressed(unbinned / f"{name}.npz", **rows)
            stored[name] = compact(rows) | {"fingerprint": np.array(fingerprint(TASKS[name], train))}
            save(stored, path)


def main() -> None:
    """Record what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=TASK_NAMES, metavar="NAME", help="tasks; all by default")
    parser.add_argument("--path", type=Path, default=PATH)
    parser.add_argument("--unbinned", type=Path, help="a folder that also gets every task's losses step by step")
    arguments = parser.parse_args()
    record_all(arguments.only, arguments.path, arguments.unbinned)


if __name__ == "__main__":
    main()
