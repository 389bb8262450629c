"""Train many copies of a small task side by side: all learning rates, schedules and seeds in one batched network.

`torch.func.vmap` runs the forward pass of all copies at once, and the gradient of the sum of their losses is each
copy's own. The optimizers are those of torch with a learning rate for each copy: their directions do not depend on it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.benchmarks.schedules import shape_of
from tests.benchmarks.tasks import Task
from tests.benchmarks.tasks.task import LossFn

__all__ = ["Copy", "SideBySide", "batches_of", "train_side_by_side"]


@dataclass(frozen=True, kw_only=True)
class Copy:
    """One training among those side by side."""

    lr: float
    seed: int
    schedule: str = "one_cycle"


class _WithLoss(nn.Module):
    def __init__(self, model: nn.Module, loss_fn: LossFn) -> None:
        super().__init__()
        self.model, self.loss_fn = model, loss_fn

    def forward(self, *batch: Tensor) -> Tensor:
        return self.loss_fn(self.model, batch)


def train_side_by_side(task: Task, copies: Sequence[Copy]) -> tuple[list[float], list[float]]:
    """Held-out losses of all copies before and after the training, infinite where they are not finite."""
    seeds = list({copy.seed for copy in copies})
    which = torch.tensor([seeds.index(copy.seed) for copy in copies])
    streams = [batches_of(task, seed) for seed in seeds]
    rows = (torch.stack([next(stream) for stream in streams])[which] for _ in range(task.total_steps))
    network = SideBySide(task, copies)
    before = network.evaluate()
    network.train(rows)
    return before, network.evaluate()


class SideBySide:
    """Copies of a task that train together.

    Args:
        task: What is trained; the schedules are as long as its `total_steps`.
        copies: One for each training.
    """

    def __init__(self, task: Task, copies: Sequence[Copy]) -> None:
        self.task, self.copies = task, copies
        setups = {seed: task.build(seed) for seed in {copy.seed for copy in copies}}
        first = next(iter(setups.values()))
        assert not list(first.model.buffers()), "statistics of a batch would be shared"
        self._names = [name for name, _ in first.model.named_parameters()]
        self._params = [
            torch.stack([dict(setups[copy.seed].model.named_parameters())[name].detach() for copy in copies])
            for name in self._names
        ]
        self._network = _WithLoss(first.model, first.loss_fn)
        self._data = task.parts().train
        self._optimizer = _Optimizer(task, self._params)

    def train(self, rows: Iterable[Tensor]) -> Tensor:
        """Take a step on each batch.

        Args:
            rows: The places of the samples of each batch, shape (copies, batch).

        Returns:
            The losses before the steps, shape (steps, copies).
        """
        lrs, momenta = _plan(self.task, self.copies)
        found = []
        for step, chosen in enumerate(rows):
            leaves = [param.detach().requires_grad_() for param in self._params]
            losses = self._losses(leaves, chosen)
            grads = torch.autograd.grad(losses.sum(), leaves)
            found.append(losses.detach())
            with torch.no_grad():
                self._optimizer.step(list(grads), lrs[step], momenta[step])
        return torch.stack(found)

    def losses(self, rows: Tensor) -> Tensor:
        """The losses on training data, each copy's on its own, in evaluation mode; shape (copies,)."""
        self._network.eval()
        with torch.no_grad():
            losses = self._losses(self._params, rows)
        self._network.train()
        return losses

    def evaluate(self) -> list[float]:
        """The losses on the held-out data, infinite where they are not finite."""
        return _evaluate(self.task, self._params, self._names, self.copies)

    def _losses(self, params: list[Tensor], rows: Tensor) -> Tensor:
        return _batched(self._network, self._names, params, [tensor[rows] for tensor in self._data])


def _batched(network: nn.Module, names: list[str], params: list[Tensor], batch: list[Tensor]) -> Tensor:
    def loss(*tensors: Tensor) -> Tensor:
        here = {f"model.{name}": tensor for name, tensor in zip(names, tensors, strict=False)}
        return torch.func.functional_call(network, here, tensors[len(names) :])

    return torch.vmap(loss)(*params, *batch)


def _evaluate(task: Task, params: list[Tensor], names: list[str], copies: Sequence[Copy]) -> list[float]:
    parts = task.parts()
    network = _WithLoss(parts.model.eval(), parts.val_loss_fn or parts.loss_fn)
    found = []
    with torch.no_grad():
        for i in range(len(copies)):
            here = {f"model.{name}": param[i] for name, param in zip(names, params, strict=True)}
            loss = float(torch.func.functional_call(network, here, parts.val))
            found.append(loss if math.isfinite(loss) else math.inf)
    return found


def batches_of(task: Task, seed: int) -> Iterator[Tensor]:
    """The places of the samples in each batch of the task's loader, epoch after epoch."""
    generator = torch.Generator().manual_seed(seed)
    count = len(task.parts().train[0])
    size = min(task.batch_size, count)
    while True:
        order = torch.randperm(count, generator=generator)
        yield from order[: count // size * size].view(-1, size)


def _plan(task: Task, copies: Sequence[Copy]) -> tuple[Tensor, Tensor]:
    """Each copy's learning rate and momentum at each step, both of shape (steps, copies)."""
    shapes = {name: shape_of(task, name) for name in {copy.schedule for copy in copies}}
    lrs = np.stack([copy.lr * shapes[copy.schedule][0] for copy in copies], 1)
    momenta = np.stack([shapes[copy.schedule][1] for copy in copies], 1)
    return torch.tensor(lrs, dtype=torch.float32), torch.tensor(momenta, dtype=torch.float32)


class _Optimizer:
    """torch's SGD, Adam, AdamW and RMSprop, without options that no task uses."""

    def __init__(self, task: Task, params: list[Tensor]) -> None:
        self.name, self.options, self.params = task.optimizer, task.options, params
        self.state: list[dict[str, Any]] = [
            {"first": torch.zeros_like(param), "second": torch.zeros_like(param)} for param in params
        ]
        self.steps = 0
        known = {"SGD": {"momentum"}, "Adam": set(), "AdamW": {"weight_decay"}, "RMSprop": set()}
        if not set(task.options) <= known[task.optimizer]:
            raise ValueError(f"{task.name} has options that are not written here: {task.options}")

    def step(self, grads: list[Tensor], lrs: Tensor, momenta: Tensor) -> None:
        self.steps += 1
        decay = self.options.get("weight_decay", 1e-2 if self.name == "AdamW" else 0.0)
        for param, grad, state in zip(self.params, grads, self.state, strict=True):
            lr, momentum = (values.view(-1, *[1] * (param.dim() - 1)) for values in (lrs, momenta))
            if self.name == "AdamW":
                param *= 1 - lr * decay
            param -= lr * self._direction(grad, state, momentum)

    def _direction(self, grad: Tensor, state: dict[str, Any], momentum: Tensor) -> Tensor:
        if self.name == "SGD":
            return state["first"].mul_(momentum if self.steps > 1 else 0.0).add_(grad)
        if self.name == "RMSprop":
            second = state["second"].mul_(0.99).addcmul_(grad, grad, value=0.01)
            return grad / (second.sqrt() + 1e-8)
        first = state["first"].mul_(momentum).add_(grad * (1 - momentum))
        second = state["second"].mul_(0.999).addcmul_(grad, grad, value=0.001)
        corrected = (second / (1 - 0.999**self.steps)).sqrt_().add_(1e-8)
        return first / (1 - momentum**self.steps) / corrected
