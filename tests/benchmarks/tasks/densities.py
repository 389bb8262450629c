"""Densities, whose loss goes below zero."""

from __future__ import annotations

from tests.benchmarks.tasks.data import density_points, sine_with_noise
from tests.benchmarks.tasks.losses import gaussian_nll, negative_log_density
from tests.benchmarks.tasks.networks import CouplingFlow, Mixture, mlp
from tests.benchmarks.tasks.task import Parts, task

__all__: list[str] = []


@task(optimizer="Adam", usual_lr=1e-3, total_steps=1000, batch_size=128)
def flow_adam() -> Parts:
    train, val = density_points("moons")
    return Parts(model=CouplingFlow(), loss_fn=negative_log_density, train=(train,), val=(val,))


@task(optimizer="SGD", usual_lr=0.1, options={"momentum": 0.9}, total_steps=800, batch_size=128)
def mixture_sgd_momentum() -> Parts:
    train, val = density_points("clusters")
    return Parts(model=Mixture(), loss_fn=negative_log_density, train=(train,), val=(val,))


@task(optimizer="Adam", usual_lr=1e-3, total_steps=1000, batch_size=64)
def spread_regression_adam() -> Parts:
    train, val = sine_with_noise()
    return Parts(model=mlp([1, 64, 64, 2]), loss_fn=gaussian_nll, train=train, val=val)
