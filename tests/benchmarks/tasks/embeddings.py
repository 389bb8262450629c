"""Matrix factorisation with dense and with sparse gradients."""

from __future__ import annotations

from tests.benchmarks.tasks.data import ratings
from tests.benchmarks.tasks.losses import regress
from tests.benchmarks.tasks.networks import MatrixFactorisation
from tests.benchmarks.tasks.task import Parts, task

__all__: list[str] = []


@task(optimizer="Adam", usual_lr=1e-3, total_steps=1000, batch_size=256)
def ratings_dense_adam() -> Parts:
    train, val = ratings()
    return Parts(model=MatrixFactorisation(400, 300, 8, sparse=False), loss_fn=regress, train=train, val=val)


@task(optimizer="SGD", usual_lr=0.1, total_steps=2000, batch_size=64)
def ratings_sparse_sgd() -> Parts:
    train, val = ratings()
    return Parts(model=MatrixFactorisation(400, 300, 8, sparse=True), loss_fn=regress, train=train, val=val)


@task(optimizer="Adagrad", usual_lr=1e-2, total_steps=1500, batch_size=128)
def ratings_sparse_adagrad() -> Parts:
    train, val = ratings()
    return Parts(model=MatrixFactorisation(400, 300, 8, sparse=True), loss_fn=regress, train=train, val=val)
