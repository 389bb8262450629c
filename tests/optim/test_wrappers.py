import threading
from types import SimpleNamespace
from unittest.mock import MagicMock, Mock

import pytest
import torch
from torch import nn

from lrfinder.optim.wrappers import needs_closure, optimizer_layers, unwrap_optimizer


def sgd():
    return torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1)


class Wrapper:
    """What Accelerate's wrapper offers: the groups of the optimizer in `.optimizer`."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    @property
    def param_groups(self):
        return self.optimizer.param_groups


class Hidden:
    """A wrapper that keeps its optimizer under another name, as Lightning's does."""

    def __init__(self, optimizer):
        self._optimizer, self.param_groups = optimizer, optimizer.param_groups

    @property
    def optimizer(self):
        return self._optimizer


class Delegating:
    """A wrapper that passes every other attribute on."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    def __getattr__(self, name):
        return getattr(self.optimizer, name)


def test_an_optimizer_without_a_wrapper_is_its_only_layer():
    optimizer = sgd()
    assert optimizer_layers(optimizer) == [optimizer]
    assert unwrap_optimizer(optimizer) is optimizer


@pytest.mark.parametrize("kind", [Wrapper, Hidden, Delegating])
def test_layers_are_listed_from_the_outside_to_the_inside(kind):
    optimizer = sgd()
    middle = Wrapper(optimizer)
    outer = kind(middle)
    assert list(map(id, optimizer_layers(outer))) == [id(outer), id(middle), id(optimizer)]
    assert unwrap_optimizer(outer) is optimizer


@pytest.mark.parametrize("value", [None, "adam", torch.optim.SGD, SimpleNamespace()])
def test_an_attribute_that_holds_no_optimizer_is_not_entered(value):
    optimizer = sgd()
    optimizer.optimizer = value
    if isinstance(value, type):  # a class has no param_groups
        assert not hasattr(value, "param_groups")
    assert unwrap_optimizer(optimizer) is optimizer


def _in_time(function):
    """Return what the function returns; fail where it hangs."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function()), daemon=True)
    thread.start()
    thread.join(20)
    assert found, "it hangs"
    return found[0]


def test_a_scheduler_does_not_wrap_its_optimizer():
    scheduler = torch.optim.lr_scheduler.StepLR(sgd(), 1)
    assert optimizer_layers(scheduler) == [scheduler]


def test_an_optimizer_that_leads_back_to_itself_ends_the_walk():
    optimizer = sgd()
    optimizer.optimizer = optimizer
    assert _in_time(lambda: unwrap_optimizer(optimizer)) is optimizer


def test_two_optimizers_that_lead_to_each_other_end_the_walk():
    one, two = sgd(), sgd()
    one.optimizer, two.optimizer = two, one
    assert _in_time(lambda: optimizer_layers(one)) == [one, two]


@pytest.mark.parametrize("kind", [Mock, MagicMock])
def test_a_mock_ends_the_walk(kind):
    mock = kind()
    assert _in_time(lambda: unwrap_optimizer(mock)) is mock
    assert not needs_closure(mock)
    optimizer = sgd()
    optimizer.optimizer = mock
    assert _in_time(lambda: unwrap_optimizer(optimizer)) is mock


def test_a_wrapper_that_makes_a_new_wrapper_at_each_access_ends_the_walk():
    class Endless:
        param_groups = ()

        @property
        def optimizer(self):
            return Endless()

    assert type(_in_time(lambda: unwrap_optimizer(Endless()))).__name__ == "Endless"


@pytest.mark.parametrize("wrap", [lambda optimizer: optimizer, Wrapper, Delegating])
def test_a_required_closure_is_seen_through_wrappers(wrap):
    assert needs_closure(wrap(torch.optim.LBFGS([nn.Parameter(torch.ones(2))])))
    assert not needs_closure(wrap(sgd()))


def test_a_wrapper_that_requires_a_closure_is_seen_itself():
    class Outer(Wrapper):
        def step(self, closure):
            self.optimizer.step(closure)

    assert needs_closure(Outer(sgd()))
