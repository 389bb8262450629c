"""The signs measure what they are named after."""

import numpy as np
import pytest

from lrfinder.curve.history import read_history
from lrfinder.curve.signs import measure_signs

STEPS = np.arange(500)
NOISE = 0.002 * np.random.default_rng(0).standard_normal(500)


def signs(losses, lrs=None):
    return measure_signs(read_history(losses + NOISE, lrs))


def test_a_straight_fall_has_come_half_way_at_half_and_goes_on_as_before():
    found = signs(2.0 - STEPS / 500)
    assert found.half == pytest.approx(0.5, abs=0.05)
    assert found.quarter == pytest.approx(0.25, abs=0.05)
    assert found.late == pytest.approx(1, abs=0.1)
    assert (found.unrest, found.decayed_after) == (0, 1)


def test_progress_is_measured_per_summed_lr_not_per_step():
    lrs = np.where(STEPS < 250, 1.0, 0.1)
    found = signs(2.0 - np.cumsum(lrs) / lrs.sum(), lrs)
    assert found.half == pytest.approx(0.5, abs=0.05)
    assert found.late == pytest.approx(1, abs=0.1)
    assert found.decayed_after == pytest.approx(0.5, abs=0.02)


def test_a_settled_loss_has_no_late_progress():
    found = signs(np.exp(-STEPS / 30))
    assert found.half > 0.98
    assert abs(found.late) < 0.05


def test_unrest_is_the_share_of_the_time_above_the_earlier_minimum():
    losses = np.exp(-STEPS / 30)
    losses[200:300] += 0.5
    found = signs(losses)
    assert found.unrest == pytest.approx(0.2, abs=0.03)
    assert found.rise == pytest.approx(0.6, abs=0.1)
    assert found.unrest_bins[0] == pytest.approx(40, abs=3)
    assert found.unrest_bins[1] == pytest.approx(60, abs=3)


def test_fall_and_trend_are_in_units_of_the_noise():
    assert signs(np.zeros(500)).fall < 3
    assert abs(signs(np.zeros(500)).trend) < 3
    assert signs(2.0 - STEPS / 500).fall > 100
    assert signs(2.0 - STEPS / 500).trend > 100
    assert signs(STEPS / 500).trend < -100
