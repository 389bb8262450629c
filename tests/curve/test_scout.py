import math

import numpy as np
import pytest

from lrfinder.curve.curve import Context
from lrfinder.curve.scout import scout_grid, scouted_range
from lrfinder.curve.sweep import grid
from tests.curve.curves import measured, sgd_on_quadratic


def test_at_most_thirty_steps_over_ten_decades():
    rates = scout_grid()
    assert (rates[0], len(rates)) == (1e-8, 30)
    assert rates[-1] == pytest.approx(1e2)


@pytest.mark.parametrize("ends", [(1e-3, None), (None, 1e-2), (50.0, None), (500.0, None), (None, 1e-9), (9, 11)])
def test_an_end_given_by_the_user_is_kept(ends):
    rates = scout_grid(*ends)
    assert 5 <= len(rates) <= 30
    assert np.all(np.diff(rates) > 0)
    assert ends[0] is None or rates[0] == pytest.approx(ends[0])
    assert ends[1] is None or rates[-1] == pytest.approx(ends[1])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("top", [1e-2, 1.0, 1e4])
@pytest.mark.parametrize("noise", [0.01, 0.3])
def test_the_range_holds_onset_and_divergence_and_is_not_wastefully_wide(top, momentum, noise):
    context = Context(momentum=momentum)
    for seed in range(5):
        bound = 2 * (1 + momentum) / top
        span = tuple(np.log10(np.array([1e-8, 1e2]) / bound))
        scout, _ = sgd_on_quadratic(
            seed, top=top, momentum=momentum, dimensions=5, gradient_noise=noise, span=span, num_iter=30
        )
        start, end = scouted_range(scout, context)
        assert start < bound / 100
        assert 1.5 * bound < end < 100 * bound or end == pytest.approx(1e2)
        assert 4 < math.log10(end / start) < 6


def test_a_scout_that_never_diverged_leaves_the_range_at_the_top():
    lrs = scout_grid()
    start, end = scouted_range(measured(2 / (1 + lrs), lrs))
    assert end == pytest.approx(1e2)
    assert start < 1e-3


def test_a_scout_without_points():
    curve = measured([math.nan, 1.0], np.array([1e-8, 1e-7]))
    start, end = scouted_range(curve)
    assert start < 1e-8 < end


def test_a_linear_sweep_has_points_below_and_above_divergence():
    lrs = scout_grid()
    losses = np.where(lrs < 1e-3, 2.0, np.where(lrs < 1.0, 1.0, 50.0 * lrs))
    curve = measured(losses + 0.01 * np.random.default_rng(0).normal(size=len(lrs)), lrs=lrs)
    start, end = scouted_range(curve, num_iter=100, mode="linear")
    points = grid(start, end, 100, "linear")
    assert 10 < np.count_nonzero(points < 0.5) < 90
    assert start == pytest.approx(end / 300)
