import dataclasses
import inspect
import re
from typing import get_args

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lrfinder import RULES, SCHEDULES, SMOOTHINGS, LRFinder, options
from lrfinder.curve import MODES
from lrfinder.errors import ArgumentError
from lrfinder.options import FindOptions
from lrfinder.training import VAL_MODES

# What find() is given by mistake, and what it says. test_finder.py passes all of them to it.
BAD = [
    ({"start_lr": 0}, r"find\(start_lr=...\) must be a positive, finite number, got 0"),
    ({"start_lr": -1e-3}, r"find\(start_lr=...\) must be a positive, finite number, got -0.001"),
    ({"start_lr": float("nan")}, r"find\(start_lr=...\) must be .* got nan"),
    ({"start_lr": True}, r"find\(start_lr=...\) must be .* got True"),
    ({"start_lr": "1e-3"}, r"find\(start_lr=...\) must be .* got '1e-3'"),
    ({"end_lr": float("inf")}, r"find\(end_lr=...\) must be .* got inf"),
    ({"end_lr": 0.0}, r"find\(end_lr=...\) must be .* got 0.0"),
    ({"end_lr": [1.0]}, r"find\(end_lr=...\) must be .* got \[1.0\]"),
    ({"start_lr": 1e-3, "end_lr": 1e-4}, "end_lr must exceed start_lr=0.001, got end_lr=0.0001"),
    ({"start_lr": 1e-3, "end_lr": 1e-3}, "end_lr must exceed start_lr=0.001, got end_lr=0.001"),
    ({"num_iter": 4}, "num_iter must be at least 5, got num_iter=4"),
    ({"num_iter": 0}, r"find\(num_iter=...\) must be an integer of at least 1, got 0"),
    ({"num_iter": 100.0}, r"find\(num_iter=...\) must be an integer .* got 100.0"),
    ({"num_iter": None}, r"find\(num_iter=...\) must be an integer .* got None"),
    ({"num_iter": True}, r"find\(num_iter=...\) must be an integer .* got True"),
    ({"mode": "exp"}, r"find\(mode=...\) must be one of exponential, linear, got 'exp'"),
    ({"mode": None}, r"find\(mode=...\) must be one of exponential, linear, got None"),
    ({"smoothing": 0.05}, r"find\(smoothing=...\) must be one of gaussian, ema, median, none, got 0.05"),
    ({"rule": "steep"}, r"find\(rule=...\) must be one of auto, .*fastai_steep.* or a function .*, got 'steep'"),
    ({"rule": "steepest"}, r"got 'steepest'; it is a landmark, see result.landmarks.steepest"),
    ({"rule": ["auto"]}, r"find\(rule=...\) must be one of auto"),
    ({"schedule": "onecycle"}, r"find\(schedule=...\) must be one of one_cycle, .*, got 'onecycle'"),
    ({"val_mode": "test"}, r"find\(val_mode=...\) must be one of eval, train, got .test."),
    ({"val_batches": 0}, r"find\(val_batches=...\) must be an integer of at least 1, got 0"),
    ({"repeats": 0}, r"find\(repeats=...\) must be an integer of at least 1, got 0"),
    ({"repeats": 2.5}, r"find\(repeats=...\) must be an integer of at least 1, got 2.5"),
    ({"total_steps": 0}, r"find\(total_steps=...\) must be an integer of at least 1, got 0. It is epochs \* len"),
    ({"total_steps": 10.0}, r"find\(total_steps=...\) must be an integer of at least 1, got 10.0"),
    ({"total_steps": "10"}, r"find\(total_steps=...\) must be an integer of at least 1, got '10'"),
    ({"refine": True}, r"find\(refine=True\) needs total_steps, .* got total_steps=None"),
    ({"refine": True, "total_steps": 10, "repeats": 2}, r"find\(refine=True\) .* repeats must be 1, got repeats=2"),
    ({"refine": 39, "total_steps": 10}, r"find\(refine=...\) must be True or a budget of at least 40 .* got refine=39"),
    ({"refine": -1, "total_steps": 10}, r"find\(refine=...\) must be an integer of at least 1, got -1"),
    ({"refine": "yes", "total_steps": 10}, r"find\(refine=...\) must be an integer of at least 1, got 'yes'"),
    (
        {"refine": True, "total_steps": 9, "rule": "fastai_valley"},
        r"rule must be 'refine' or left out, got rule='fastai_v",
    ),
    ({"on_step": 3}, r"find\(on_step=...\) must be callable, got int"),
]


def names(case):
    return ", ".join(f"{k}={v!r}" for k, v in case.items()) if isinstance(case, dict) else ""


@pytest.mark.parametrize(("given", "message"), BAD, ids=names)
def test_a_value_that_breaks_a_rule_is_named(given, message):
    with pytest.raises(ArgumentError, match=message):
        FindOptions(**given)


def test_the_options_are_the_arguments_of_find_with_their_defaults():
    arguments = inspect.signature(LRFinder.find).parameters
    fields = {field.name: field.default for field in dataclasses.fields(FindOptions)}
    assert fields == {name: p.default for name, p in arguments.items() if name not in {"self", "loader"}}


def test_every_option_says_whether_the_command_line_has_it():
    missing = [field.name for field in dataclasses.fields(FindOptions) if "help" not in field.metadata]
    assert missing == [], "give these fields metadata=_option(...) or metadata=PYTHON_ONLY"


def test_every_option_is_explained_in_the_docstring_of_find():
    explained = re.findall(r"^ {4}(\w+): ", inspect.getdoc(LRFinder.find), re.MULTILINE)
    missing = [field.name for field in dataclasses.fields(FindOptions) if field.name not in explained]
    assert missing == [], "explain these arguments in LRFinder.find"


@pytest.mark.parametrize(
    ("alias", "registry"),
    [
        (options.Mode, MODES),
        (options.Smoothing, SMOOTHINGS),
        (options.RuleName, RULES),
        (options.ScheduleName, SCHEDULES),
        (options.ValMode, VAL_MODES),
    ],
)
def test_the_types_name_what_the_registries_hold(alias, registry):
    assert list(get_args(alias)) == list(registry), "bring lrfinder/options.py up to date"


def test_they_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FindOptions().num_iter = 3


def test_numbers_of_numpy_become_plain_ones():
    options = FindOptions(
        start_lr=np.float32(0.5),
        end_lr=np.float64(2),
        num_iter=np.int64(20),
        total_steps=np.int32(7),
        repeats=np.uint8(2),
    )
    values = (options.start_lr, options.end_lr, options.num_iter, options.total_steps, options.repeats)
    assert values == (0.5, 2.0, 20, 7, 2)
    assert [type(value) for value in values] == [float, float, int, int, int]


@pytest.mark.parametrize("ends", [{}, {"start_lr": 5.0}, {"end_lr": 1e-9}, {"start_lr": 1, "end_lr": 2}])
def test_either_end_may_be_left_out(ends):
    options = FindOptions(**ends)

    assert (options.start_lr, options.end_lr) == (ends.get("start_lr"), ends.get("end_lr"))


def test_repeats_want_a_loader_that_shuffles():
    options = FindOptions(repeats=3)
    data = TensorDataset(torch.arange(4.0))
    options.check_loader(DataLoader(data, shuffle=True))
    for loader in ([1, 2], iter([1, 2]), DataLoader(data)):
        kind = type(loader).__name__
        with pytest.raises(ArgumentError, match=rf"find\(repeats=3\) .* must shuffle, got a {kind} .*shuffle=True"):
            options.check_loader(loader)


def test_both_loaders_must_give_batches():
    with pytest.raises(ArgumentError, match=r"^loader must be an iterable of batches, got int"):
        FindOptions().check_loader(3)
    with pytest.raises(ArgumentError, match=r"^val_loader must be an iterable of batches, got Tensor"):
        FindOptions(val_loader=torch.ones(3)).check_loader([1])


@pytest.mark.parametrize(
    ("given", "refine", "budget"),
    [
        ({}, False, None),
        ({"rule": "refine"}, True, None),
        ({"rule": "refine", "refine": 200}, 200, 200),
        ({"refine": True}, True, None),
        ({"refine": np.int64(400)}, 400, 400),
    ],
)
def test_refine_may_be_a_rule_a_flag_or_a_budget(given, refine, budget):
    options = FindOptions(total_steps=1000, **given)
    assert (options.refine, options.refine_budget) == (refine, budget)
    assert type(options.refine) in {bool, int}
