"""Every optimizer of torch is swept and restored, on a model that it accepts."""

import inspect
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from lrfinder import ArgumentError, LRFinder, LRFinderWarning, StopReason
from tests.fingerprint import Fingerprint, differences
from tests.optimizers.promise import assert_restored_and_trains_as_without
from tests.problems import Bag, mlp, one_thread, plain, seed_all, tokens, vectors  # noqa: F401 - applies by being imported

pytestmark = pytest.mark.filterwarnings("ignore::lrfinder.LRFinderWarning")

OPTIMIZERS = {
    name: kind
    for name, kind in vars(torch.optim).items()
    if inspect.isclass(kind) and issubclass(kind, Optimizer) and kind is not Optimizer
}
SWEPT = {name: kind for name, kind in OPTIMIZERS.items() if name != "Rprop"}


def accepts(kind, option):
    return option in inspect.signature(kind).parameters


def training(name, device, **options):
    """Return a training of a model that the optimizer accepts."""
    seed_all(0)
    kind = OPTIMIZERS[name]
    options.setdefault("lr", 0.01)
    if name == "SparseAdam":
        setup = plain(device, DataLoader(tokens(), batch_size=8, shuffle=True), model=Bag())
    elif name == "Muon":
        setup = plain(device, model=mlp(bias=False))
    else:
        setup = plain(device)
    if name == "LBFGS":
        options.setdefault("max_iter", 3)
        setup.lrs = (1e-3, 1e-1)
    setup.optimizer = kind(setup.model.parameters(), **options)
    return setup


def test_all_of_torch_are_covered():
    assert {"Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "ASGD", "LBFGS", "NAdam", "RAdam", "RMSprop",
            "Rprop", "SGD", "SparseAdam"} <= set(OPTIMIZERS)  # fmt: skip


@pytest.mark.parametrize("before", [0, 3], ids=["fresh", "with a history"])
@pytest.mark.parametrize("name", SWEPT)
def test_every_optimizer(name, before, device):
    result = assert_restored_and_trains_as_without(lambda: training(name, device), before)
    assert result.context.optimizer == name
    assert result.stop_reason is not StopReason.NONFINITE


FLAGS = ["amsgrad", "centered", "decoupled_weight_decay", "foreach", "fused", "nesterov"]


@pytest.mark.parametrize(
    ("name", "flag"), [(name, flag) for name in SWEPT for flag in FLAGS if accepts(SWEPT[name], flag)]
)
def test_flags(name, flag, device):
    options = {flag: True}
    if accepts(SWEPT[name], "momentum") and name != "Muon":
        options["momentum"] = 0.9
    if accepts(SWEPT[name], "weight_decay"):
        options["weight_decay"] = 0.01
    try:
        training(name, device, **options).train(1)
    except (RuntimeError, ValueError) as error:
        pytest.skip(f"torch refuses {flag=} here: {error}")
    assert_restored_and_trains_as_without(lambda: training(name, device, **options))


@pytest.mark.parametrize("name", [name for name in SWEPT if accepts(SWEPT[name], "maximize")])
def test_maximize_is_refused_and_swept_with_a_step_that_returns_what_falls(name, device):
    def make():
        setup = training(name, device, maximize=True)

        def step(batch):
            setup.optimizer.zero_grad()
            loss = nn.functional.cross_entropy(setup.model(batch[0]), batch[1])
            (-loss).backward()
            setup.optimizer.step()
            return loss.detach()

        setup.step, setup.criterion = step, None
        return setup

    with pytest.raises(ArgumentError, match="must minimise the loss, got maximize=True"):
        training(name, device, maximize=True).finder()
    if name != "SparseAdam":  # its model takes other batches
        assert_restored_and_trains_as_without(make)


@pytest.mark.parametrize("name", SWEPT)
def test_lrs_in_tensors(name, device):
    def make():
        options = {"foreach": False} if accepts(SWEPT[name], "foreach") else {}
        return training(name, device, lr=torch.tensor(0.01), **options)

    try:
        make().train(1)
    except (TypeError, RuntimeError, ValueError) as error:
        pytest.skip(f"torch refuses a tensor here: {error}")
    lr = make().optimizer.param_groups[0]["lr"]
    assert isinstance(lr, torch.Tensor)
    result = assert_restored_and_trains_as_without(make)
    if name != "LBFGS":  # it keeps the tensor as its last step's length, which any change of the lr changes too
        floats = training(name, device)
        floats.train(3)
        # Tensors hold lrs in single precision, which is all that may differ.
        np.testing.assert_allclose(result.losses, floats.find().losses, rtol=1e-3)


@pytest.mark.parametrize("name", [name for name in SWEPT if accepts(SWEPT[name], "capturable")])
def test_capturable(name, device):
    if device.type == "cpu":
        setup = training(name, device, capturable=True)
        before = Fingerprint(**setup.parts())
        with pytest.raises((AssertionError, RuntimeError), match="capturable"):  # torch's own, unchanged
            setup.find()
        assert differences(before.values, Fingerprint(**setup.parts()).values) == []
    else:
        assert_restored_and_trains_as_without(
            lambda: training(name, device, capturable=True, lr=torch.tensor(0.01, device=device))
        )


def test_differentiable_on_parameters_is_an_error_of_torch(device):
    setup = training("SGD", device, differentiable=True)
    before = Fingerprint(**setup.parts())
    with pytest.raises(RuntimeError, match="in-place operation"):
        setup.find()
    assert differences(before.values, Fingerprint(**setup.parts()).values) == []


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
@pytest.mark.parametrize("lr", [0.1, torch.tensor(0.1)], ids=["float", "tensor"])
def test_lbfgs(search, lr, device):
    def make():
        own = lr.clone() if isinstance(lr, torch.Tensor) else lr
        return training("LBFGS", device, lr=own, line_search_fn=search, history_size=2)

    result = assert_restored_and_trains_as_without(make)
    setup = make()
    setup.train(3)
    assert result.losses[0] == float(setup.loss(_next_batch(make)).detach()), "the loss of the first closure call"


def _next_batch(make):
    """Return the batch that a find after three steps begins with."""
    setup = make()
    setup.train(3)
    return next(iter(setup.loader))


def test_rprop_is_refused(device):
    setup = training("Rprop", device)
    with pytest.raises(ArgumentError, match="read its learning rate at every step, got Rprop"):
        setup.finder()


@pytest.mark.parametrize("before", [0, 3])
def test_asgd_steps_with_the_requested_lr(before, device):
    """ASGD steps with the lr that its previous step prepared: the loss after each step shows which lr that was."""
    setup = training("ASGD", device)
    setup.train(before)
    batch = next(iter(setup.loader))
    reference = training("ASGD", device)
    reference.train(before)
    result = setup.find(loader=[batch])
    start = [p.detach().clone() for p in reference.model.parameters()]
    losses, lambd = [], 1e-4
    for lr in result.lrs:
        loss = reference.loss(batch)
        losses.append(float(loss.detach()))
        gradients = torch.autograd.grad(loss, list(reference.model.parameters()))
        with torch.no_grad():
            for p, gradient in zip(reference.model.parameters(), gradients, strict=True):
                # ASGD's rule with exactly this lr: decay, then a step.
                p.mul_(1 - lambd * lr).sub_(lr * gradient)
    assert any(not torch.equal(p, q) for p, q in zip(reference.model.parameters(), start, strict=True))
    np.testing.assert_allclose(result.losses, losses, rtol=1e-5)


def test_each_lr_is_used_in_its_own_step(device):
    """The same by hand for plain gradient descent."""
    setup, reference = training("SGD", device), training("SGD", device)
    batch = next(iter(setup.loader))
    result = setup.find(loader=[batch])
    losses = []
    for lr in result.lrs:
        loss = reference.loss(batch)
        losses.append(float(loss.detach()))
        gradients = torch.autograd.grad(loss, list(reference.model.parameters()))
        with torch.no_grad():
            for p, gradient in zip(reference.model.parameters(), gradients, strict=True):
                p.sub_(lr * gradient)
    np.testing.assert_allclose(result.losses, losses, rtol=1e-5)


@pytest.mark.parametrize("before", [0, 8])
def test_adafactor_warns_above_its_cap(before, device):
    """It steps with min(lr, 1/√step) times the parameters' scale."""
    setup = training("Adafactor", device)
    setup.train(before)
    with pytest.warns(LRFinderWarning, match="Adafactor caps its learning rate") as caught:
        result = setup.find(start_lr=1e-3, end_lr=10.0, num_iter=9)
    capped = [lr for index, lr in enumerate(result.lrs) if lr > 1 / math.sqrt(before + index + 1)]
    assert any(f"above {capped[0]:.1e}" in str(each.message) for each in caught)


def test_adafactor_does_not_warn_below_its_cap(device):
    result = training("Adafactor", device).find(start_lr=1e-4, end_lr=1e-1)
    assert not any("caps" in sentence for sentence in result.warnings)


def test_sparse_gradients_cannot_be_clipped(device):
    setup = training("SparseAdam", device)
    before = Fingerprint(**setup.parts())
    with pytest.raises(ArgumentError, match=r"max_grad_norm=1\.0\) cannot clip sparse gradients"):
        setup.find(finder=setup.finder(max_grad_norm=1.0))
    assert differences(before.values, Fingerprint(**setup.parts()).values) == []


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
def test_muon_of_torch_takes_matrices_only(device):
    with pytest.raises(ValueError, match="2D parameters"):
        torch.optim.Muon(mlp().to(device).parameters())


def test_error_of_an_optimizer_that_takes_only_sparse_gradients_arrives(device):
    model = mlp().to(device)
    optimizer = torch.optim.SparseAdam(model.parameters())
    with pytest.raises(RuntimeError, match="does not support dense gradients"):
        LRFinder(model, optimizer, nn.CrossEntropyLoss()).find(
            DataLoader(vectors(), batch_size=8), start_lr=1e-4, end_lr=1e-1, progress=False
        )
    assert not optimizer.state
