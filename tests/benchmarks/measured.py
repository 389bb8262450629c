"""What the finders measured on the benchmark's tasks: our curves, the other finders' suggestions, Prodigy's losses.

    python -m tests.benchmarks.measured --workers 2

writes `measured.json` beside this file: minutes of work, resumable. `--again` forgets what was measured with
`LRFinder.find`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lrfinder import LRFinder, NoSuggestionError
from lrfinder.curve.curve import Context, Curve
from lrfinder.curve.divergence import divergence_lr
from lrfinder.curve.ladder import PER_DECADE, largest_rise, probe_steps
from lrfinder.curve.rules import suggest
from lrfinder.curve.smoothing import smooth
from lrfinder.curve.stop_rule import StopReason
from lrfinder.optim.schedulers import make_scheduler
from lrfinder.training.held_out import held_out_count
from tests.benchmarks.baselines import BASELINES, RANGES
from tests.benchmarks.tasks import TASKS, Setup, Task, endless, fingerprint

__all__ = ["FEW_BATCHES", "PATH", "RUNGS", "SEEDS", "as_curve", "context_of", "find", "load_measured"]

PATH = Path(__file__).with_name("measured.json")
SEEDS = (0, 1, 2, 3, 4)
HELD_OUT = 8  # batches, as `val_batches` of LRFinder.find
FEW_BATCHES = {"eight_samples_adam": 2, "eight_samples_sgd": 2, "iris_softmax_sgd": 5}
"""Batches in an epoch, of the tasks with at most five."""
RUNGS = range(6, -3, -1)  # about the rate of `auto`; refining itself climbs four of them


# ----------------------------------------------------------------------------------------------------------- measure
def find(task: Task, seed: int) -> dict[str, Any]:
    """The curve of `LRFinder.find` with its defaults."""
    setup = task.build(seed)
    finder = LRFinder(setup.model, setup.optimizer, loss_fn=setup.loss_fn, max_grad_norm=setup.max_grad_norm)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = finder.find(setup.train_loader, total_steps=task.total_steps, progress=False)
    return {
        "steps": result.steps,
        "stop_reason": result.stop_reason.name if result.stop_reason else None,
        "stop_lr": result.stop_lr,
        "lrs": [float(f"{lr:.6g}") for lr in result.lrs],
        "losses": [float(f"{loss:.6g}") for loss in result.losses],
    }


def sweep(task: Task, seed: int, start: float, end: float, steps: int = 100) -> tuple[Any, Any]:
    """A plain range test: rates, and losses before each step; infinite from the first that is not finite."""
    setup = task.build(seed)
    lrs, losses = np.geomspace(start, end, steps), np.full(steps, np.inf)
    for i, (lr, batch) in enumerate(zip(lrs, endless(setup), strict=False)):
        for group in setup.optimizer.param_groups:
            group["lr"] = float(lr)
        losses[i] = float(setup.train_step(batch))
        if not math.isfinite(losses[i]):
            break
    return lrs, losses


def others(task: Task, seed: int) -> dict[str, float | None]:
    """The suggestions of the other finders."""
    curves = {bounds: sweep(task, seed, *bounds) for bounds in set(RANGES.values())}
    with np.errstate(all="ignore"):
        return {name: rule(*curves[RANGES[package]]) for name, (package, rule) in BASELINES.items()}


def prodigy(task: Task, seed: int) -> float | None:
    """The final loss with Prodigy and a cosine schedule, as its authors advise; None where it diverges."""
    from prodigyopt import Prodigy

    setup = task.build(seed)
    trainable = [p for p in setup.model.parameters() if p.requires_grad]
    optimizer = Prodigy(trainable, weight_decay=task.options.get("weight_decay", 0.0))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, task.total_steps)
    batches = endless(setup)
    for _ in range(task.total_steps):
        optimizer.zero_grad()
        loss = setup.loss_fn(setup.model, next(batches))
        loss.backward()
        if not math.isfinite(float(loss)) or any(p.grad is not None and p.grad.is_sparse for p in trainable):
            return None
        if setup.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(trainable, setup.max_grad_norm)
        optimizer.step()
        schedule.step()
    final = setup.evaluate()
    return float(f"{final:.6g}") if math.isfinite(final) else None


def refined(task: Task, seed: int) -> dict[str, Any]:
    """The suggestion of `LRFinder.find(refine=True)`, and the steps that it took in all."""
    setup = task.build(seed)
    finder = LRFinder(setup.model, setup.optimizer, loss_fn=setup.loss_fn, max_grad_norm=setup.max_grad_norm)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = finder.find(setup.train_loader, total_steps=task.total_steps, refine=True, progress=False)
    return {
        "lr": _short(result.suggestion.lr),
        "steps": result.steps,
        "probes": [_short(lr) for lr, _ in result.probes],
    }


def unscouted(task: Task, seed: int) -> float | None:
    """The rate of `auto` on as many steps from 1e-7 to 10 as scout and sweep take together."""
    setup = task.build(seed)
    finder = LRFinder(setup.model, setup.optimizer, loss_fn=setup.loss_fn, max_grad_norm=setup.max_grad_norm)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = finder.find(
            setup.train_loader, start_lr=1e-7, end_lr=10.0, num_iter=130, total_steps=task.total_steps, progress=False
        )
    try:
        return _short(result.suggestion.lr)
    except NoSuggestionError:
        return None


def rungs(task: Task, seed: int, schedule: str = "one_cycle") -> dict[str, Any]:
    """Short trainings as refining does them, on more rungs than it climbs, scored in three ways.

    Scores are pairs of the loss before and after: on held-out batches, on the validation data, and in training. Beside
    them stands how far the loss rose on its way; a training that blew up has neither.
    """
    curve = as_curve(find(task, seed))
    middle = suggest("auto", curve, context_of(task, task.total_steps)).lr
    steps = probe_steps(task.total_steps)
    found: dict[str, Any] = {"steps": steps, "middle": _short(middle), "top": _short(top_of(curve, task))}
    for rung in RUNGS:
        held_out, scores = rung_of(task, seed, middle * 10 ** (rung / PER_DECADE), steps, schedule)
        found["held_out"] = held_out
        found[str(rung)] = scores
    return found


def top_of(curve: Curve, task: Task) -> float:
    """The rate of divergence, or the largest one of the sweep."""
    return divergence_lr(curve, context_of(task, task.total_steps)) or float(curve.lrs[-1])


def rung_of(task: Task, seed: int, lr: float, steps: int, schedule: str) -> tuple[int, dict[str, Any]]:
    """How many batches were held out, and what one short training came to."""
    setup = task.build(seed, lr)
    scheduler = make_scheduler(setup.optimizer, schedule, lr, total_steps=steps)
    first = list(itertools.islice(setup.train_loader, steps + HELD_OUT))
    count = held_out_count(len(first), steps, HELD_OUT)
    held_out, batches = first[: count or HELD_OUT], itertools.cycle(first[count:])
    before, losses = _scores(setup, held_out), []
    for batch in itertools.islice(batches, steps):
        losses.append(float(setup.train_step(batch)))
        if not math.isfinite(losses[-1]):
            return count, {}
        scheduler.step()
    after = _scores(setup, held_out)
    before["train"], after["train"] = float(np.mean(losses[:5])), float(np.mean(losses[-max(steps // 5, 1) :]))
    pairs = {name: [_short(before[name]), _short(after[name])] for name in before}
    return count, {"rise": [_short(rise) for rise in largest_rise(losses)], **pairs}


def _scores(setup: Setup, batches: list[tuple[torch.Tensor, ...]]) -> dict[str, float]:
    setup.model.eval()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        losses = [float(setup.loss_fn(setup.model, batch)) for batch in batches]
    return {"batches": float(np.mean(losses)), "val": setup.evaluate()}


def _short(number: float) -> float | None:
    return float(f"{number:.6g}") if math.isfinite(number) else None


MEASURES: dict[str, Callable[[Task, int], Any]] = {
    "find": find,
    "others": others,
    "prodigy": prodigy,
    "refined": refined,
    "unscouted": unscouted,
    "rungs": rungs,
    "constant rungs": partial(rungs, schedule="constant"),
}
SEEDS_OF = dict.fromkeys(MEASURES, SEEDS) | {"refined": (0, 1, 2), "rungs": (0, 1, 2), "constant rungs": (0,)}


# --------------------------------------------------------------------------------------------------------------- run
def _start_worker() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")


def _cell(name: str, measure: str, seed: int) -> tuple[str, str, int, Any]:
    return name, measure, seed, MEASURES[measure](TASKS[name], seed)


def load_measured(path: Path = PATH) -> dict[str, Any]:
    """What is stored, without tasks whose source has changed since."""
    stored: dict[str, Any] = json.loads(path.read_text())["tasks"] if path.exists() else {}
    return {
        name: entry
        for name, entry in stored.items()
        if name in TASKS and entry["fingerprint"] == fingerprint(TASKS[name])
    }


def measure_all(names: Iterable[str], measures: Iterable[str], workers: int, path: Path = PATH) -> None:
    """Run what is missing."""
    stored, measures = load_measured(path), list(measures)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
        cells = []
        for name in names:
            entry = stored.setdefault(name, {"fingerprint": fingerprint(TASKS[name])})
            for measure in measures:
                missing = [seed for seed in SEEDS_OF[measure] if str(seed) not in entry.setdefault(measure, {})]
                cells += [pool.submit(_cell, name, measure, seed) for seed in missing]
        for i, done in enumerate(as_completed(cells)):
            name, measure, seed, value = done.result()
            stored[name][measure][str(seed)] = value
            if i % 50 == 0:
                _save(stored, path)
    _save(stored, path)


def _save(stored: dict[str, Any], path: Path) -> None:
    lines = [f"{json.dumps(name)}: {json.dumps(entry, sort_keys=True)}" for name, entry in sorted(stored.items())]
    new = path.with_suffix(".new")
    new.write_text(
        '{"command": "python -m tests.benchmarks.measured --workers 2", "tasks": {\n' + ",\n".join(lines) + "\n}}\n"
    )
    Path(new).replace(path)


# -------------------------------------------------------------------------------------------------------------- read
def as_curve(stored: dict[str, Any]) -> Curve:
    """The stored curve as the rules want it."""
    losses = np.array(stored["losses"])
    reason = stored["stop_reason"]
    return Curve(
        lrs=np.array(stored["lrs"]),
        losses=losses,
        smoothed=smooth(losses),
        indices=np.arange(len(losses)),
        stop_reason=StopReason[reason] if reason else None,
        stop_lr=stored["stop_lr"],
    )


def context_of(task: Task, total_steps: int | None, schedule: str = "one_cycle") -> Context:
    """What the finder knows of the task."""
    group = {"Adam": 0.9, "AdamW": 0.9, "NAdam": 0.9, "Adamax": 0.9, "Muon": 0.95}
    momentum = task.options.get("momentum", task.options.get("betas", (group.get(task.optimizer, 0.0),))[0])
    return Context(
        optimizer=task.optimizer,
        momentum=float(momentum),
        total_steps=total_steps,
        schedule=schedule,
        batch_size=task.batch_size,
        epoch_points=FEW_BATCHES.get(task.name),
    )


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="parts of names of tasks; all by default")
    parser.add_argument("--measure", nargs="*", default=list(MEASURES), choices=list(MEASURES))
    parser.add_argument("--again", action="store_true", help="forget the stored curves of LRFinder.find first")
    parser.add_argument("--path", type=Path, default=PATH)
    arguments = parser.parse_args()
    if arguments.again and arguments.path.exists():
        stored = load_measured(arguments.path)
        _save({name: {k: v for k, v in entry.items() if k != "find"} for name, entry in stored.items()}, arguments.path)
    names = [name for name in TASKS if not arguments.only or any(part in name for part in arguments.only)]
    measure_all(names, arguments.measure, arguments.workers, arguments.path)


if __name__ == "__main__":
    main()
