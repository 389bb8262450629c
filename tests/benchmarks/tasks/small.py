"""Tiny trainings of a few kinds: short ones for the schedules, and long ones of up to 100,000 steps.

All of their copies train side by side (`tests.benchmarks.side_by_side`), so they have neither batch statistics nor
dropout, and one of four optimizers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import torch
from torch import nn

from tests.benchmarks.tasks.data import (
    Split,
    breast_cancer,
    diabetes,
    digits,
    iris,
    linear_system,
    noisy_labels,
    sine_with_noise,
    spirals,
    teacher_pairs,
    wine,
)
from tests.benchmarks.tasks.losses import classify, gaussian_nll, reconstruct, regress
from tests.benchmarks.tasks.networks import mlp
from tests.benchmarks.tasks.task import LossFn, Parts, Task

__all__ = ["LONG", "SHORT"]


def _columns(split: Split) -> Split:
    """The targets as a column, for a network of one output."""
    return tuple((x, y[:, None] if y.dim() == 1 else y) for x, y in split)  # type: ignore[return-value]


def _with_noise(data: Callable[[], Split], share: float, classes: int) -> Split:
    return tuple(noisy_labels(pair, share, classes) for pair in data())  # type: ignore[return-value]


@lru_cache
def _waves(size: int = 4000) -> Split:
    """A function of two inputs with fine structure: a small network learns it slowly, and for long."""
    generator = torch.Generator().manual_seed(21)
    inputs = 2 * torch.rand(size, 2, generator=generator) - 1
    targets = torch.sin(6 * inputs[:, :1]) * torch.cos(5 * inputs[:, 1:]) + 0.05 * torch.randn(
        size, 1, generator=generator
    )
    return (inputs[: size * 3 // 4], targets[: size * 3 // 4]), (inputs[size * 3 // 4 :], targets[size * 3 // 4 :])


DATA: dict[str, Callable[[], Split]] = {
    "cancer": partial(_with_noise, breast_cancer, 0.1, 2),
    "diabetes": lambda: _columns(diabetes()),
    "digits": digits,
    "digits with noise": partial(_with_noise, digits, 0.2, 10),
    "iris": partial(_with_noise, iris, 0.1, 3),
    "linear": lambda: _columns(linear_system(features=20, condition=1e3)),
    "sine": sine_with_noise,
    "spirals": spirals,
    "teacher": teacher_pairs,
    "waves": _waves,
    "wine": partial(_with_noise, wine, 0.1, 3),
}


def _parts(data: str, sizes: tuple[int, ...], activation: type[nn.Module], loss_fn: LossFn) -> Parts:
    train, val = DATA[data]()
    return Parts(model=mlp(sizes, activation), loss_fn=loss_fn, train=train, val=val)


USUAL = {"SGD": 0.1, "Adam": 1e-3, "AdamW": 1e-3, "RMSprop": 1e-3}
M: dict[str, Any] = {"momentum": 0.9}
SHORT_ROWS: tuple[tuple[Any, ...], ...] = (
    # data, sizes, activation, loss, optimizer, options, steps, samples in a batch
    ("iris", (4, 3), nn.ReLU, classify, "SGD", {}, 200, 16),
    ("wine", (13, 16, 3), nn.ReLU, classify, "SGD", M, 200, 16),
    ("cancer", (30, 2), nn.ReLU, classify, "Adam", {}, 300, 32),
    ("cancer", (30, 16, 2), nn.GELU, classify, "SGD", M, 400, 16),
    ("diabetes", (10, 1), nn.ReLU, regress, "SGD", {}, 300, 16),
    ("diabetes", (10, 16, 1), nn.Tanh, regress, "AdamW", {}, 400, 16),
    ("linear", (20, 1), nn.ReLU, regress, "SGD", M, 600, 16),
    ("linear", (20, 1), nn.ReLU, regress, "RMSprop", {}, 600, 16),
    ("digits", (64, 10), nn.ReLU, classify, "SGD", M, 400, 16),
    ("digits", (64, 16, 10), nn.ReLU, classify, "SGD", {}, 800, 16),
    ("digits", (64, 16, 10), nn.ReLU, classify, "Adam", {}, 500, 16),
    ("digits", (64, 12, 12, 10), nn.GELU, classify, "RMSprop", {}, 500, 16),
    ("digits with noise", (64, 24, 10), nn.ReLU, classify, "AdamW", {"weight_decay": 0.1}, 600, 16),
    ("digits", (64, 8, 64), nn.Tanh, reconstruct, "Adam", {}, 500, 16),
    ("teacher", (16, 16, 1), nn.ReLU, regress, "SGD", M, 800, 16),
    ("teacher", (16, 16, 16, 1), nn.Tanh, regress, "Adam", {}, 800, 16),
    ("teacher", (16, 16, 1), nn.GELU, regress, "RMSprop", {}, 1000, 16),
    ("waves", (2, 24, 24, 1), nn.Tanh, regress, "Adam", {}, 1500, 16),
    ("waves", (2, 24, 24, 1), nn.GELU, regress, "SGD", M, 1500, 16),
    ("spirals", (2, 24, 24, 3), nn.ReLU, classify, "AdamW", {}, 1000, 16),
    ("sine", (1, 16, 16, 2), nn.Tanh, gaussian_nll, "Adam", {}, 800, 16),
    ("spirals", (2, 24, 24, 3), nn.Tanh, classify, "SGD", M, 1000, 16),
)
LONG_ROWS: tuple[tuple[Any, ...], ...] = (
    ("teacher", (16, 12, 1), nn.ReLU, regress, "SGD", M, 10_000, 8),
    ("teacher", (16, 12, 1), nn.Tanh, regress, "Adam", {}, 20_000, 8),
    ("waves", (2, 16, 16, 1), nn.Tanh, regress, "Adam", {}, 20_000, 8),
    ("waves", (2, 16, 16, 1), nn.GELU, regress, "SGD", M, 30_000, 8),
    ("waves", (2, 12, 1), nn.ReLU, regress, "AdamW", {}, 50_000, 8),
    ("spirals", (2, 16, 16, 3), nn.ReLU, classify, "AdamW", {}, 20_000, 8),
    ("spirals", (2, 16, 16, 3), nn.Tanh, classify, "SGD", M, 30_000, 8),
    ("sine", (1, 12, 2), nn.Tanh, gaussian_nll, "Adam", {}, 20_000, 8),
    ("linear", (20, 1), nn.ReLU, regress, "SGD", {}, 10_000, 8),
    ("digits with noise", (64, 8, 10), nn.ReLU, classify, "SGD", {}, 15_000, 8),
    ("cancer", (30, 8, 2), nn.ReLU, classify, "RMSprop", {}, 10_000, 8),
    ("waves", (2, 10, 10, 1), nn.Tanh, regress, "SGD", {}, 100_000, 4),
)


def _task(row: tuple[Any, ...]) -> Task:
    data, sizes, activation, loss_fn, optimizer, options, steps, batch_size = row
    momentum = " with momentum" if options.get("momentum") else ""
    shape = "-".join(map(str, sizes))
    return Task(
        name=f"{data} {shape} {activation.__name__} {optimizer}{momentum} {steps}",
        parts=partial(_parts, data, sizes, activation, loss_fn),
        optimizer=optimizer,
        usual_lr=USUAL[optimizer],
        total_steps=steps,
        batch_size=batch_size,
        options=options,
    )


SHORT: dict[str, Task] = {made.name: made for made in map(_task, SHORT_ROWS)}
LONG: dict[str, Task] = {made.name: made for made in map(_task, LONG_ROWS)}
