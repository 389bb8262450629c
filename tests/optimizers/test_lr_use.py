"""Optimizers that do not use the learning rate of their groups, or not as it stands there."""

import pytest
import torch
from torch import nn

from lrfinder import ArgumentError, LRFinder, LRFinderWarning
from tests.fingerprint import Fingerprint, differences
from tests.notes import Notes
from tests.optimizers.promise import assert_restored_and_trains_as_without
from tests.problems import one_thread, plain, seed_all  # noqa: F401 - applies by being imported

pytestmark = pytest.mark.filterwarnings("ignore::lrfinder.LRFinderWarning")


class OwnStepSize(torch.optim.Optimizer):
    """Computes its step size from the number of steps, as Adafactor with `relative_step`."""

    def __init__(self, params, lr=1e-3):
        super().__init__(params, {"lr": lr})
        self.steps = 0

    @torch.no_grad()
    def step(self, closure=None):
        self.steps += 1
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(p.grad.sign(), alpha=1e-2 / self.steps**0.5)


class OneGroup(OwnStepSize):
    """Uses the lr of its first group only."""

    @torch.no_grad()
    def step(self, closure=None):
        first, *others = self.param_groups
        for p in first["params"]:
            p.sub_(p.grad.sign(), alpha=float(first["lr"]))
        for group in others:
            for p in group["params"]:
                p.sub_(p.grad.sign(), alpha=1e-2)


class Copied(torch.optim.Optimizer):
    """Its groups are copies of those of the optimizer that steps."""

    def __init__(self, base):
        self.base_optimizer = base
        super().__init__([dict(group) for group in base.param_groups], {})

    def step(self, closure=None):
        self.base_optimizer.step()


def by_layer(model, kind):
    return kind([{"params": model[0].parameters()}, {"params": model[2].parameters(), "name": "head"}])


UNUSED = {
    "own step size": (lambda model: OwnStepSize(model.parameters()), "'group 0': OwnStepSize"),
    "one group of two": (lambda model: by_layer(model, OneGroup), "'head': OneGroup"),
    "copied groups": (lambda model: Copied(torch.optim.SGD(model.parameters(), lr=0.1)), "'group 0': Copied"),
}


@pytest.mark.parametrize("name", UNUSED)
def test_an_unused_lr_is_the_only_warning(name):
    optimizer, message = UNUSED[name]

    def make():
        seed_all(0)
        return plain("cpu", optimizer=optimizer)

    result = assert_restored_and_trains_as_without(make, unused_lr=True)
    [sentence] = result.warnings
    assert f"in the parameter groups {message} may not use the lr" in sentence


def test_the_swept_group_alone_is_judged():
    seed_all(0)
    setup = plain("cpu", optimizer=lambda model: by_layer(model, OneGroup))
    assert not any("do not depend" in each for each in setup.find(group=0).warnings)
    assert any("do not depend" in each for each in setup.find(group="head").warnings)


def test_warning_if_a_step_never_steps():
    seed_all(0)
    setup = plain("cpu")
    model, criterion = setup.model, setup.criterion
    setup.step, setup.criterion = lambda batch: criterion(model(batch[0]), batch[1]), None
    with pytest.warns(LRFinderWarning, match="No step changed the parameters"):
        result = setup.find()
    assert len(result.warnings) == 1


def no_lr(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.param_groups[0]["lr"] = None
    return optimizer


def absent_lr(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    del optimizer.param_groups[0]["lr"]
    return optimizer


@pytest.mark.parametrize("optimizer", [no_lr, absent_lr])
def test_a_missing_lr_is_refused_before_anything_is_touched(optimizer):
    setup = plain("cpu", optimizer=optimizer)
    before = Fingerprint(**setup.parts())
    with pytest.raises(ArgumentError, match="must hold a learning rate, got lr=None"):
        setup.finder()
    assert differences(before.values, Fingerprint(**setup.parts()).values) == []


class Fresh:
    """Makes new groups at each access, as fastai's OptimWrapper."""

    def __init__(self, optimizer):
        self.inner = optimizer
        self.state = optimizer.state

    @property
    def param_groups(self):
        return [dict(group) for group in self.inner.param_groups]

    def step(self):
        self.inner.step()

    def zero_grad(self):
        self.inner.zero_grad()


def test_groups_that_are_new_at_each_access_are_refused_and_everything_is_as_before():
    seed_all(0)
    setup = plain("cpu", optimizer=lambda model: Fresh(torch.optim.SGD(model.parameters(), lr=0.1)))
    before = Fingerprint(**setup.parts())
    with pytest.raises(ArgumentError, match=r"makes new groups at each access"):
        setup.find()
    assert differences(before.values, Fingerprint(**setup.parts()).values) == []


def test_the_suggestion_is_for_the_largest_trainable_group():
    torch.manual_seed(0)
    body, head = nn.Linear(20, 20).requires_grad_(False), nn.Linear(20, 1)
    groups = [{"params": body.parameters(), "lr": 1e-5}, {"params": head.parameters(), "lr": 1e-3}]
    model = nn.Sequential(body, nn.Tanh(), head)
    batches = [(x, x.sum(1, keepdim=True)) for x in torch.randn(4, 32, 20)]
    result = LRFinder(model, torch.optim.SGD(groups), nn.MSELoss()).find(batches, progress=False)
    assert result.group_ratios == pytest.approx((1e-2, 1.0))
    assert result.group_lrs()[1] == result.suggestion.lr


def test_lr_scale_is_used_named_and_restored():
    """As timm's layer decay writes it: the lr in the groups is not multiplied yet."""

    def make():
        seed_all(0)

        def optimizer(model):
            groups = [{"params": model[0].parameters(), "lr_scale": 0.25}, {"params": model[2].parameters()}]
            return torch.optim.SGD(groups, lr=0.1, momentum=0.9)

        return plain("cpu", optimizer=optimizer)

    result = assert_restored_and_trains_as_without(make)
    assert sorted(result.group_ratios) == [0.25, 1.0]
    assert any("lr_scale" in each for each in result.warnings)
    seen = Notes()
    setup = make()
    setup.optimizer.register_step_pre_hook(
        lambda optimizer, *_: seen.append(round(optimizer.param_groups[0]["lr"] / optimizer.param_groups[1]["lr"], 9))
    )
    setup.find()
    assert set(seen) == {0.25}
