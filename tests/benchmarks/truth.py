"""The benchmark's truth: every task trained in full at a grid of learning rates.

    python -m tests.benchmarks.truth --workers 2

writes `truth.json` beside this file. It is resumable: what the file holds already is not run again, unless the source
of the task has changed since (its fingerprint). Rates are 10^(k / 6) and are stored as k. Every third of a decade is
run, from two thirds below the usual default to two thirds above, then on to both sides until the best rate is interior,
until training fails above it and until half of the improvement is lost below; every sixth of a decade beside the best.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import platform
import time
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.benchmarks.tasks import TASKS, fingerprint, train

__all__ = ["ALSO_OTHER_SCHEDULES", "PATH", "SEEDS", "add_truth", "mean_losses", "rate", "wanted"]

PATH = Path(__file__).with_name("truth.json")
SEEDS = {"one_cycle": (0, 1, 2, 3, 4), "constant": (0, 1, 2), "cosine": (0, 1, 2)}
ALSO_OTHER_SCHEDULES = (
    "digits_softmax_sgd",
    "ill_conditioned_sgd_momentum",
    "flow_adam",
    "ratings_sparse_adagrad",
    "efficientnet_head_adam",
    "minilm_low_rank_adamw",
    "gpt_new_language_adamw",
    "digits_mlp_adam",
    "mnist1d_mlp_adamw",
    "digits_cnn_batchnorm_nesterov",
)
LOWEST, HIGHEST = 18, 12  # how far from the best rate the grid goes at most, in sixths of a decade

Curve = dict[str, dict[str, float | None]]  # k -> seed -> final loss, None where it is not finite


def rate(k: float) -> float:
    """The learning rate of place k on the grid."""
    return float(10.0 ** (k / 6))


def mean_losses(curve: Curve, starts: dict[str, float]) -> dict[int, float]:
    """Mean over the seeds of the loss that is left: 0 at the best rate, 1 at the start's loss or above."""
    finals = {int(k): [_clipped(final, starts[seed]) for seed, final in finals.items()] for k, finals in curve.items()}
    means = {k: float(np.mean(losses)) for k, losses in finals.items()}
    start, best = float(np.mean(list(starts.values()))), min(means.values())
    return {k: (mean - best) / max(start - best, 1e-12) for k, mean in sorted(means.items())}


def _clipped(final: float | None, start: float) -> float:
    return start if final is None else min(final, start)


def wanted(losses: dict[int, float], usual_lr: float) -> set[int]:
    """Places of the grid that the rules of this file's head ask for, given the relative losses known so far."""
    if not losses:
        middle = 2 * round(3 * math.log10(usual_lr))
        return {middle + 2 * i for i in range(-2, 3)}
    best = min(losses, key=lambda k: losses[k])
    places = {best + i for i in range(-3, 4)}
    lowest, highest = min(losses), max(losses)
    if losses[lowest] < 0.5 and lowest > best - LOWEST:
        places.add(lowest - 2)
    if losses[highest] < 0.9 and highest < best + HIGHEST:
        places.add(highest + 2)
    return places - set(losses)


# --------------------------------------------------------------------------------------------------------------- run
def _start_worker() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")


def _cell(name: str, schedule: str, k: int, seed: int) -> tuple[str, str, int, int, float, float, float]:
    began = time.perf_counter()
    start, final = train(TASKS[name], rate(k), seed, schedule)
    return name, schedule, k, seed, start, final, time.perf_counter() - began


def _missing(entry: dict[str, Any], name: str, schedule: str) -> set[tuple[int, int]]:
    """Cells (k, seed) to run next for a task under a schedule."""
    curve: Curve = entry["final"].setdefault(schedule, {})
    seeds = SEEDS[schedule]
    holes = {(int(k), seed) for k in curve for seed in seeds if str(seed) not in curve[k]}
    if holes:
        return holes
    used = {str(seed): entry["start"][str(seed)] for seed in seeds} if curve else {}
    losses = mean_losses(curve, used) if curve else {}
    return {(k, seed) for k in wanted(losses, TASKS[name].usual_lr) for seed in seeds}


def add_truth(
    truth: dict[str, Any], names: Iterable[str], path: Path, workers: int, deadline: float = math.inf
) -> None:
    """Run what is missing for these tasks and keep `path` up to date; after `deadline` seconds start nothing more."""
    began = time.monotonic()
    pending: dict[Future[Any], tuple[str, str]] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:

        def submit(name: str, schedule: str) -> None:
            for k, seed in sorted(_missing(truth["tasks"][name], name, schedule)):
                pending[pool.submit(_cell, name, schedule, k, seed)] = (name, schedule)

        for name in names:
            _drop_stale(truth, name)
            for schedule in SEEDS if name in ALSO_OTHER_SCHEDULES else ("one_cycle",):
                submit(name, schedule)
        while pending and time.monotonic() - began < deadline:
            _collect(truth, pending, submit)
            _save(truth, path)
        for cell in pending:
            cell.cancel()
        for cell in pending:
            if not cell.cancelled():
                _store(truth, *cell.result())
    _save(truth, path)


def _collect(
    truth: dict[str, Any], pending: dict[Future[Any], tuple[str, str]], submit: Callable[[str, str], None]
) -> None:
    """Wait for cells, some seconds at most; where a curve's last one is done, ask what it needs next."""
    time.sleep(1.0)  # many cells take less
    for done in wait(pending, timeout=10, return_when=FIRST_COMPLETED).done:
        key = pending.pop(done)
        _store(truth, *done.result())
        if key not in pending.values():
            submit(*key)


def _drop_stale(truth: dict[str, Any], name: str) -> None:
    mark = fingerprint(TASKS[name])
    if truth["tasks"].get(name, {}).get("fingerprint") != mark:
        truth["tasks"][name] = {"fingerprint": mark, "seconds": 0.0, "start": {}, "final": {}}


def _store(
    truth: dict[str, Any], name: str, schedule: str, k: int, seed: int, start: float, final: float, seconds: float
) -> None:
    entry = truth["tasks"][name]
    entry["seconds"] = round(entry["seconds"] + seconds, 1)
    entry["start"][str(seed)] = float(f"{start:.6g}")
    entry["final"][schedule].setdefault(str(k), {})[str(seed)] = float(f"{final:.6g}") if math.isfinite(final) else None


def _save(truth: dict[str, Any], path: Path) -> None:
    truth["command"] = "python -m tests.benchmarks.truth --workers 2"
    truth["versions"] = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    truth["tasks"] = {name: _sorted(entry) for name, entry in sorted(truth["tasks"].items()) if name in TASKS}
    new = path.with_suffix(".new")
    new.write_text(_compact(truth))
    Path(new).replace(path)


def _sorted(entry: dict[str, Any]) -> dict[str, Any]:
    final = {
        schedule: {k: dict(sorted(curve[k].items())) for k in sorted(curve, key=int)}
        for schedule, curve in sorted(entry["final"].items())
    }
    return {**entry, "start": dict(sorted(entry["start"].items())), "final": final}


def _compact(truth: dict[str, Any]) -> str:
    """JSON with a line per task and schedule."""
    text = json.dumps(truth)
    for mark in (
        '"tasks": ',
        '"fingerprint": ',
        '"one_cycle": ',
        '"constant": ',
        '"cosine": ',
        '"versions": ',
        '"command": ',
    ):
        text = text.replace(mark, "\n" + mark)
    return text + "\n"


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="parts of names of tasks; all by default")
    parser.add_argument("--deadline", type=float, default=math.inf, help="seconds after which nothing more is started")
    parser.add_argument("--path", type=Path, default=PATH, help="where the truth is read from and written to")
    arguments = parser.parse_args()
    truth = json.loads(arguments.path.read_text()) if arguments.path.exists() else {"tasks": {}}
    names = [name for name in TASKS if not arguments.only or any(part in name for part in arguments.only)]
    add_truth(truth, names, arguments.path, arguments.workers, arguments.deadline)


if __name__ == "__main__":
    main()
