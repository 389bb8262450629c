"""How a batch becomes a loss: one function per kind of training."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "classify",
    "contrast",
    "gaussian_nll",
    "negative_log_density",
    "next_token",
    "reconstruct",
    "regress",
    "smoothed",
]

Batch = tuple[Tensor, ...]


def classify(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy."""
    return F.cross_entropy(model(batch[0]), batch[1])


def smoothed(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy with label smoothing."""
    return F.cross_entropy(model(batch[0]), batch[1], label_smoothing=0.1)


def regress(model: nn.Module, batch: Batch) -> Tensor:
    """Mean squared error."""
    return F.mse_loss(model(batch[0]), batch[1])


def reconstruct(model: nn.Module, batch: Batch) -> Tensor:
    """Mean squared error against the input itself."""
    return F.mse_loss(model(batch[0]), batch[0])


def next_token(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy of each next token."""
    return F.cross_entropy(model(batch[0][:, :-1]).flatten(0, 1), batch[0][:, 1:].flatten())


def negative_log_density(model: nn.Module, batch: Batch) -> Tensor:
    """Mean negative log density; negative once the density is sharp."""
    return -model(batch[0]).mean()


def gaussian_nll(model: nn.Module, batch: Batch) -> Tensor:
    """Negative log density of a Gaussian whose mean and log spread are predicted."""
    mean, log_spread = model(batch[0]).chunk(2, 1)
    return (0.5 * ((batch[1] - mean) / log_spread.exp()) ** 2 + log_spread).mean() + 0.5 * math.log(2 * math.pi)


def contrast(model: nn.Module, batch: Batch) -> Tensor:
    """InfoNCE: two noisy, partly masked views of each input are to find each other among the batch (SimCLR)."""
    views = []
    for _ in range(2):
        mask = (torch.rand_like(batch[0]) < 0.75).float()
        views.append(F.normalize(model((batch[0] + 0.1 * torch.randn_like(batch[0])) * mask), dim=1))
    return F.cross_entropy(views[0] @ views[1].T / 0.2, torch.arange(len(batch[0])))
