"""Trainings whose sweeps hardly rise: fake quantizers, spectral norm, bounded outputs, and tasks solved by a sweep."""

from __future__ import annotations

from functools import lru_cache, partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from tests.benchmarks.tasks.data import Split, _generator, _split, digits
from tests.benchmarks.tasks.losses import classify
from tests.benchmarks.tasks.networks import mlp
from tests.benchmarks.tasks.task import Parts, Task, task

__all__ = ["BOUNDED"]

BOUNDED: dict[str, Task] = {}

bounded = partial(task, registry=BOUNDED)


class FakeQuantizedLinear(nn.Linear):
    """A linear layer whose weights are rounded to 4 bits of their range; gradients pass straight through."""

    def forward(self, inputs: Tensor) -> Tensor:
        step = self.weight.detach().abs().amax() / 7
        rounded = (self.weight / step).round().clamp(-7, 7) * step
        return F.linear(inputs, self.weight + (rounded - self.weight).detach(), self.bias)


class CosineClassifier(nn.Module):
    """Logits that are ten times a cosine, and so bounded."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp([64, 32, 32])
        self.centres = nn.Parameter(torch.randn(10, 32))

    def forward(self, inputs: Tensor) -> Tensor:
        return 10 * F.normalize(self.body(inputs), dim=1) @ F.normalize(self.centres, dim=1).T


@lru_cache
def blobs(size: int = 2000) -> Split:
    """Four well separated clusters: a few steps solve the task."""
    generator = _generator(31)
    labels = torch.randint(4, (size,), generator=generator)
    centres = 3 * torch.randn(4, 8, generator=generator)
    return _split(centres[labels] + 0.5 * torch.randn(size, 8, generator=generator), labels)


def _quantized() -> nn.Sequential:
    return nn.Sequential(FakeQuantizedLinear(64, 32), nn.Hardtanh(), FakeQuantizedLinear(32, 10), nn.Hardtanh(-8, 8))


@bounded(optimizer="Adam", usual_lr=1e-2, total_steps=300, batch_size=32)
def fake_quantized_adam() -> Parts:
    train, val = digits()
    return Parts(model=_quantized(), loss_fn=classify, train=train, val=val)


@bounded(optimizer="SGD", usual_lr=0.1, options={"momentum": 0.9}, total_steps=300, batch_size=32)
def fake_quantized_sgd_momentum() -> Parts:
    train, val = digits()
    return Parts(model=_quantized(), loss_fn=classify, train=train, val=val)


@bounded(optimizer="Adam", usual_lr=1e-2, total_steps=300, batch_size=32)
def spectral_norm_adam() -> Parts:
    train, val = digits()
    layers = [spectral_norm(nn.Linear(64, 32)), nn.ReLU(), spectral_norm(nn.Linear(32, 10))]
    return Parts(model=nn.Sequential(*layers), loss_fn=classify, train=train, val=val)


@bounded(optimizer="SGD", usual_lr=0.1, total_steps=300, batch_size=32)
def cosine_classifier_sgd() -> Parts:
    train, val = digits()
    return Parts(model=CosineClassifier(), loss_fn=classify, train=train, val=val)


@bounded(optimizer="Adam", usual_lr=1e-3, total_steps=300, batch_size=32)
def solved_blobs_adam() -> Parts:
    train, val = blobs()
    return Parts(model=mlp([8, 64, 64, 4]), loss_fn=classify, train=train, val=val)


@bounded(optimizer="SGD", usual_lr=0.1, options={"momentum": 0.9}, total_steps=300, batch_size=32)
def solved_blobs_sgd_momentum() -> Parts:
    train, val = blobs()
    return Parts(model=mlp([8, 64, 64, 4]), loss_fn=classify, train=train, val=val)
