"""Train the networks of `lrfinder.diagnose`, and score them on tasks that they have not seen.

    python -m tests.benchmarks.diagnosis_fit             # scores every task by networks that were trained without it
    python -m tests.benchmarks.diagnosis_fit --write     # also writes lrfinder/curve/diagnosis.json

The networks that are written have seen all tasks but the held-out ones.

Each recorded training counts in four forms, with and without validation losses. Trainings with a regret between good
and bad teach nothing. The least probabilities are chosen on tasks that were left out of the training.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from lrfinder.curve.classifier import DIGITS, FARTHEST, Probabilities, inputs_of, probabilities
from lrfinder.curve.diagnosis import TrainingVerdict, decide
from lrfinder.curve.history import MIN_ENTRIES, History, read_history
from lrfinder.curve.signs import Signs, measure_signs
from lrfinder.curve.val_signs import measure_val_signs
from tests.benchmarks.diagnosis import BAD, GOOD, HIGH, Case, given, load_cases, score
from tests.benchmarks.histories import FIRST, SECOND
from tests.benchmarks.random_histories import load_random_histories
from tests.benchmarks.textbook import FINE, TOO_HIGH, TOO_LOW, draw_curves

__all__ = ["fit", "main"]

Floats = npt.NDArray[np.float64]
PATH = Path(__file__).parents[2] / "lrfinder" / "curve" / "diagnosis.json"
FORMS: tuple[dict[str, Any], ...] = ({}, {"points": 70}, {"points": 30}, {"lrs": False})
NETWORKS, HIDDEN, EPOCHS, BATCH, LR, DECAY, FOLDS, CURVES = 3, 32, 25, 256, 1e-2, 3e-4, 5, 800
MOST_ALARMS, MOST_WRONG, LEAST = 0.09, 0.02, 0.5  # LEAST: more probable than not
MODELS = ("losses", "losses and validation losses")
UNKNOWN = {"least_low": 0.5, "least_high": 0.5}  # least probabilities that are chosen later


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What the networks see of some trainings: inputs by model, the class (-1 teaches nothing), and the task."""

    inputs: dict[str, list[dict[str, float]]]
    label: npt.NDArray[np.int64]
    task: npt.NDArray[np.str_]


def label_of(case: Case) -> int:
    """The class of a recorded training, -1 where its regret is neither good nor bad."""
    if case.regret < GOOD:
        return FINE
    if case.hurt_by_drop:
        return TOO_LOW
    if case.regret > BAD and case.side:
        return TOO_LOW if case.side < 0 and not case.dropped else TOO_HIGH if case.side > 0 else -1
    return -1


def rows_of(cases: Iterable[Case]) -> Rows:
    """All forms of the trainings whose losses stay finite."""
    found: list[tuple[dict[str, float], dict[str, float], int, str]] = []
    for case in cases:
        label = label_of(case)
        for form in FORMS if label >= 0 else ():
            each = _inputs(*given(case.history, **form), case.history.val_losses)
            found += [] if each is None else [(*each, label, case.history.task)]
    return _rows(found)


def textbook_rows() -> Rows:
    """The curves of a textbook."""
    found = []
    for i, (losses, lrs, val_losses, label) in enumerate(draw_curves(CURVES)):
        each = _inputs(losses, lrs, val_losses)
        found += [] if each is None else [(*each, label, f"curve {i}")]
    return _rows(found)


def _inputs(losses: Any, lrs: Any, val_losses: Floats) -> tuple[dict[str, float], dict[str, float]] | None:
    history = read_history(losses, lrs)
    if history.lost is not None or min(history.finite, len(history)) < MIN_ENTRIES:
        return None
    signs, val_signs = measure_signs(history), measure_val_signs(val_losses, history)
    return inputs_of(signs), inputs_of(signs, val_signs) if val_signs is not None else {}


def _rows(found: Sequence[tuple[dict[str, float], dict[str, float], int, str]]) -> Rows:
    return Rows(
        inputs={name: [each[i] for each in found] for i, name in enumerate(MODELS)},
        label=np.array([each[2] for each in found], dtype=np.int64),
        task=np.array([each[3] for each in found]),
    )


# ----------------------------------------------------------------------------------------------------------------- fit
def fit(rows: Sequence[Rows], model: str) -> dict[str, Any]:
    """Train the networks of one model, as `diagnosis.json` stores them, without the least probabilities."""
    known = [(each, label) for part in rows for each, label in zip(part.inputs[model], part.label, strict=True) if each]
    names = list(known[0][0])
    inputs = np.array([[each[name] for name in names] for each, _ in known])
    mean, scale = inputs.mean(0).round(DIGITS), (inputs.std(0) + 1e-3).round(DIGITS)
    z = torch.tensor(np.clip((inputs - mean) / scale, -FARTHEST, FARTHEST), dtype=torch.float32)
    labels = torch.tensor([label for _, label in known])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        networks = [_weights(_train(z, labels)) for _ in range(NETWORKS)]
    return {"inputs": names, "mean": mean.tolist(), "scale": scale.tolist(), "networks": networks}


def _train(z: torch.Tensor, labels: torch.Tensor) -> nn.Sequential:
    network = nn.Sequential(nn.Linear(z.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 3))
    optimizer, steps = torch.optim.Adam(network.parameters(), LR), EPOCHS * len(z) // BATCH
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps)
    for _ in range(steps):
        chosen = torch.randint(len(z), (BATCH,))
        loss = nn.functional.cross_entropy(network(z[chosen]), labels[chosen], label_smoothing=0.02)
        loss = loss + DECAY * sum((p**2).sum() for p in network.parameters() if p.dim() > 1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    return network


def _weights(network: nn.Sequential) -> dict[str, Any]:
    values = [p.detach().double().numpy().round(4).tolist() for p in network.parameters()]
    return dict(zip(("hidden", "hidden_bias", "out", "out_bias"), values, strict=True))


# --------------------------------------------------------------------------------------------------------------- score
@dataclass(frozen=True, kw_only=True)
class Answer:
    """What is needed to diagnose a recorded training with any least probabilities; None where its losses were lost."""

    case: Case
    measured: tuple[History, Signs, Probabilities] | None


def answers(cases: Iterable[Case], models: dict[str, Any], form: dict[str, Any], *, val: bool) -> list[Answer]:
    """The probabilities that some networks give for recorded trainings."""
    found = []
    for case in cases:
        history = read_history(*given(case.history, **form))
        if min(history.finite, len(history)) < MIN_ENTRIES:
            found.append(Answer(case=case, measured=None))
            continue
        signs = measure_signs(history)
        val_signs = measure_val_signs(case.history.val_losses, history) if val else None
        chances = probabilities(signs, val_signs, models)
        found.append(Answer(case=case, measured=(history, signs, chances)))
    return found


def score_of(found: Sequence[Answer], least_low: float, least_high: float) -> dict[str, float]:
    """The shares of `diagnosis.score` with these least probabilities."""
    return _shares(found, [verdict_of(each, least_low, least_high) for each in found])


def verdict_of(answer: Answer, least_low: float, least_high: float) -> TrainingVerdict:
    """The verdict with these least probabilities."""
    if answer.measured is None:
        return HIGH
    history, signs, chances = answer.measured
    return decide(history, signs, replace(chances, least_low=least_low, least_high=least_high)).verdict


def _shares(found: Sequence[Answer], verdicts: list[TrainingVerdict]) -> dict[str, float]:
    return {name: share for name, (share, _) in score([each.case for each in found], verdicts).items()}


def score_left_out(found: Sequence[Answer]) -> dict[str, float]:
    """The shares with least probabilities that were chosen on the other folds."""
    folds = folds_of(each.case.history.task for each in found)
    verdicts: dict[int, TrainingVerdict] = {}
    for fold in range(FOLDS):
        least = choose_least([each for each in found if folds[each.case.history.task] != fold])
        here = (i for i, each in enumerate(found) if folds[each.case.history.task] == fold)
        verdicts |= {i: verdict_of(found[i], *least) for i in here}
    return _shares(found, [verdicts[i] for i in range(len(found))])


def choose_least(found: Sequence[Answer]) -> tuple[float, float]:
    """The least probabilities with the most trainings told right, among those with few alarms and few told wrong."""

    def worth(least: tuple[float, float]) -> float:
        shares = score_of(found, *least)
        excess = max(shares["alarms"] - MOST_ALARMS, 0) + max(shares["wrong"] - MOST_WRONG, 0)
        return shares["right"] + 0.3 * shares["drops told"] - 10 * excess

    grid = np.arange(LEAST, 0.9, 0.05).round(2).tolist()
    return max(((low, high) for low in grid for high in grid), key=worth)


def folds_of(tasks: Iterable[str]) -> dict[str, int]:
    """A fold for each task, the same every time."""
    names = sorted(set(tasks))
    return {name: i % FOLDS for i, name in enumerate(np.random.default_rng(0).permutation(names).tolist())}


def left_out(cases: Sequence[Case], rows: Rows, others: Sequence[Rows]) -> dict[str, list[Answer]]:
    """By model, the answers for every task from networks that have not seen it."""
    folds = folds_of(case.history.task for case in cases)
    found: dict[str, list[Answer]] = {model: [] for model in MODELS}
    for fold in range(FOLDS):
        seen = np.array([folds[task] != fold for task in rows.task])
        models = {model: fit([part_of(rows, seen), *others], model) | UNKNOWN for model in MODELS}
        scored = [case for case in cases if folds[case.history.task] == fold]
        for model in MODELS:
            found[model] += answers(scored, models, {}, val=model != MODELS[0])
    return found


def part_of(rows: Rows, chosen: npt.NDArray[np.bool_]) -> Rows:
    """Some of the rows."""
    inputs = {
        name: [each for each, take in zip(values, chosen, strict=True) if take] for name, values in rows.inputs.items()
    }
    return Rows(inputs=inputs, label=rows.label[chosen], task=rows.task[chosen])


def main() -> None:
    """Train and score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="also train on all but the held-out tasks, and store that")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cases = load_cases()
    others = [rows_of(load_cases(load_random_histories())), textbook_rows()]
    for model, found in left_out(cases, rows_of(cases), others).items():
        print(f"{model}, all tasks, each left out: {_text(score_left_out(found))}")
    if arguments.write:
        _write([case for case in cases if case.history.task in (*FIRST, *SECOND)], others)


def _write(cases: Sequence[Case], others: Sequence[Rows]) -> None:
    rows, stored = rows_of(cases), {}
    for model, found in left_out(cases, rows, others).items():
        least_low, least_high = choose_least(found)
        print(
            f"{model}, least probabilities {least_low}, {least_high}: {_text(score_of(found, least_low, least_high))}"
        )
        stored[model] = {"least_low": least_low, "least_high": least_high} | fit([rows, *others], model)
    PATH.write_text(json.dumps(stored, separators=(",", ":")) + "\n", encoding="utf-8")


def _text(shares: dict[str, float]) -> str:
    return ", ".join(f"{name} {share:.1%}" for name, share in shares.items())


if __name__ == "__main__":
    main()
