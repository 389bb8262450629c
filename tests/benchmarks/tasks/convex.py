"""Convex problems: linear and logistic regression."""

from __future__ import annotations

from torch import nn

from tests.benchmarks.tasks.data import breast_cancer, diabetes, digits, iris, linear_system, noisy_labels
from tests.benchmarks.tasks.losses import classify, regress
from tests.benchmarks.tasks.task import Parts, task

__all__: list[str] = []


@task(optimizer="SGD", usual_lr=0.1, total_steps=600, batch_size=32)
def digits_softmax_sgd() -> Parts:
    train, val = digits()
    return Parts(model=nn.Linear(64, 10), loss_fn=classify, train=train, val=val)


@task(optimizer="SGD", usual_lr=0.1, total_steps=150, batch_size=16)
def iris_softmax_sgd() -> Parts:
    train, val = (
        noisy_labels(pair, 0.1, 3) for pair in iris()
    )  # without noise the best rate is infinite: the classes are separable
    return Parts(model=nn.Linear(4, 3), loss_fn=classify, train=train, val=val)


@task(optimizer="Adam", usual_lr=1e-3, total_steps=300, batch_size=32)
def cancer_logistic_adam() -> Parts:
    train, val = breast_cancer()
    return Parts(model=nn.Linear(30, 2), loss_fn=classify, train=train, val=val)


@task(optimizer="SGD", usual_lr=0.1, total_steps=300, batch_size=32)
def diabetes_linear_sgd() -> Parts:
    (x, y), (x_val, y_val) = diabetes()
    return Parts(model=nn.Linear(10, 1), loss_fn=regress, train=(x, y[:, None]), val=(x_val, y_val[:, None]))


@task(optimizer="SGD", usual_lr=0.1, options={"momentum": 0.9}, total_steps=500, batch_size=64)
def ill_conditioned_sgd_momentum() -> Parts:
    (x, y), (x_val, y_val) = linear_system()
    return Parts(model=nn.Linear(100, 1), loss_fn=regress, train=(x, y[:, None]), val=(x_val, y_val[:, None]))


@task(optimizer="Adam", usual_lr=1e-3, total_steps=400, batch_size=2000)
def full_batch_linear_adam() -> Parts:
    (x, y), (x_val, y_val) = linear_system(features=50, condition=100.0)
    return Parts(model=nn.Linear(50, 1), loss_fn=regress, train=(x, y[:, None]), val=(x_val, y_val[:, None]))
