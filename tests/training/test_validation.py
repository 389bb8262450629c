import copy

import numpy as np
import pytest
import torch
from torch import nn

from lrfinder import ArgumentError, LRFinder
from lrfinder.training.validation import Validation
from tests.notes import Notes
from tests.training.test_step import CPU, batch_loss, model_and_data

RANGE = {"start_lr": 1e-4, "end_lr": 1.0, "num_iter": 8, "progress": False}


def dropout_model(device=CPU):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2)).to(device)
    model[1].eval()  # frozen, as in fine-tuning
    return model


def test_validation_is_the_mean_over_fixed_batches_in_eval_mode(device):
    model = dropout_model(device)
    _, data = model_and_data()
    validation = Validation(batch_loss(model, nn.MSELoss(), device=device), data)
    flags = [module.training for module in model.modules()]
    buffers = [b.clone() for b in model.buffers()]
    value = validation()
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), buffers, strict=True))
    assert value == validation()  # no dropout
    assert not value.requires_grad
    twin = copy.deepcopy(model).eval()
    expected = np.mean([nn.MSELoss()(twin(x.to(device)), y.to(device)).item() for x, y in data])
    assert value.item() == pytest.approx(expected, rel=1e-5)
    assert all(p.grad is None for p in model.parameters())


def test_validation_keeps_its_precision():
    model, data = model_and_data(dtype=torch.float64)
    validation = Validation(batch_loss(model, nn.MSELoss()), data)
    expected = np.mean([nn.MSELoss()(model(x), y).item() for x, y in data])
    assert validation().item() == pytest.approx(expected, rel=1e-14)
    half = Validation(batch_loss(model, loss_fn=lambda m, b: torch.tensor(b, dtype=torch.bfloat16)), [1.0, 1.0078125])
    assert half().item() == 1.00390625


def test_validation_moves_its_batches_once(device):
    moves = []

    class Batch:
        def to(self, device):
            moves.append(device)
            return self

    model, _ = model_and_data(device)
    validation = Validation(batch_loss(model, loss_fn=lambda m, b: torch.ones(()), device=device), [Batch(), Batch()])
    validation()
    validation()
    assert len(moves) == 2


def test_training_flags_come_back_after_an_error():
    model = dropout_model()
    flags = [module.training for module in model.modules()]

    def broken(model, batch):
        raise OSError("mine")

    with pytest.raises(OSError, match="mine"):
        Validation(batch_loss(model, loss_fn=broken), [1])()
    assert [module.training for module in model.modules()] == flags


class Detector(nn.Module):
    """Returns its loss in training mode and predictions in eval mode, as torchvision's detectors do."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))

    def forward(self, inputs, targets):
        outputs = self.net(inputs)
        return {"loss": nn.functional.mse_loss(outputs, targets)} if self.training else [outputs]


def gradient_penalty(model, batch):
    inputs = batch[0].clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(inputs).sum(), inputs, create_graph=True)
    return slope.pow(2).mean()


def detector():
    torch.manual_seed(0)
    return Detector(), None


def physics():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)), gradient_penalty


CASES = pytest.mark.parametrize("make", [detector, physics])
OPTIONS = pytest.mark.parametrize(
    "options", [{"refine": True, "total_steps": 50}, {"val_loader": True}], ids=["refine", "val"]
)


def finder_and_data(make):
    model, loss_fn = make()
    data = [(torch.randn(8, 3), torch.randn(8, 2)) for _ in range(12)]
    steps = Notes()

    def counted(model, batch):
        steps.append(torch.is_grad_enabled())
        return loss_fn(model, batch) if loss_fn else model(*batch)["loss"]

    return model, LRFinder(model, torch.optim.SGD(model.parameters(), lr=0.1), loss_fn=counted), data, steps


@CASES
@OPTIONS
def test_a_loss_that_fails_in_eval_mode_is_found_before_the_sweep(make, options):
    model, finder, data, calls = finder_and_data(make)
    before = copy.deepcopy(model.state_dict())
    options = options | ({"val_loader": data} if "val_loader" in options else {})
    with pytest.raises(ArgumentError, match=r'in eval mode and under torch.no_grad\(\), .* pass val_mode="train"'):
        finder.find(data, **RANGE, **options)
    assert calls == [False, True, False]  # in eval mode, in training mode, and again; no step was taken
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_an_error_in_training_mode_too_arrives_unchanged():
    model = nn.Linear(3, 2)

    def loss_fn(model, batch):
        raise OSError("mine")

    finder = LRFinder(model, torch.optim.SGD(model.parameters(), lr=0.1), loss_fn=loss_fn)
    with pytest.raises(OSError, match=r"^mine$"):
        finder.find([1, 2], val_loader=[3], **RANGE)


@pytest.mark.filterwarnings("ignore::lrfinder.LRFinderWarning")
@CASES
@OPTIONS
def test_such_a_loss_is_measured_in_train_mode(make, options):
    model, finder, data, _ = finder_and_data(make)
    before = copy.deepcopy(model.state_dict())
    options = options | ({"val_loader": data} if "val_loader" in options else {})
    result = finder.find(data, val_mode="train", **RANGE, **options)
    assert len(result.lrs) >= 3
    assert result.probes or "refine" not in options
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_train_mode_puts_buffers_and_the_random_state_back(device):
    model = dropout_model(device)
    model[1].train()
    _, data = model_and_data()
    validation = Validation(batch_loss(model, nn.MSELoss(), device=device), data, mode="train")
    buffers, state = [b.clone() for b in model.buffers()], torch.get_rng_state()
    assert not validation().requires_grad
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), buffers, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
