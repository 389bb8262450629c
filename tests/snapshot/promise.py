"""What every test of a snapshot checks: everything is as before, clean and after a fault."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from lrfinder import Snapshot
from tests.fingerprint import Fingerprint, differences, random_state

__all__ = ["Fault", "Watch", "check", "fail_within", "mlp", "trainer"]


class Fault(Exception):
    """What the user's code raises in these tests."""


class Watch:
    """Compares identities and bits of everything with what they were."""

    def __init__(self, **roots):
        self._roots = roots
        self._before = self._look()

    def _look(self):
        return {**Fingerprint(**self._roots).values, **random_state()}

    def assert_as_before(self):
        assert differences(self._before, self._look()) == []

    def assert_changed(self):
        assert differences(self._before, self._look()) != []


def fail_within(work, modules=(), optimizers=(), *, error=None, **options):
    """Do some work within a snapshot, then raise."""
    with Snapshot(modules, optimizers, **options):
        work()
        raise Fault if error is None else error


def check(model, train, *, optimizers=(), modules=None, watched=None, **options):
    """Train around a snapshot: clean, twice rewound, faulted; each time everything must be as before."""
    modules = [model] if modules is None else modules
    watch = Watch(model=model, modules=modules, optimizers=optimizers, more=watched)
    with Snapshot(modules, optimizers, **options) as snapshot:
        train()
        watch.assert_changed()
        snapshot.rewind()
        first = train()
        snapshot.rewind()
        assert train() == first
    watch.assert_as_before()
    with pytest.raises(Fault):
        fail_within(train, modules, optimizers, **options)
    watch.assert_as_before()


def mlp(device="cpu"):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2)).to(device)


def trainer(model, optimizer, *, shape=(6, 4), steps=2, loss=None):
    """Return a function that trains for some steps on random batches and returns the losses."""

    def train():
        losses = []
        device = next(model.parameters()).device

        def closure():
            optimizer.zero_grad()
            outputs = model(torch.randn(shape, device=device) + random.random() + np.random.random())  # noqa: NPY002 - the global stream is meant
            value = (outputs**2).mean() if loss is None else loss(outputs)
            value.backward()
            losses.append(value.item())
            return value

        for _ in range(steps):
            optimizer.step(closure)
        return losses

    return train
