"""What a benchmark task is: a training that can be built again from a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

__all__ = ["TASKS", "LossFn", "Parts", "Setup", "Task", "task"]

LossFn = Callable[[nn.Module, tuple[Tensor, ...]], Tensor]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a task's function returns: everything but the optimizer and the loader.

    `val_loss_fn` scores the whole of `val`; left out, it is `loss_fn`.
    """

    model: nn.Module
    loss_fn: LossFn
    train: tuple[Tensor, ...]
    val: tuple[Tensor, ...]
    val_loss_fn: LossFn | None = None


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A training that is ready to run."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss_fn: LossFn
    train_loader: DataLoader[Any]
    val_batch: tuple[Tensor, ...]
    val_loss_fn: LossFn
    max_grad_norm: float | None

    def evaluate(self) -> float:
        """The loss on the held-out data, in eval mode; the global random state is left alone."""
        self.model.eval()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            loss = float(self.val_loss_fn(self.model, self.val_batch))
        self.model.train()
        return loss

    def train_step(self, batch: tuple[Tensor, ...]) -> Tensor:
        """One plain training step; the loss before it."""
        self.optimizer.zero_grad()
        loss = self.loss_fn(self.model, batch)
        loss.backward()
        if self.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
        self.optimizer.step()
        return loss.detach()


@dataclass(frozen=True, kw_only=True)
class Task:
    """A training recipe, all but its learning rate.

    `usual_lr` is what a practitioner would take without any search: the optimizer's own default or the recipe's custom.
    """

    name: str
    parts: Callable[[], Parts]
    optimizer: str
    usual_lr: float
    total_steps: int
    batch_size: int
    options: dict[str, Any] = field(default_factory=dict)
    max_grad_norm: float | None = None

    def build(self, seed: int, lr: float | None = None) -> Setup:
        """The training with everything random drawn from `seed`; deterministic. Seeds the global random state."""
        torch.manual_seed(seed)
        parts = self.parts()
        trainable = [p for p in parts.model.parameters() if p.requires_grad]
        optimizer = getattr(torch.optim, self.optimizer)(trainable, lr=lr or self.usual_lr, **self.options)
        dataset = TensorDataset(*parts.train)
        stream = RandomSampler(dataset, generator=torch.Generator().manual_seed(seed))
        batches = BatchSampler(stream, min(self.batch_size, len(dataset)), drop_last=True)
        return Setup(
            model=parts.model.train(),
            optimizer=optimizer,
            loss_fn=parts.loss_fn,
            train_loader=DataLoader(dataset, sampler=batches, batch_size=None),
            val_batch=parts.val,
            val_loss_fn=parts.val_loss_fn or parts.loss_fn,
            max_grad_norm=self.max_grad_norm,
        )


TASKS: dict[str, Task] = {}


def task(*, registry: dict[str, Task] = TASKS, **settings: Any) -> Callable[[Callable[[], Parts]], Callable[[], Parts]]:
    """Register the decorated function as the task of its name, by default among the standard ones."""

    def register(parts: Callable[[], Parts]) -> Callable[[], Parts]:
        registry[parts.__name__] = Task(name=parts.__name__, parts=parts, **settings)
        return parts

    return register
