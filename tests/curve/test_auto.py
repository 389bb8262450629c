import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrfinder.curve.curve import Context, Curve
from lrfinder.curve.landmarks import find_landmarks
from lrfinder.curve.rules import suggest
from lrfinder.errors import NoSuggestionError
from lrfinder.optim import SCHEDULES
from tests.curve.curves import healthy, measured, product_in


def test_a_clear_valley_gets_an_lr_below_its_middle():
    curve = measured(healthy(diverges_at=1e-2, steepest_at=1e-3), smoothing="none")
    first, lowest = np.median(curve.losses[:10]), curve.losses[2:-2].min()
    weights = [max(first - loss, 0) ** 2 / (first - lowest) ** 2 for loss in curve.losses]
    middle = sum(w * math.log10(lr) for w, lr in zip(weights, curve.lrs, strict=True)) / sum(weights)
    density = 1 / np.diff(np.log10(curve.lrs)).mean()
    found = suggest("auto", curve)
    assert found.lr == pytest.approx(10**middle / 4.2 * math.sqrt(density / 20), rel=0.02)
    assert found.reason.startswith("valley's middle ")


@pytest.mark.parametrize(("points", "factor"), [(25, 1 / 2), (100, 1.0), (400, 2.0), (500, 5**0.5), (5000, 5**0.5)])
def test_a_slower_sweep_has_its_valley_further_down(points, factor):
    """The same curve at another speed; beyond what was measured, 100 points a decade, nothing changes any more."""
    lrs = np.geomspace(1e-5, 1.0, 101)
    fine = np.geomspace(1e-5, 1.0, points + 1)
    losses = np.interp(np.log(lrs), np.log(np.geomspace(1e-5, 1.0, 200)), healthy(200))
    at_speed = np.interp(np.log(fine), np.log(lrs), losses)
    usual, other = (
        Curve(lrs=rates, losses=values, smoothed=values, indices=np.arange(len(rates)), stop_reason=None)
        for rates, values in ((lrs, losses), (fine, at_speed))
    )
    assert suggest("auto", other).lr == pytest.approx(suggest("auto", usual).lr * factor, rel=0.15)


def test_the_middle_does_not_depend_on_how_the_lrs_are_spaced():
    lrs, losses = np.geomspace(1e-5, 1.0, 200), healthy(200)
    fine = np.concatenate([np.arange(0, 160), np.arange(160, 200, 2)])  # sparse where it diverges
    even, uneven = (
        Curve(lrs=lrs[at], losses=losses[at], smoothed=losses[at], indices=at, stop_reason=None)
        for at in (np.arange(200), fine)
    )
    assert suggest("auto", uneven).lr == pytest.approx(suggest("auto", even).lr, rel=0.1)


def test_a_short_training_stays_below_divergence():
    losses = 0.1 * np.random.default_rng(3).exponential(size=100)
    losses[70:] += 0.1 * 1.5 ** np.arange(30)
    curve = measured(losses)
    found = suggest("auto", curve, Context(total_steps=1))
    assert found.lr == pytest.approx(find_landmarks(curve).divergence / 2)
    assert re.fullmatch(r"divergence .* / 2.0, the highest that is suggested", found.reason)


def test_a_longer_training_gets_a_lower_lr_and_the_reason_says_so():
    curve = measured(healthy())
    rates = [suggest("auto", curve, Context(total_steps=steps)).lr for steps in (100, 1_000, 10_000, 100_000)]
    assert rates == sorted(rates, reverse=True)
    assert rates[1] / rates[3] == pytest.approx(100**0.3)
    assert suggest("auto", curve, Context(total_steps=10_000)).reason.endswith(
        ", x 0.50 for a training of 10,000 steps with one_cycle"
    )
    assert suggest("auto", curve).lr == rates[1]
    assert "an assumed 1,000 steps" in suggest("auto", curve).reason


def test_a_sweep_that_never_diverged_gets_an_lr_below_its_end():
    curve = measured(healthy(diverges_at=10.0))
    found = suggest("auto", curve)
    assert 1e-3 < found.lr < 1e-1
    assert "valley" in found.reason


def test_a_trained_model_gets_an_lr_from_divergence_alone():
    rng = np.random.default_rng(3)
    losses = 0.1 * rng.exponential(size=100)
    losses[70:] += 0.1 * 1.5 ** np.arange(30)
    found = suggest("auto", measured(losses))
    assert re.match(r"divergence .* / \d\.\d, as noise hides the valley, for an assumed", found.reason)
    assert 1e-3 < found.lr < 4e-2


def test_nothing_is_suggested_where_nothing_was_seen():
    with pytest.raises(
        NoSuggestionError, match=r"auto: the loss neither fell nor rose clearly .* Pass a larger end_lr"
    ):
        suggest("auto", measured(np.random.default_rng(0).normal(size=100)))


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 999),
    noise=st.sampled_from([0.0, 0.05, 0.5, 2.0]),
    diverges_at=st.sampled_from([3e-3, 3e-2, 10.0]),
    total_steps=st.sampled_from([None, 1, 220, 1_000, 50_000]),
    num_points=st.integers(30, 300),
)
def test_the_numbers_of_the_reason_multiply_to_the_lr(seed, noise, diverges_at, total_steps, num_points):
    curve = measured(healthy(num_points, noise=noise, seed=seed, diverges_at=diverges_at))
    try:
        found = suggest("auto", curve, Context(total_steps=total_steps))
    except NoSuggestionError:
        return
    low, high = product_in(found.reason)
    assert low <= found.lr <= high, found.reason


def test_the_same_learning_rate_is_suggested_for_every_schedule():
    curve = measured(healthy())
    assert len({suggest("auto", curve, Context(schedule=name, total_steps=500)).lr for name in SCHEDULES}) == 1


def test_where_the_loss_still_falls_at_the_end_the_half_of_the_valley_that_was_not_tried_is_allowed_for():
    lrs = np.geomspace(1e-6, 1e-2, 80)
    losses = 0.3 + 2 / (1 + (lrs / 1e-2) ** 1.5) + 0.01 * np.sin(np.arange(80))
    cut = suggest("auto", measured(losses, lrs), Context(total_steps=1000))
    assert "as the loss still fell at the end" in cut.reason
    assert lrs[-1] / 10 < cut.lr < lrs[-1]


def test_in_a_linear_grid_that_falls_at_its_end_nothing_is_added():
    lrs = np.linspace(1e-4, 1e-1, 100)
    losses = 0.3 + 2 / (1 + (lrs / 0.1) ** 1.5) + 0.01 * np.sin(np.arange(100))
    assert "still fell" not in suggest("auto", measured(losses, lrs)).reason


def test_a_linear_grid_that_begins_with_a_wide_gap_gets_a_third():
    losses = np.where(np.arange(100) < 20, 2.0, np.where(np.arange(100) < 60, 1.0, 9.0)) + 0.01 * np.sin(np.arange(100))
    lrs = np.linspace(1e-6, 1.0, 100)
    from_the_second = np.concatenate([[lrs[1] / 2], lrs[1:]])
    with_gap, without = (suggest("auto", measured(losses, each)).lr for each in (lrs, from_the_second))
    assert with_gap == pytest.approx(without / 3, rel=0.05)


def test_sgd_gets_the_first_learning_rate_where_most_of_the_fall_is_over_near_it():
    lrs = np.geomspace(1e-2, 10.0, 100)
    losses = np.where(np.arange(100) < 6, 200.0, np.where(lrs < 5.0, 30.0, 900.0)) + 2 * np.sin(np.arange(100))
    curve = measured(losses, lrs=lrs)
    found = suggest("auto", curve, Context(optimizer="SGD", total_steps=500))
    assert found.lr == pytest.approx(1e-2)
    assert "lower start_lr" in found.reason
    assert suggest("auto", curve, Context(optimizer="Adam", total_steps=500)).lr > 5e-2
    later = measured(np.concatenate([np.full(30, 200.0), losses[:-30]]), lrs=lrs)
    assert suggest("auto", later, Context(optimizer="SGD", total_steps=500)).lr > 5e-2


def test_losses_of_two_batches_that_differ_hide_no_explosion():
    rng = np.random.default_rng(0)
    lrs = np.geomspace(1e-6, 10.0, 100)
    mean = np.where(lrs < 1e-2, 1.45, np.where(lrs < 0.1, 0.2, 3.0))
    share = np.repeat(rng.uniform(-1, 1, 50), 2) * np.tile([1, -1], 50)  # what one batch has more, the other has less
    curve = measured(mean * (1 + share), lrs, stop_rule=False)
    assert suggest("auto", curve, Context(epoch_points=2)).lr < 0.05
