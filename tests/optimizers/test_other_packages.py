"""Every optimizer of other packages: find-then-train equals train, or an error says what to do."""

import copy
import warnings

import pytest
import torch
from torch import nn

from lrfinder import ArgumentError, LRFinderWarning, make_scheduler
from tests.fingerprint import bits
from tests.optimizers.packages import PACKAGES
from tests.problems import one_thread, plain, seed_all  # noqa: F401 - applies by being imported


def training(case):
    """Return a training of the model that the optimizer accepts."""
    seed_all(0)
    model = nn.Sequential(nn.Linear(6, 4, bias=case.bias), nn.ReLU(), nn.Linear(4, 3, bias=case.bias))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the package
        return plain("cpu", model=model, optimizer=case.make, options=dict(case.options))


def messages(caught):
    return {str(each.message) for each in caught if not issubclass(each.category, LRFinderWarning)}


def assert_holds(case):
    with warnings.catch_warnings(record=True) as of_the_package:
        warnings.simplefilter("always")
        without = training(case)
        expected = without.train(6)
    setup = training(case)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        losses = setup.train(2)
        result = setup.find(num_iter=6)
        losses += setup.train(4)
    assert len(result.lrs) == 6
    assert losses == expected
    for mine, theirs in zip(setup.model.parameters(), without.model.parameters(), strict=True):
        assert bits(mine) == bits(theirs)
    assert messages(caught) <= messages(of_the_package)
    assert any("do not depend" in each for each in result.warnings) == bool(case.unused_lr)


def assert_trains_with_a_scheduler(case):
    setup = training(case)
    setup.train(1)
    for name in ("one_cycle", "constant"):  # the second one takes away what the first one left
        scheduler = make_scheduler(setup.optimizer, name, 1e-3, total_steps=4)
        for _ in range(3):
            setup.train(1)
            scheduler.step()


def assert_refused(case):
    setup = training(case)
    before = [bits(p) for p in setup.model.parameters()], copy.deepcopy(setup.optimizer.state_dict())
    with pytest.raises(ArgumentError, match=case.refused):
        setup.find(num_iter=6)
    assert [bits(p) for p in setup.model.parameters()] == before[0]
    assert str(setup.optimizer.state_dict()) == str(before[1])


def error_of(case):
    """Return what is wrong with a case: one test for each would import the packages when tests are collected."""
    try:
        if case.refused:
            assert_refused(case)
        else:
            assert_holds(case)
            assert_trains_with_a_scheduler(case)
    except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - reported with those of the other cases
        return error
    return None


@pytest.fixture(autouse=True)
def not_compiled():
    """Some optimizers compile their step, which takes a minute."""
    with torch.compiler.set_stance("force_eager"):
        yield


def test_refine_works_where_momentum_is_in_the_groups_only():
    pytest.importorskip("muon")
    setup = training(PACKAGES["muon"]()["SingleDeviceMuonWithAuxAdam"])
    before = [bits(p) for p in setup.model.parameters()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LRFinderWarning)
        result = setup.find(start_lr=1e-4, end_lr=10.0, num_iter=30, total_steps=40, refine=True)
    assert result.probes
    assert [bits(p) for p in setup.model.parameters()] == before


@pytest.mark.parametrize("package", PACKAGES)
def test_every_optimizer_of(package):
    try:
        cases = PACKAGES[package]()  # here, because importing some packages takes seconds
    except ModuleNotFoundError as error:
        pytest.skip(f"{error.name} is not installed")
    errors = [(name, error_of(case)) for name, case in cases.items()]
    failed = [f"{name}: {type(error).__name__}: {error}" for name, error in errors if error is not None]
    assert not failed, "\n".join(failed)
