"""The phases of a find, driven by scripted losses."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from lrfinder import LRFinder
from lrfinder.curve.curve import Context
from lrfinder.curve.scout import scout_grid, scouted_range
from lrfinder.curve.stop_rule import StopReason
from lrfinder.curve.sweep import grid
from tests.notes import Notes

pytestmark = pytest.mark.filterwarnings("ignore::lrfinder.LRFinderWarning")
TOP = 1e-1  # where the scripted loss begins to rise


class Setup:
    """A finder whose loss is a function of the rate and of how many steps were taken, through `step`."""

    def __init__(self, loss=None, **options):
        self.model = nn.Linear(1, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.5)
        self.steps = Notes()  # of (rate, batch)
        self.before_step = lambda: None
        self.loss = loss or (lambda lr, count: 1 / (1 + (lr / 1e-3)) + min((lr / TOP) ** 4, 1e6))
        self.finder = LRFinder(self.model, self.optimizer, step=self.step, **options)

    def step(self, batch):
        self.before_step()
        lr = self.optimizer.param_groups[0]["lr"]
        self.steps.append((lr, batch))
        with torch.no_grad():
            self.model.weight += 1
            self.model.bias += 1e10 * lr  # steps that do not depend on the lr would be looked into
        loss = self.loss(lr, len(self.steps) - 1)
        if isinstance(loss, BaseException):
            raise loss
        return loss

    def find(self, loader=(0, 1, 2), **arguments):
        return self.finder.find(loader, **{"progress": False, **arguments})

    @property
    def rates(self):
        return [lr for lr, _ in self.steps]

    @property
    def batches(self):
        return [batch for _, batch in self.steps]


def test_both_ends_given_are_used_as_they_are_without_a_scout():
    setup = Setup(lambda lr, count: 1.0)
    result = setup.find(start_lr=1e-4, end_lr=1e-2, num_iter=9)
    assert setup.rates == grid(1e-4, 1e-2, 9).tolist() == result.lrs.tolist()
    assert result.steps == 9
    linear = Setup(lambda lr, count: 1.0)
    linear.find(start_lr=1e-4, end_lr=1e-2, num_iter=9, mode="linear")
    assert linear.rates == pytest.approx(np.linspace(1e-4, 1e-2, 9))


def test_the_scout_finds_both_ends_and_the_sweep_replays_its_batches():
    setup = Setup()
    weights = []
    result = setup.find(num_iter=40, on_step=lambda *point: weights.append(setup.model.weight.item()))
    scouted = len(setup.steps) - len(result.lrs)
    assert 5 <= scouted <= 30
    assert setup.rates[:scouted] == scout_grid()[:scouted].tolist()
    assert setup.batches[:scouted] == ([0, 1, 2] * 10)[:scouted]
    assert setup.batches[scouted:] == ([0, 1, 2] * 20)[: len(result.lrs)]
    assert result.steps == len(setup.steps)
    assert result.lrs[0] < TOP / 100
    assert result.lrs[-1] > TOP
    # The model, too, began again: each step adds 1 to its weight.
    assert np.diff(weights) == pytest.approx(1, abs=1e-4)
    assert weights[0] == pytest.approx(setup.model.weight.item() + 1, abs=1e-4)


@pytest.mark.parametrize("given", [{"start_lr": 1e-6}, {"end_lr": 5.0}, {"start_lr": 1e3}, {"end_lr": 1e-9}])
def test_an_end_that_was_given_is_kept(given):
    setup = Setup(lambda lr, count: 1 / (1 + lr))
    result = setup.find(num_iter=10, **given)
    ends = {"start_lr": result.lrs[0], "end_lr": result.lrs[-1]}
    assert ends | given == ends
    assert result.lrs[0] < result.lrs[-1]


def test_a_scout_that_sees_nothing_but_nan_does_not_stop_the_find():
    setup = Setup(lambda lr, count: math.nan)
    result = setup.find(num_iter=10)
    assert len(result.lrs) == 0
    assert result.stop_reason is StopReason.NONFINITE
    assert len(setup.steps) == 2
    assert result.stop_lr == setup.rates[1]


def test_on_step_sees_the_main_sweep_only():
    points = []
    result = Setup().find(num_iter=40, on_step=lambda *point: points.append(point))
    assert points == list(zip(range(len(result.lrs)), result.lrs, result.losses, strict=True))


def test_stop_reason_of_the_scout_is_left_to_the_rules():
    setup = Setup()
    result = setup.find(num_iter=20)
    scouted = len(setup.steps) - len(result.lrs)
    losses = [setup.loss(lr, 0) for lr in setup.rates[:scouted]]
    from lrfinder.curve.curve import Curve
    from lrfinder.curve.smoothing import smooth

    curve = Curve(
        lrs=setup.rates[:scouted],
        losses=losses,
        smoothed=smooth(np.array(losses)),
        indices=range(scouted),
        stop_reason=StopReason.DIVERGED,
        stop_lr=setup.rates[scouted - 1],
    )
    start, end = scouted_range(curve, Context(optimizer="SGD"))
    planned = grid(start, end, 20)
    assert result.lrs == pytest.approx(planned[: len(result.lrs)])


# One-shot iterators


def test_an_iterator_with_both_ends_missing_is_scouted_and_replayed():
    setup = Setup(lambda lr, count: 1.0)
    result = setup.find(iter(range(1000)), num_iter=50)
    assert setup.batches[:30] == list(range(30))  # the scout
    assert setup.batches[30:] == list(range(50))  # replayed, then read on
    assert len(result.lrs) == 50


@pytest.mark.parametrize("given", [{"start_lr": 1e-6}, {"end_lr": 5.0}, {"start_lr": 1e-6, "end_lr": 5.0}])
def test_an_iterator_with_an_end_given_is_not_scouted(given):
    setup = Setup(lambda lr, count: 1.0)
    loader = iter(range(1000))
    result = setup.find(loader, num_iter=50, **given)
    assert setup.batches == list(range(50))
    assert next(loader) == 50
    ends = {"start_lr": result.lrs[0], "end_lr": result.lrs[-1]}
    assert ends | given == ends
    assert result.lrs[-1] / result.lrs[0] >= 1e3


def test_an_iterator_that_ends_in_the_scout_ends_the_sweep_too():
    setup = Setup(lambda lr, count: 1.0)
    result = setup.find(iter(range(12)), num_iter=50)
    assert setup.batches == [*range(12), *range(12)]
    assert result.stop_reason is StopReason.EXHAUSTED
    assert len(result.lrs) == 12


# Repeats


def shuffled():
    return DataLoader(list(range(1000)), batch_size=None, shuffle=True)


def test_repeats_start_the_model_again_while_the_batches_go_on():
    setup = Setup(lambda lr, count: 1.0)
    before = setup.model.weight.item()
    weights = Notes()
    setup.before_step = lambda: weights.append(setup.model.weight.item())
    result = setup.find(shuffled(), start_lr=1e-4, end_lr=1e-2, num_iter=6, repeats=3)
    assert list(weights) == pytest.approx([before + i for _ in range(3) for i in range(6)])
    assert len(set(setup.batches)) == 18  # no batch twice: one stream
    assert setup.rates == result.lrs.tolist() * 3
    assert result.steps == 18
    assert setup.model.weight.item() == before


def test_the_curve_of_repeats_is_the_mean_and_suggestions_have_a_spread():
    factor = (1.0, 2.0, 6.0)
    turns = (1e-3, 2e-3, 4e-3)

    def loss(lr, count):
        return factor[count // 40] / (1 + (lr / turns[count // 40]) ** 2)

    setup = Setup(loss)
    points = []
    result = setup.find(
        shuffled(), start_lr=1e-5, end_lr=1e-1, num_iter=40, repeats=3, on_step=lambda *p: points.append(p)
    )
    lrs = grid(1e-5, 1e-1, 40)
    expected = np.mean([[loss(lr, 40 * repeat) for lr in lrs] for repeat in range(3)], axis=0)
    assert result.losses == pytest.approx(expected, rel=1e-12)
    assert [p[2] for p in points] == [loss(lr, 0) for lr in lrs]  # the first repeat's, once per point
    low, high = result.suggestion.spread
    assert 1.5 < high / low < 4  # the turns lie a factor 4 apart
    assert result.suggest("auto").spread == (low, high)


def test_the_mean_is_cut_where_the_shortest_repeat_ended():
    ends = (100, 12, 15)

    def loss(lr, count):
        repeat = 0 if count < 20 else 1 if count < 33 else 2
        index = count - (0, 20, 33)[repeat]
        return math.nan if index == ends[repeat] else float(repeat)

    result = Setup(loss).find(shuffled(), start_lr=1e-4, end_lr=1e-2, num_iter=20, repeats=3)
    assert result.losses == pytest.approx([1.0] * 12)
    assert result.stop_reason is StopReason.NONFINITE
    assert result.stop_lr == grid(1e-4, 1e-2, 20)[12]


def test_a_repeat_without_a_point_leaves_none():
    result = Setup(lambda lr, count: math.nan if count == 10 else 1.0).find(
        shuffled(), start_lr=1e-4, end_lr=1e-2, num_iter=10, repeats=2
    )
    assert len(result.lrs) == 0
    assert "no suggestion" in str(result)


def test_repeats_have_one_range():
    setup = Setup(lambda lr, count: 1 / (1 + lr))
    result = setup.find(shuffled(), num_iter=10, repeats=2)
    assert setup.rates[-20:] == result.lrs.tolist() * 2
    assert result.steps == len(setup.steps) == 30 + 20


def test_refine_with_a_number_spends_no_more_than_its_budget():
    def spent(**options):
        setup = Setup()
        result = setup.find(loader=[0] * 200, start_lr=1e-5, end_lr=1.0, num_iter=20, total_steps=1000, **options)
        return len(result.probes), len(setup.steps) - result.curve.indices[-1] - 1

    probes, steps = spent(refine=80)
    assert steps == probes * 20 <= 80
    assert spent()[0] == 0


def test_drift_of_a_held_out_loss_before_any_learning_rate_matters_does_not_end_the_sweep():
    """Running statistics that settle raise the loss without any noise, from the first step on."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16, momentum=0.02), nn.ReLU(), nn.Linear(16, 3))
    with torch.no_grad():
        model[1].running_mean.fill_(-0.3)
    data = [(x, x[:, :3].argmax(1)) for x in torch.randn(20, 32, 4)]
    finder = LRFinder(model, torch.optim.SGD(model.parameters(), 0.1, momentum=0.9), nn.CrossEntropyLoss())
    result = finder.find(data[4:], start_lr=1e-7, end_lr=1.0, val_loader=data[:4], progress=False)
    assert result.lrs[-1] == 1.0
    assert result.suggestion.lr > 1e-4
