from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from lrfinder.curve.curve import Curve
from lrfinder.options import FindOptions
from lrfinder.training.batches import Batches
from lrfinder.warnings import setup_warnings


def search(loader=(1,), noted=None, read=0, **options):
    batches = Batches(loader)
    batches.take(read)
    return SimpleNamespace(batches=batches, options=FindOptions(**options), noted=noted)


def curve(*lrs):
    return Curve(lrs=lrs, losses=lrs, smoothed=lrs, indices=np.arange(len(lrs)), stop_reason=None)


def sgd():
    return torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)


def test_nothing_is_doubted_without_a_reason():
    assert setup_warnings(search(), curve(0.1, 0.2), sgd()) == []
    assert setup_warnings(search(), curve(), sgd()) == []


def test_what_an_iterator_gave_is_consumed():
    (sentence,) = setup_warnings(search(iter(range(9)), read=4), curve(0.1), sgd())
    assert sentence.startswith("The loader is an iterator: the 4 batches that it gave are consumed. Pass")
    (sentence,) = setup_warnings(search(val_loader=iter([1])), curve(0.1), sgd())
    assert sentence.startswith("The val_loader is an iterator: the batches that it gave are consumed. Pass")


def test_an_error_that_was_noted_is_told():
    (sentence,) = setup_warnings(search(noted=ValueError("loss is NaN")), curve(0.1), sgd())
    assert sentence.startswith("Your code raised ValueError (loss is NaN) on a loss that was not finite")


@pytest.mark.parametrize("steps_before", [0, 3])
@pytest.mark.parametrize("wrapped", [False, True])
def test_adafactor_tries_no_rate_above_its_cap(steps_before, wrapped):
    parameter = nn.Parameter(torch.ones(2, 2))
    optimizer = torch.optim.Adafactor([parameter], lr=0.01)
    for _ in range(steps_before):
        parameter.grad = torch.ones(2, 2)
        optimizer.step()
    lrs = np.array([0.1, 0.3, 0.6, 0.9])
    caps = 1 / np.sqrt(steps_before + 1 + np.arange(4))
    (sentence,) = setup_warnings(search(), curve(*lrs), SimpleNamespace(optimizer=optimizer) if wrapped else optimizer)
    assert f"above {lrs[lrs > caps].min():.1e} none was tried" in sentence
    assert setup_warnings(search(), curve(1e-4, 1e-3), optimizer) == []
