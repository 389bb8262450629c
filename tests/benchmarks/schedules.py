"""The schedules that a learning rate is for, as factors of the peak learning rate."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lrfinder.optim.schedulers import make_scheduler
from tests.benchmarks.tasks import Task

__all__ = ["SCHEDULES", "shape_of"]

SCHEDULES: dict[str, tuple[str, float]] = {
    "one_cycle": ("one_cycle", 0.0),
    "constant": ("constant", 0.0),
    "linear": ("linear", 0.0),
    "linear with warm-up": ("linear", 0.1),
    "cosine": ("cosine", 0.0),
    "cosine with warm-up": ("cosine", 0.1),
    "step": ("step", 0.0),
}
"""By the name in the tables: the name in `lrfinder.SCHEDULES` and the share of the steps that are warm-up."""


def shape_of(task: Task, name: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Learning rate, as a share of the peak, and momentum (or Adam's first beta) at each step."""
    schedule, warmup = SCHEDULES[name]
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer: Any = getattr(torch.optim, task.optimizer)([parameter], lr=1.0, **task.options)
    keywords = {"warmup_steps": int(warmup * task.total_steps)} if warmup else {}
    scheduler = make_scheduler(optimizer, schedule, 1.0, total_steps=task.total_steps, **keywords)
    group = optimizer.param_groups[0]
    shape = np.empty((2, task.total_steps))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step in range(task.total_steps):
            shape[:, step] = group["lr"], group["betas"][0] if "betas" in group else group.get("momentum", 0.0)
            if step < task.total_steps - 1:
                scheduler.step()
    return shape[0], shape[1]
