"""Multilayer perceptrons on small data: batches tiny and large, noisy labels, depth, long trainings."""

from __future__ import annotations

from torch import nn

from tests.benchmarks.tasks.data import digits, mnist1d, noisy_labels, spirals, teacher_pairs, wine
from tests.benchmarks.tasks.losses import classify, contrast, reconstruct, regress, smoothed
from tests.benchmarks.tasks.networks import mlp
from tests.benchmarks.tasks.task import Parts, task

__all__: list[str] = []


@task(optimizer="Adam", usual_lr=1e-3, total_steps=800, batch_size=64)
def digits_mlp_adam() -> Parts:
    train, val = digits()
    return Parts(model=mlp([64, 128, 128, 10]), loss_fn=classify, train=train, val=val)


@task(optimizer="SGD", usual_lr=0.1, total_steps=1000, batch_size=64)
def digits_mlp_sgd() -> Parts:
    train, val = digits()
    return Parts(model=mlp([64, 64, 64, 10]), loss_fn=classify, train=train, val=val)


@task(optimizer="SGD", usual_lr=0.1, options={"momentum": 0.9}, total_steps=600, batch_size=64)
def noisy_labels_mlp_sgd_momentum() -> Parts:
    train, val = digits()
    return Parts(model=mlp([64, 128, 10]), loss_fn=classify, train=noisy_labels(train, 0.3), val=val)


@task(optimizer="Adam", usual_lr=1e-3, total_steps=1500, batch_size=4)
def tiny_batch_mlp_adam() -> Parts:
    train, val = digits()
    return Parts(model=mlp([64, 64, 10]), loss_fn=classify, train=train, val=val)


@task(optimizer="SGD", usual_lr=0.1, options={"momentum": 0.9, "nesterov": True}, total_steps=300, batch_size=1024)
def large_batch_mlp_nesterov() -> Parts:
    train, val = digits()
    return Parts(model=mlp([64, 128, 128, 10]), loss_fn=smoothed, train=train, val=val, val_loss_fn=classify)


@task(optimizer="Adagrad", usual_lr=1e-2, total_steps=200, batch_size=16)
def wine_mlp_adagrad() -> Parts:
    train, val = (
        noisy_labels(pair, 0.1, 3) for pair in wine()
    )  # without noise the best rate is infinite: the classes are separable
    return Parts(model=mlp([13, 32, 3]), loss_fn=classify, train=train, val=val)


@task(optimizer="NAdam", usual_lr=2e-3, total_steps=1000, batch_size=64)
def spirals_mlp_nadam() -> Parts:
    train, val = spirals()
    return Parts(model=mlp([2, 64, 64, 3]), loss_fn=classify, train=train, val=val)


@task(optimizer="Muon", usual_lr=2e-2, options={"weight_decay": 0.0}, total_steps=300, batch_size=64)
def digits_mlp_muon() -> Parts:
    train, val = digits()
    return Parts(model=mlp([64, 64, 64, 10], bias=False), loss_fn=classify, train=train, val=val)


@task(optimizer="AdamW", usual_lr=1e-3, options={"weight_decay": 0.1}, total_steps=2000, batch_size=100)
def mnist1d_mlp_adamw() -> Parts:
    train, val = mnist1d()
    return Parts(model=mlp([40, 100, 100, 10], nn.GELU), loss_fn=classify, train=train, val=val)


@task(optimizer="SGD", usual_lr=0.1, options={"momentum": 0.9}, total_steps=3000, batch_size=32)
def deep_tanh_sgd_momentum() -> Parts:
    train, val = teacher_pairs()
    return Parts(model=mlp([16, *[32] * 7, 1], nn.Tanh), loss_fn=regress, train=train, val=val)


@task(optimizer="SGD", usual_lr=0.1, options={"momentum": 0.9}, total_steps=10_000, batch_size=16)
def ten_thousand_steps_sgd_momentum() -> Parts:
    train, val = teacher_pairs()
    return Parts(model=mlp([16, 64, 1]), loss_fn=regress, train=train, val=val)


@task(optimizer="Adam", usual_lr=1e-3, total_steps=1000, batch_size=64)
def autoencoder_adam() -> Parts:
    train, val = digits()
    return Parts(model=mlp([64, 48, 8, 48, 64]), loss_fn=reconstruct, train=train, val=val)


@task(optimizer="AdamW", usual_lr=1e-3, total_steps=500, batch_size=128)
def contrastive_mlp_adamw() -> Parts:
    train, val = digits()
    return Parts(model=mlp([64, 128, 128, 32]), loss_fn=contrast, train=train, val=val)


@task(optimizer="RMSprop", usual_lr=1e-3, total_steps=700, batch_size=32)
def teacher_mlp_rmsprop() -> Parts:
    train, val = teacher_pairs()
    return Parts(model=mlp([16, 64, 64, 1]), loss_fn=regress, train=train, val=val)
