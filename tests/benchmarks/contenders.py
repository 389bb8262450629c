"""The range tests that are compared: a bare training loop, this package, and three others, all on the same work.

Each takes a task (model, optimizer, loader) and takes `num_iter` training steps with a rate that rises from
`START_LR` to `END_LR`: so low that nothing diverges and every one of them takes all the steps. Apart from that each is
called as its documentation shows. Where a finder leaves restoring to its user (`reset`), that is part of its work.
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from lrfinder import LRFinder

__all__ = ["CONTENDERS", "END_LR", "START_LR", "Task", "quiet"]

START_LR, END_LR = 1e-8, 1e-6


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is trained: batches are (inputs, targets), the loss is a cross-entropy."""

    model: nn.Module
    optimizer: Optimizer
    loader: DataLoader[Any]
    criterion: Callable[[Tensor, Tensor], Tensor]


def bare(task: Task, num_iter: int) -> None:
    """Set the rate, zero_grad, forward, backward, step; no loss is read."""
    batches = chain.from_iterable(repeat(task.loader))
    for lr in np.geomspace(START_LR, END_LR, num_iter).tolist():
        inputs, targets = next(batches)
        for group in task.optimizer.param_groups:
            group["lr"] = lr
        task.optimizer.zero_grad()
        task.criterion(task.model(inputs), targets).backward()
        task.optimizer.step()


def ours(task: Task, num_iter: int, **options: Any) -> None:
    """`LRFinder.find`: captures, sweeps, restores, suggests."""
    finder = LRFinder(task.model, task.optimizer, task.criterion, **options)
    result = finder.find(task.loader, start_lr=START_LR, end_lr=END_LR, num_iter=num_iter)
    assert result.steps == num_iter


def ours_without_frozen(task: Task, num_iter: int) -> None:
    """The same with `snapshot_frozen=False`."""
    ours(task, num_iter, snapshot_frozen=False)


def torch_lr_finder(task: Task, num_iter: int) -> None:
    """`range_test`, then `reset`."""
    import torch_lr_finder as package

    _set_lr(task.optimizer, START_LR)
    finder = package.LRFinder(task.model, task.optimizer, task.criterion, device="cpu")
    finder.range_test(task.loader, end_lr=END_LR, num_iter=num_iter)
    finder.reset()
    assert len(finder.history["loss"]) == num_iter


def ignite(task: Task, num_iter: int) -> None:
    """`FastaiLRFinder`, which restores when its block ends."""
    from ignite.engine import create_supervised_trainer
    from ignite.handlers import FastaiLRFinder

    _set_lr(task.optimizer, START_LR)
    trainer = create_supervised_trainer(task.model, task.optimizer, task.criterion)
    finder = FastaiLRFinder()
    kept = {"model": task.model, "optimizer": task.optimizer}
    with finder.attach(trainer, to_save=kept, num_iter=num_iter, end_lr=END_LR) as attached:
        attached.run(task.loader)
    assert len(finder.get_results()["loss"]) >= num_iter - 1  # its count begins after the first step


def lightning(task: Task, num_iter: int) -> None:
    """`Tuner.lr_find`, without its bar."""
    import lightning.pytorch as package
    from lightning.pytorch.tuner import Tuner

    class Module(package.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = task.model

        def training_step(self, batch: Any, index: int) -> Tensor:
            return task.criterion(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> Optimizer:
            return task.optimizer

    with tempfile.TemporaryDirectory() as folder:
        trainer = package.Trainer(
            accelerator="cpu",
            max_epochs=-1,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            default_root_dir=folder,
        )
        found = Tuner(trainer).lr_find(
            Module(), task.loader, min_lr=START_LR, max_lr=END_LR, num_training=num_iter, update_attr=False
        )
    assert found is not None
    assert len(found.results["loss"]) >= num_iter - 1


CONTENDERS: dict[str, Callable[[Task, int], None]] = {
    "bare loop": bare,
    "lrfinder": ours,
    "lrfinder, frozen not copied": ours_without_frozen,
    "torch-lr-finder": torch_lr_finder,
    "Ignite": ignite,
    "Lightning": lightning,
}


def quiet() -> Iterator[None]:
    """Send bars, logs and warnings to nowhere, for as long as the generator lives."""
    for name in ("lightning.pytorch", "ignite"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings(), Path(os.devnull).open("w") as nowhere:
        warnings.simplefilter("ignore")
        with redirect_stdout(nowhere), redirect_stderr(nowhere):
            yield


def _set_lr(optimizer: Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
