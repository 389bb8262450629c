"""Optimizers inside others: what the snapshot has found may step, in whatever place it was found."""

import copy

import pytest
import torch
from torch import nn

from lrfinder import LRFinderError
from tests.notes import Notes
from tests.optimizers.promise import assert_restored_and_trains_as_without
from tests.problems import SAM, one_thread, plain, seed_all  # noqa: F401 - applies by being imported

pytestmark = pytest.mark.filterwarnings("ignore::lrfinder.LRFinderWarning")


def adam(params):
    return torch.optim.Adam(params, lr=0.01)


class Wrap(torch.optim.Optimizer):
    """Passes its step on to another optimizer, whose groups it shows as its own."""

    def __init__(self, base):
        self.base_optimizer = base
        super().__init__(base.param_groups, base.defaults)
        self.param_groups = base.param_groups

    def step(self, closure=None):
        self.base_optimizer.step()


class Lookahead(Wrap):
    """Keeps slow weights, to which it returns halfway at each third step."""

    def __init__(self, base):
        super().__init__(base)
        self.steps = 0
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["slow"] = p.detach().clone()

    @torch.no_grad()
    def step(self, closure=None):
        self.base_optimizer.step()
        self.steps += 1
        if self.steps % 3 == 0:
            for p, state in self.state.items():
                state["slow"].lerp_(p, 0.5)
                p.copy_(state["slow"])


class Two(torch.optim.Optimizer):
    """One optimizer for matrices and another one for vectors, kept in any container."""

    def __init__(self, params, container):
        params = list(params)
        inner = [
            torch.optim.SGD([p for p in params if p.dim() == 2], lr=0.1, momentum=0.9),
            adam([p for p in params if p.dim() < 2]),
        ]
        groups = [group for each in inner for group in each.param_groups]
        super().__init__(groups, {})
        self.param_groups = groups
        self.inner = container(inner)

    def step(self, closure=None):
        for each in self.inner.values() if isinstance(self.inner, dict) else self.inner:
            each.step()


class Plain:
    """A wrapper that is no optimizer of torch, as Accelerate's once was."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    def __getattr__(self, name):
        if name == "optimizer":
            raise AttributeError(name)
        return getattr(self.optimizer, name)


NESTED = {
    "another attribute": lambda params: Wrap(adam(params)),
    "two deep": lambda params: Wrap(Wrap(adam(params))),
    "slow weights": lambda params: Lookahead(adam(params)),
    "two passes": lambda params: SAM(params, torch.optim.SGD, lr=0.1, momentum=0.9),
    "two passes inside": lambda params: Wrap(Lookahead(torch.optim.SGD(params, lr=0.1))),
    "list": lambda params: Two(params, list),
    "tuple": lambda params: Two(params, tuple),
    "dict": lambda params: Two(params, lambda inner: dict(enumerate(inner))),
    "no optimizer of torch": lambda params: Plain(Plain(adam(params))),
}


@pytest.mark.parametrize("before", [0, 3], ids=["fresh", "with a history"])
@pytest.mark.parametrize("name", NESTED)
def test_an_optimizer_inside_another_may_step(name, before):
    def make():
        seed_all(0)
        return plain("cpu", optimizer=lambda model: NESTED[name](model.parameters()))

    result = assert_restored_and_trains_as_without(make, before)
    assert len(result.lrs) == 8


@pytest.mark.parametrize("name", ["two passes", "list", "no optimizer of torch"])
def test_an_optimizer_inside_another_is_refined_and_restored(name):
    def make():
        seed_all(0)
        return plain("cpu", optimizer=lambda model: NESTED[name](model.parameters()))

    expected = make().train(7)
    setup = make()
    losses = setup.train(2)
    result = setup.find(start_lr=1e-4, end_lr=10.0, num_iter=20, total_steps=30, refine=True)
    assert result.probes
    assert losses + setup.train(5) == expected


def test_an_optimizer_that_leads_back_to_itself_is_swept():
    def make():
        seed_all(0)
        setup = plain("cpu", optimizer=lambda model: adam(model.parameters()))
        setup.optimizer.optimizer = setup.optimizer
        return setup

    assert_restored_and_trains_as_without(make)


class Hiding(torch.optim.SGD):
    """Makes its inner optimizer only when it steps: no snapshot can have found it."""

    def step(self, closure=None):
        adam([p for group in self.param_groups for p in group["params"]]).step()


def test_an_optimizer_that_no_object_held_before_the_sweep_is_stopped():
    seed_all(0)
    setup = plain("cpu", optimizer=lambda model: Hiding(model.parameters(), lr=0.1))
    before = copy.deepcopy(list(setup.model.parameters()))
    with pytest.raises(LRFinderError, match=r"An optimizer, Adam with 1 .* not captured"):
        setup.find()
    assert all(torch.equal(p, q) for p, q in zip(setup.model.parameters(), before, strict=True))


def test_a_scheduler_in_extra_state_does_not_let_its_optimizer_step():
    """Its `state_dict` says nothing of the optimizer."""
    seed_all(0)
    other = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    hidden = Notes(other)  # what the closure of the hook held would be captured
    setup = plain("cpu", options={"extra_state": [torch.optim.lr_scheduler.StepLR(other, 1)]})
    setup.optimizer.register_step_pre_hook(lambda *_: hidden[0].step())
    with pytest.raises(LRFinderError, match=r"An optimizer, SGD with 1 .* not captured"):
        setup.find()
