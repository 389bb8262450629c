"""Regressions on targets as they are, with a mean and a scale, and data of a few samples.

The first thing that a network learns here is the mean of the targets. A network that died, or one whose output no
longer depends on its input, predicts a constant: so a loss no lower than the best constant's is no progress.
"""

from __future__ import annotations

from functools import lru_cache, partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.benchmarks.tasks.data import Pair, Split, _generator, _split
from tests.benchmarks.tasks.losses import regress
from tests.benchmarks.tasks.networks import mlp
from tests.benchmarks.tasks.task import Parts, Task, task

__all__ = ["RAW_TARGETS", "absolute", "best_constant_loss"]

RAW_TARGETS: dict[str, Task] = {}

raw = partial(task, registry=RAW_TARGETS)


def absolute(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """Mean absolute error."""
    return F.l1_loss(model(batch[0]), batch[1])


def best_constant_loss(of: Task) -> float:
    """The held-out loss of the best constant prediction, which the training targets choose: their mean or median."""
    parts = of.parts()
    targets = parts.train[1]
    constant = targets.median() if parts.loss_fn is absolute else targets.mean()
    held_out = parts.val[1]
    return float(parts.loss_fn(lambda _: constant.expand_as(held_out), parts.val))


@lru_cache
def prices(size: int = 3000) -> Split:
    """Prices about 200, spread about 50, of things with eight properties."""
    rng = _generator(11)
    inputs = torch.randn(size, 8, generator=rng)
    first, second = torch.randn(8, 16, generator=rng) / 8**0.5, torch.randn(16, 1, generator=rng) / 4
    values = torch.tanh(2 * inputs @ first) @ second + 0.1 * torch.randn(size, 1, generator=rng)
    return _split(inputs, 200 + 50 * values / values.std())


@lru_cache
def diabetes_as_it_comes() -> Split:
    """sklearn's diabetes: ten inputs of spread 0.05, targets of mean 152 and spread 77."""
    from sklearn.datasets import load_diabetes

    inputs, targets = load_diabetes(return_X_y=True)
    return _split(torch.tensor(inputs, dtype=torch.float32), torch.tensor(targets, dtype=torch.float32)[:, None])


@lru_cache
def friedman(size: int = 2000) -> Split:
    """sklearn's friedman1: ten inputs in [0, 1], of which five matter; targets of mean 14 and spread 5."""
    from sklearn.datasets import make_friedman1

    inputs, targets = make_friedman1(n_samples=size, n_features=10, noise=1.0, random_state=0)
    return _split(torch.tensor(inputs, dtype=torch.float32), torch.tensor(targets, dtype=torch.float32)[:, None])


@lru_cache
def few_samples() -> Pair:
    """Eight samples of a smooth function of four inputs."""
    rng = _generator(12)
    inputs = torch.randn(8, 4, generator=rng)
    return inputs, torch.sin(2 * inputs[:, :1]) + 0.5 * inputs[:, 1:2] + 1.0


# ------------------------------------------------------------------------------------------------------------ prices
@raw(optimizer="Adam", usual_lr=1e-3, total_steps=500, batch_size=32)
def prices_relu_adam() -> Parts:
    train, val = prices()
    return Parts(model=mlp([8, 64, 64, 1]), loss_fn=regress, train=train, val=val)


@raw(optimizer="AdamW", usual_lr=1e-3, total_steps=600, batch_size=32)
def prices_deep_gelu_adamw() -> Parts:
    train, val = prices()
    return Parts(model=mlp([8, 32, 32, 32, 32, 1], nn.GELU), loss_fn=regress, train=train, val=val)


@raw(optimizer="SGD", usual_lr=1e-3, options={"momentum": 0.9}, total_steps=500, batch_size=32)
def prices_relu_sgd_momentum() -> Parts:
    train, val = prices()
    return Parts(model=mlp([8, 64, 64, 1]), loss_fn=regress, train=train, val=val)


@raw(optimizer="RMSprop", usual_lr=1e-3, total_steps=500, batch_size=32)
def prices_relu_rmsprop() -> Parts:
    train, val = prices()
    return Parts(model=mlp([8, 64, 64, 1]), loss_fn=regress, train=train, val=val)


@raw(optimizer="Adam", usual_lr=1e-3, total_steps=500, batch_size=32)
def prices_l1_relu_adam() -> Parts:
    train, val = prices()
    return Parts(model=mlp([8, 64, 64, 1]), loss_fn=absolute, train=train, val=val)


@raw(optimizer="SGD", usual_lr=1e-2, options={"momentum": 0.9}, total_steps=500, batch_size=32)
def prices_l1_gelu_sgd_momentum() -> Parts:
    train, val = prices()
    return Parts(model=mlp([8, 64, 1], nn.GELU), loss_fn=absolute, train=train, val=val)


@raw(optimizer="SGD", usual_lr=1e-3, options={"momentum": 0.9}, total_steps=400, batch_size=16)
def prices_deep_gelu_sgd_momentum() -> Parts:
    train, val = prices()
    return Parts(model=mlp([8, 32, 32, 32, 32, 1], nn.GELU), loss_fn=regress, train=train, val=val)


@raw(optimizer="Adam", usual_lr=1e-3, total_steps=500, batch_size=32)
def prices_deep_relu_adam() -> Parts:
    train, val = prices()
    return Parts(model=mlp([8, 64, 64, 64, 64, 1]), loss_fn=regress, train=train, val=val)


@raw(optimizer="RMSprop", usual_lr=1e-3, total_steps=500, batch_size=32)
def prices_deep_relu_rmsprop() -> Parts:
    train, val = prices()
    return Parts(model=mlp([8, 64, 64, 64, 1]), loss_fn=regress, train=train, val=val)


@raw(optimizer="SGD", usual_lr=1e-2, options={"momentum": 0.9}, total_steps=500, batch_size=32)
def prices_deep_l1_relu_sgd_momentum() -> Parts:
    train, val = prices()
    return Parts(model=mlp([8, 32, 32, 32, 1]), loss_fn=absolute, train=train, val=val)


# ---------------------------------------------------------------------------------------------------------- diabetes
@raw(optimizer="Adam", usual_lr=1e-3, total_steps=400, batch_size=32)
def diabetes_relu_adam() -> Parts:
    train, val = diabetes_as_it_comes()
    return Parts(model=mlp([10, 64, 1]), loss_fn=regress, train=train, val=val)


@raw(optimizer="SGD", usual_lr=1e-3, options={"momentum": 0.9}, total_steps=400, batch_size=32)
def diabetes_gelu_sgd_momentum() -> Parts:
    train, val = diabetes_as_it_comes()
    return Parts(model=mlp([10, 64, 64, 1], nn.GELU), loss_fn=regress, train=train, val=val)


@raw(optimizer="RMSprop", usual_lr=1e-3, total_steps=400, batch_size=32)
def diabetes_relu_rmsprop() -> Parts:
    train, val = diabetes_as_it_comes()
    return Parts(model=mlp([10, 64, 64, 1]), loss_fn=regress, train=train, val=val)


@raw(optimizer="AdamW", usual_lr=1e-3, total_steps=400, batch_size=16)
def diabetes_l1_relu_adamw() -> Parts:
    train, val = diabetes_as_it_comes()
    return Parts(model=mlp([10, 32, 32, 1]), loss_fn=absolute, train=train, val=val)


# ---------------------------------------------------------------------------------------------------------- friedman
@raw(optimizer="Adam", usual_lr=1e-3, total_steps=500, batch_size=32)
def friedman_gelu_adam() -> Parts:
    train, val = friedman()
    return Parts(model=mlp([10, 64, 64, 1], nn.GELU), loss_fn=regress, train=train, val=val)


@raw(optimizer="SGD", usual_lr=1e-2, options={"momentum": 0.9}, total_steps=500, batch_size=32)
def friedman_relu_sgd_momentum() -> Parts:
    train, val = friedman()
    return Parts(model=mlp([10, 32, 32, 32, 1]), loss_fn=regress, train=train, val=val)


@raw(optimizer="RMSprop", usual_lr=1e-3, total_steps=500, batch_size=32)
def friedman_l1_gelu_rmsprop() -> Parts:
    train, val = friedman()
    return Parts(model=mlp([10, 32, 32, 32, 1], nn.GELU), loss_fn=absolute, train=train, val=val)


@raw(optimizer="Adam", usual_lr=1e-3, total_steps=600, batch_size=32)
def friedman_deep_relu_adam() -> Parts:
    train, val = friedman()
    return Parts(model=mlp([10, 32, 32, 32, 32, 1]), loss_fn=regress, train=train, val=val)


@raw(optimizer="AdamW", usual_lr=1e-3, total_steps=1000, batch_size=16)
def friedman_narrow_relu_adamw() -> Parts:
    train, val = friedman()
    return Parts(model=mlp([10, 16, 16, 16, 1]), loss_fn=regress, train=train, val=val)


# -------------------------------------------------------------------------------------------------------- small data
@raw(optimizer="SGD", usual_lr=0.1, total_steps=200, batch_size=4)
def eight_samples_sgd() -> Parts:
    return Parts(model=mlp([4, 32, 1]), loss_fn=regress, train=few_samples(), val=few_samples())


@raw(optimizer="Adam", usual_lr=1e-3, total_steps=200, batch_size=4)
def eight_samples_adam() -> Parts:
    return Parts(model=mlp([4, 32, 1]), loss_fn=regress, train=few_samples(), val=few_samples())
