from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from lrfinder.curve.curve import Curve
from lrfinder.options import FindOptions
from lrfinder.warnings import setup_warnings


def warned(curve, optimizer, *, consumed=0, error=None, **options):
    outcome = SimpleNamespace(curve=curve, consumed=consumed, error=error)
    return setup_warnings(outcome, FindOptions(**options), optimizer)


def curve(*lrs):
    return Curve(lrs=lrs, losses=lrs, smoothed=lrs, indices=np.arange(len(lrs)), stop_reason=None)


def sgd():
    return torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)


def test_a_healthy_setup_gives_no_warning():
    assert warned(curve(0.1, 0.2), sgd()) == []
    assert warned(curve(), sgd()) == []


def test_the_batches_of_an_iterator_are_said_to_be_consumed():
    (sentence,) = warned(curve(0.1), sgd(), consumed=4)
    assert sentence.startswith("The loader is an iterator: the 4 batches that it gave are consumed. Pass")
    (sentence,) = warned(curve(0.1), sgd(), val_loader=iter([1]))
    assert sentence.startswith("The val_loader is an iterator: the batches that it gave are consumed. Pass")


def test_an_error_on_a_loss_that_was_not_finite_is_quoted():
    (sentence,) = warned(curve(0.1), sgd(), error=ValueError("loss is NaN"))
    assert sentence.startswith("Your code raised ValueError (loss is NaN) on a loss that was not finite")


@pytest.mark.parametrize("steps_before", [0, 3])
@pytest.mark.parametrize("wrapped", [False, True])
def test_adafactor_uses_no_lr_above_its_cap(steps_before, wrapped):
    parameter = nn.Parameter(torch.ones(2, 2))
    optimizer = torch.optim.Adafactor([parameter], lr=0.01)
    for _ in range(steps_before):
        parameter.grad = torch.ones(2, 2)
        optimizer.step()
    lrs = np.array([0.1, 0.3, 0.6, 0.9])
    caps = 1 / np.sqrt(steps_before + 1 + np.arange(4))
    (sentence,) = warned(curve(*lrs), SimpleNamespace(optimizer=optimizer) if wrapped else optimizer)
    assert f"above {lrs[lrs > caps].min():.1e} none was used" in sentence
    assert warned(curve(1e-4, 1e-3), optimizer) == []
