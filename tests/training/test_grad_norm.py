"""The gradient norms of a sweep: what they are, and that without them nothing is computed."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from lrfinder import ArgumentError, LRFinder
from lrfinder.training.grad_norm import total_grad_norm

pytestmark = pytest.mark.filterwarnings("ignore::lrfinder.LRFinderWarning")
RANGE = {"start_lr": 1e-4, "end_lr": 1e-1, "num_iter": 12, "progress": False}


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))


def batches(count=4):
    return [(torch.randn(8, 3), torch.randn(8, 2)) for _ in range(count)]


def adam(model):
    return torch.optim.Adam(model.parameters(), lr=1e-3)


def by_hand(model, data, lrs, accumulation=1, make=adam):
    """Return the norms of a plain loop at these learning rates."""
    model = copy.deepcopy(model)
    optimizer = make(model)
    norms, place = [], 0
    for lr in lrs:
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        for _ in range(accumulation):
            inputs, targets = data[place % len(data)]
            (nn.functional.mse_loss(model(inputs), targets) / accumulation).backward()
            place += 1
        norms.append(torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item())
        optimizer.step()
    return norms


@pytest.mark.parametrize("options", [{}, {"max_grad_norm": 1e9}, {"accumulation_steps": 2}], ids=str)
def test_norms_are_those_of_a_plain_loop(options):
    model, data = net(), batches()
    finder = LRFinder(model, adam(model), nn.MSELoss(), **options)
    result = finder.find(data, grad_norms=True, **RANGE)
    wanted = by_hand(model, data, result.lrs, options.get("accumulation_steps", 1))
    assert result.grad_norms == pytest.approx(wanted, rel=1e-5)


def test_norms_are_taken_before_clipping():
    model, data = net(), batches()
    result = LRFinder(model, adam(model), nn.MSELoss(), max_grad_norm=1e-3).find(data, grad_norms=True, **RANGE)
    assert result.grad_norms[0] == pytest.approx(by_hand(model, data, result.lrs[:1])[0], rel=1e-5)
    assert (result.grad_norms > 1e-2).all()


def test_with_a_closure_it_is_the_norm_of_the_first_call():
    model, data = net(), batches()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)
    result = LRFinder(model, optimizer, nn.MSELoss()).find(data, grad_norms=True, **RANGE)
    assert result.grad_norms[0] == pytest.approx(by_hand(model, data, [1e-4])[0], rel=1e-5)


def test_a_scaler_changes_no_norm():
    model, data = net(), batches()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    result = LRFinder(model, adam(model), nn.MSELoss(), grad_scaler=scaler).find(data, grad_norms=True, **RANGE)
    assert result.grad_norms == pytest.approx(by_hand(model, data, result.lrs), rel=1e-4)


def test_sparse_gradients_count():
    embedding = nn.Embedding(4, 2, sparse=True)
    embedding(torch.tensor([1, 1, 2])).sum().backward()
    assert total_grad_norm(embedding.parameters()).item() == pytest.approx(np.sqrt(2**2 * 2 + 1**2 * 2))


def test_parameters_without_a_gradient_count_as_zero():
    frozen, weight = torch.zeros(3, requires_grad=True), torch.zeros(2, requires_grad=True)
    (weight * torch.tensor([3.0, 4.0])).sum().backward()
    assert total_grad_norm([frozen, weight]).item() == 5.0
    assert total_grad_norm([frozen]).item() == 0.0


def test_a_norm_that_is_not_finite_is_infinite():
    model, calls = net(), []

    def loss_fn(model, batch):
        calls.append(1)
        outputs = model(batch[0])
        bad = torch.sqrt((outputs.sum() * 0).abs()) if len(calls) == 3 else 0.0  # its derivative is infinite
        return nn.functional.mse_loss(outputs, batch[1]) + bad

    result = LRFinder(model, adam(model), loss_fn=loss_fn).find(batches(), grad_norms=True, **RANGE)
    assert np.isfinite(result.grad_norms).tolist() == [True, True, False]


def test_a_users_step_is_refused_before_anything_changes():
    model = net()
    finder = LRFinder(model, adam(model), step=lambda batch: 1.0)
    with pytest.raises(ArgumentError, match=r"grad_norms=True\) needs a step that LRFinder takes, .* use loss_fn"):
        finder.find(batches(), grad_norms=True, **RANGE)


def test_without_them_no_norm_is_computed_and_losses_are_the_same_bits():
    def losses(**options):
        model, data = net(), batches()
        result = LRFinder(model, adam(model), nn.MSELoss()).find(data, **RANGE, **options)
        return result.losses.tolist(), result.grad_norms

    plain, none = losses()
    measured, norms = losses(grad_norms=True)
    assert none is None
    assert plain == measured
    assert len(norms) == len(measured)


def test_repeats_give_mean_norms():
    model = net()
    data = torch.utils.data.TensorDataset(torch.randn(64, 3), torch.randn(64, 2))
    loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)
    result = LRFinder(model, adam(model), nn.MSELoss()).find(loader, grad_norms=True, repeats=2, **RANGE)
    assert result.grad_norms.shape == result.lrs.shape
