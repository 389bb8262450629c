"""Random streams go on from where they were."""

import random

import numpy as np
import torch

from lrfinder.snapshot.error_collector import ErrorCollector
from lrfinder.snapshot.rng import RandomStreams
from tests.fingerprint import differences, random_state


def draw():
    random.gauss(0, 1)  # leaves a second number behind
    np.random.standard_normal()  # noqa: NPY002 - as above
    return random.random(), np.random.random(), torch.rand(2).tolist()  # noqa: NPY002 - the global stream is meant


def test_global_streams_any_number_of_times():
    draw()
    before = random_state()
    streams = RandomStreams()
    drawn = []
    for _ in range(3):
        drawn.append(draw())
        streams.restore(ErrorCollector())
        assert differences(before, random_state()) == []
    assert drawn[0] == drawn[1] == drawn[2]


def test_devices(device):
    streams = RandomStreams(devices=[device, "cpu", "meta"])
    drawn = torch.rand(3, device=device).tolist()
    streams.restore(ErrorCollector())
    assert torch.rand(3, device=device).tolist() == drawn


def test_generators():
    generators = {
        "torch": torch.Generator().manual_seed(1), "numpy": np.random.default_rng(1), "python": random.Random(1),
        "legacy": np.random.RandomState(1), "philox": np.random.Generator(np.random.Philox(3)),
    }  # fmt: skip

    def draw_each():
        first = torch.randn(3, generator=generators["torch"]).tolist()
        others = [generators[name].standard_normal() for name in ("numpy", "philox")]
        return first, others, generators["python"].gauss(0, 1), generators["legacy"].randn()

    draw_each()
    streams = RandomStreams(generators.items())
    drawn = draw_each()
    draw_each()
    for _ in range(2):
        streams.restore(ErrorCollector())
        assert draw_each() == drawn


def test_a_failure_is_noted_and_the_rest_restored(monkeypatch):
    monkeypatch.setattr(random, "setstate", lambda state: 1 / 0)
    streams = RandomStreams()
    drawn = torch.rand(3).tolist()
    errors = ErrorCollector()
    streams.restore(errors)
    assert [(name, type(error)) for name, error in errors] == [("Python's random", ZeroDivisionError)]
    assert torch.rand(3).tolist() == drawn
