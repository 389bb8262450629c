import re
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from lrfinder import LRFinder
from lrfinder.curve.curve import Context, Curve
from lrfinder.curve.stop_rule import StopReason
from lrfinder.options import FindOptions
from lrfinder.warnings import setup_warnings, unused_lr_warnings, validation_warnings


def warned(curve, optimizer, *, consumed=0, held=None, error=None, **options):
    held = {"loader": "", "val_loader": ""} if held is None else held
    outcome = SimpleNamespace(curve=curve, context=Context(), consumed=consumed, held_iterators=held, error=error)
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


@pytest.mark.parametrize("name", ["loader", "val_loader"])
def test_the_batches_of_an_iterator_in_a_data_set_are_said_to_be_consumed(name):
    held = {"loader": "", "val_loader": ""} | {name: "Stream.source"}
    (sentence,) = warned(curve(0.1), sgd(), consumed=4 if name == "loader" else 0, held=held)
    assert sentence.startswith(f"The {name} reads from one iterator, Stream.source, in every epoch: the ")


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
    wrapper = SimpleNamespace(optimizer=optimizer, param_groups=optimizer.param_groups)
    lrs = np.array([0.1, 0.3, 0.6, 0.9])
    caps = 1 / np.sqrt(steps_before + 1 + np.arange(4))
    (sentence,) = warned(curve(*lrs), wrapper if wrapped else optimizer)
    assert f"above {lrs[lrs > caps].min():.1e} none was used" in sentence
    assert warned(curve(1e-4, 1e-3), optimizer) == []


# LBFGS


def test_lbfgs_on_batches_that_differ_is_named():
    data = [(torch.ones(4, 2), torch.ones(4, 1)), (torch.zeros(4, 2), torch.ones(4, 1))]

    def warnings_of(loader):
        model = nn.Linear(2, 1)
        finder = LRFinder(model, torch.optim.LBFGS(model.parameters()), nn.MSELoss())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return finder.find(loader, start_lr=1e-4, end_lr=1.0, num_iter=20, progress=False).warnings

    assert any("one batch with all of it" in each for each in warnings_of(data))
    assert not any("LBFGS" in each for each in warnings_of(data[:1]))


# Validation losses

REFINED = SimpleNamespace(suggestion=object())


@pytest.mark.parametrize(
    ("layer", "val_mode", "named"),
    [
        (nn.BatchNorm1d(4), "eval", True),
        (nn.BatchNorm1d(4), "train", False),
        (nn.BatchNorm1d(4).eval(), "eval", False),
        (nn.BatchNorm1d(4, track_running_stats=False), "eval", False),
        (nn.LayerNorm(4), "eval", False),
    ],
    ids=["batch norm", "val_mode='train'", "frozen", "batch statistics", "layer norm"],
)
def test_running_statistics_that_lag_behind_in_validation_are_named(layer, val_mode, named):
    model = nn.Sequential(nn.Linear(2, 4), layer)
    outcome, options = SimpleNamespace(refined=None), FindOptions(val_loader=[1], val_mode=val_mode)
    found = validation_warnings(outcome, options, model)
    assert ["Pass val_mode='train' or refine=True, or leave" in each for each in found] == [True] * named
    assert validation_warnings(outcome, FindOptions(val_mode=val_mode), model) == []
    assert validation_warnings(SimpleNamespace(refined=REFINED), options, model) == []


# Learning rates that have no effect


def unused(*groups, moved=True, falls=False):
    optimizer = torch.optim.SGD([{"params": [nn.Parameter(torch.ones(2))]} for _ in range(3)], lr=0.1)
    optimizer.param_groups[2]["name"] = "head"
    flat = SimpleNamespace(has_clear_descent=falls)
    return unused_lr_warnings(SimpleNamespace(curve=flat, groups_without_effect=groups, any_moved=moved), optimizer)


def test_groups_whose_steps_do_not_depend_on_the_lr_are_named():
    assert unused() == []
    [sentence] = unused(0, 2)
    assert "parameter groups 'group 0', 'head': SGD may not use the lr" in sentence
    assert "relative_step" in sentence


def test_warning_if_steps_change_nothing_and_the_loss_does_not_fall():
    [sentence] = unused(moved=False)
    assert sentence.startswith("No step changed the parameters. A step of your own must call optimizer.step()")
    assert unused(moved=False, falls=True) == []


def test_lbfgs_that_stands_still_is_told_to_start_higher():
    outcome = SimpleNamespace(curve=SimpleNamespace(has_clear_descent=False), groups_without_effect=(), any_moved=False)
    [sentence] = unused_lr_warnings(outcome, torch.optim.LBFGS([nn.Parameter(torch.ones(2))]))
    assert "pass a larger start_lr" in sentence


# Learning rates that are multiplied


def test_an_optimizer_that_estimates_its_step_size_is_named():
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=1.0)
    optimizer.param_groups[0]["d"] = 1e-6
    [sentence] = warned(curve(1e-3, 1e-2), optimizer)
    assert "SGD estimates its step size" in sentence
    assert "Train with lr=1.0" in sentence


def test_warning_names_lr_scale():
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=1.0)
    optimizer.param_groups[0]["lr_scale"] = 0.5
    [sentence] = warned(curve(1e-3, 1e-2), optimizer)
    assert "result.group_lrs()" in sentence


@pytest.mark.parametrize(
    ("norm", "expected"),
    [
        (50.0, []),
        (500.0, [r"Gradients explode: .* result.clip_norm\(\) suggests a threshold"]),
        (np.inf, ["A gradient was NaN or infinite although its loss was finite. Clipping cannot mend that"]),
    ],
)
def test_exploding_gradients_and_gradients_that_are_not_finite_are_told_apart(norm, expected):
    lrs = np.geomspace(1e-5, 1.0, 60)
    losses = 1 / (1 + lrs / 1e-2) + np.minimum((lrs / 0.1) ** 4, 1e3)
    norms = np.ones(60)
    norms[20] = norm
    measured = Curve(
        lrs=lrs, losses=losses, smoothed=losses, indices=range(60), stop_reason=StopReason.DIVERGED, grad_norms=norms
    )
    sentences = warned(measured, sgd())
    assert len(sentences) == len(expected)
    assert all(re.match(pattern, sentence) for pattern, sentence in zip(expected, sentences, strict=True))
