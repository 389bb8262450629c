"""One whole training at one learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch

from lrfinder.optim.schedulers import make_scheduler
from tests.benchmarks.tasks.task import Setup, Task

__all__ = ["endless", "train"]


def endless(setup: Setup) -> Iterator[tuple[torch.Tensor, ...]]:
    """Batches of the setup's loader, epoch after epoch."""
    while True:
        yield from setup.train_loader


def train(task: Task, lr: float, seed: int, schedule: str = "one_cycle") -> tuple[float, float]:
    """The held-out loss before and after a training; infinite after it where a loss was not finite."""
    setup = task.build(seed, lr)
    extra: dict[str, Any] = {"warmup_steps": task.total_steps // 20} if schedule == "cosine" else {}
    scheduler = make_scheduler(setup.optimizer, schedule, lr, total_steps=task.total_steps, **extra)
    start = setup.evaluate()
    batches = endless(setup)
    for _ in range(task.total_steps):
        if not math.isfinite(float(setup.train_step(next(batches)))):
            return start, math.inf
        scheduler.step()
    final = setup.evaluate()
    return start, final if math.isfinite(final) else math.inf
