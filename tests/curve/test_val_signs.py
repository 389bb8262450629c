"""The signs of validation losses measure what they are named after."""

import numpy as np
import pytest

from lrfinder.curve.history import read_history
from lrfinder.curve.val_signs import measure_val_signs

HISTORY = read_history(1 - np.arange(200) / 200, None)


def test_a_straight_fall_is_half_way_at_half_and_together_with_the_training_loss():
    found = measure_val_signs(np.linspace(2.0, 1.0, 20), HISTORY)
    assert found.val_half == pytest.approx(0.5, abs=0.05)
    assert found.val_late == pytest.approx(0.5, abs=0.05)
    assert (found.val_rise, found.val_regained, found.val_falling) == (0, 0, 1)
    assert found.val_noise == pytest.approx(0, abs=1e-9)
    assert found.val_together == pytest.approx(1, abs=1e-3)


def test_a_rise_is_measured_from_the_earlier_minimum():
    found = measure_val_signs(np.array([2.0, 1.0, 0.0, 1.0, 1.5, 1.0, 1.0, 1.0]), HISTORY)
    assert found.val_rise == pytest.approx(0.75)
    assert found.val_regained == pytest.approx(0.5)
    assert found.val_falling == pytest.approx(3 / 7)


@pytest.mark.parametrize(
    "val_losses", [np.arange(5.0), np.ones(20), 1 + 1e-15 * np.arange(20), np.full(20, np.nan), [0, 1e308, -1e308] * 4]
)
def test_too_few_or_nearly_equal_or_overflowing_ones_have_no_signs(val_losses):
    assert measure_val_signs(np.array(val_losses), HISTORY) is None


def test_gaps_are_left_out_and_offset_and_scale_change_nothing():
    losses = np.exp(-np.arange(12) / 4)
    gaps = np.where(np.arange(12) % 5 == 2, np.nan, losses)
    expected = measure_val_signs(gaps, HISTORY)
    moved = measure_val_signs(1e3 * gaps - 7, HISTORY)
    for name in ("val_half", "val_late", "val_rise", "val_regained", "val_falling", "val_noise", "val_together"):
        assert getattr(moved, name) == pytest.approx(getattr(expected, name), abs=1e-9)
