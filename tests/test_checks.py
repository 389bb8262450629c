from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from lrfinder import checks
from lrfinder.errors import ArgumentError

COUNT = "LRFinder.find(repeats=...)"


@pytest.mark.parametrize("value", [1, 7, np.int64(7), np.uint8(7), torch.tensor(7)])
def test_whole_numbers_of_any_library_become_plain_ints(value):
    assert checks.positive_int(COUNT, value) == int(value)
    assert type(checks.positive_int(COUNT, value)) is int


@pytest.mark.parametrize("value", [0, -1, 1.0, 10.0, "10", None, True, False, np.float64(3), float("nan"), [3]])
def test_error_for_anything_but_a_positive_integer(value):
    with pytest.raises(ArgumentError, match=r"find\(repeats=...\) must be an integer of at least 1, got .*\. Hint\.$"):
        checks.positive_int(COUNT, value, "Hint.")


@pytest.mark.parametrize("value", [1, 0.5, 1e-300, np.float32(0.5), np.int64(2), torch.tensor(1.0), torch.tensor(2)])
def test_positive_numbers_of_any_library_become_plain_floats(value):
    assert checks.check_positive("f(x=...)", value) == float(value)
    assert type(checks.check_positive("f(x=...)", value)) is float


@pytest.mark.parametrize(
    "value",
    [
        0,
        -1.0,
        float("nan"),
        float("inf"),
        "0.1",
        None,
        True,
        1j,
        [0.1],
        np.array([0.1]),
        torch.ones(1),
        torch.tensor(True),
        torch.tensor(1j),
    ],
)
def test_error_for_anything_but_a_positive_number(value):
    with pytest.raises(ArgumentError, match=r"f\(x=...\) must be a positive, finite number, got "):
        checks.check_positive("f(x=...)", value)


@pytest.mark.parametrize("value", [[], (), [nn.Linear(1, 1)], {1}, (g for g in [torch.Generator()])])
def test_extra_state_is_any_collection(value):
    assert isinstance(checks.extra_states(value), tuple)


def test_a_scaler_by_another_class_will_do():
    model = nn.Linear(1, 1)
    scaler = SimpleNamespace(scale=None, step=None, update=None)
    checks.check_optimizer(torch.optim.SGD(model.parameters(), lr=0.1), model, scaler)


def test_an_optimizer_may_hold_more_than_the_model_or_less():
    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    checks.check_optimizer(torch.optim.SGD([*model.parameters(), *other.parameters()], lr=0.1), model, None)
    checks.check_optimizer(torch.optim.SGD([model.bias], lr=0.1), model, None)


def test_an_initialised_lazy_model_will_do():
    model = nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d())
    with pytest.raises(ArgumentError, match="lazy module '0'"):
        checks.check_model(model)
    model(torch.ones(2, 4))
    checks.check_model(model)


def takes_model_and_batch(model, batch):
    return model(batch).mean()


@pytest.mark.parametrize(
    ("ways", "message"),
    [
        (
            {"criterion": takes_model_and_batch},
            r"criterion=...\) .* a function of \(model, batch\); pass it as loss_fn",
        ),
        ({"criterion": lambda outputs: outputs.mean()}, r"called as criterion\(outputs, targets\), got .* \(outputs\)"),
        ({"criterion": nn.ReLU()}, r"called as criterion\(outputs, targets\), got a function of \(input\)"),
        ({"loss_fn": lambda model, x, y: 0}, r"called as loss_fn\(model, batch\), got a function of \(model, x, y\)"),
        ({"loss_fn": nn.functional.mse_loss, "criterion": None}, None),
        ({"step": lambda model, batch: 0}, r"called as step\(batch\), got a function of \(model, batch\)"),
        ({"step": lambda batch, optimizer=None: 0}, None),
        ({"criterion": lambda *outputs_and_targets: 0}, None),
        ({"criterion": torch.mul}, None),  # written in C: no signature
    ],
)
def test_a_way_to_a_loss_that_takes_other_arguments_is_found_out_before_it_is_called(ways, message):
    ways = {"criterion": None, "loss_fn": None, "step": None, **ways}
    if message is None:
        checks.check_ways_to_a_loss(**ways, replaced_by_step={})
        return
    with pytest.raises(ArgumentError, match=message):
        checks.check_ways_to_a_loss(**ways, replaced_by_step={})


@pytest.mark.parametrize("several", [dict, list, tuple])
def test_several_models_or_optimizers_are_answered_with_the_remedy(several):
    parts = {"a": nn.Linear(1, 1), "b": nn.Linear(1, 1)}
    models = parts if several is dict else several(parts.values())
    with pytest.raises(ArgumentError, match=r"one torch.nn.Module, got a (dict|list|tuple) of 2; .*ModuleDict.* step"):
        checks.check_model(models)
    made = {name: torch.optim.SGD(part.parameters(), lr=0.1) for name, part in parts.items()}
    optimizers = made if several is dict else several(made.values())
    with pytest.raises(ArgumentError, match=r"one torch optimizer, got a .* of 2; .* extra_state=.* step="):
        checks.check_optimizer(optimizers, parts["a"], None)


def test_inference_mode_is_refused_with_what_was_meant():
    with torch.inference_mode():
        model = nn.Linear(1, 1)
        with pytest.raises(
            ArgumentError, match=r"trains for some steps, .* under torch.inference_mode\(\); call it out"
        ):
            checks.check_recording()
    with pytest.raises(ArgumentError, match=r"made under torch.inference_mode\(\); build or load the model outside"):
        checks.check_model(model)
    checks.check_recording()
