import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lrfinder.curve.smoothing import CAP, SMOOTHINGS, WIDTH, smooth
from lrfinder.errors import ArgumentError

METHODS = sorted(SMOOTHINGS)
losses_of_any_length = arrays(np.float64, st.integers(1, 150), elements=st.floats(-100, 100, width=32))
laws = settings(max_examples=60, deadline=None)


def at(losses, i):
    """Return a loss, beyond the ends that of the odd reflection."""
    last = len(losses) - 1
    if i < 0:
        return 2 * losses[0] - at(losses, -i)
    return losses[i] if i <= last else 2 * losses[last] - at(losses, 2 * last - i)


def slow_average(losses, weight, reach):
    """Return weighted means, point by point."""
    high = np.quantile(losses, 0.75)
    losses = np.minimum(losses, high + CAP * (high - losses.min()))
    shifts = range(-reach, reach + 1)
    weights = [weight(shift) for shift in shifts]
    return [np.average([at(losses, i + shift) for shift in shifts], weights=weights) for i in range(len(losses))]


@pytest.mark.parametrize("num_points", [3, 7, 60, 100, 331])
def test_gaussian_and_ema_agree_with_a_slow_reference(num_points):
    losses = np.random.default_rng(0).normal(size=num_points)
    sigma = max(1.0, WIDTH * num_points)
    reach = min(int(np.ceil(4 * sigma)), num_points - 1)
    gaussian = slow_average(losses, lambda k: np.exp(-0.5 * (k / sigma) ** 2), reach)
    ema = slow_average(losses, lambda k: np.exp(-abs(k) * np.sqrt(2) / sigma), int(30 * sigma))
    np.testing.assert_allclose(smooth(losses, "gaussian"), gaussian, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(smooth(losses, "ema"), ema, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("num_points", [5, 60, 101])
def test_median_agrees_with_a_slow_reference(num_points):
    losses = np.random.default_rng(1).normal(size=num_points)
    half = min(int(np.ceil(1.5 * max(1.0, WIDTH * num_points))), (num_points - 1) // 2)
    windows = [[at(losses, i + shift) for shift in range(-half, half + 1)] for i in range(num_points)]
    np.testing.assert_allclose(smooth(losses, "median"), np.median(windows, axis=1), rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@laws
@given(losses=losses_of_any_length, shift=st.floats(-1e3, 1e3), scale=st.floats(1e-3, 1e3))
def test_shift_and_scale_go_through(method, losses, shift, scale):
    moved = smooth(scale * losses + shift, method)
    np.testing.assert_allclose(moved, scale * smooth(losses, method) + shift, atol=1e-9 * (100 * scale + abs(shift)))


@pytest.mark.parametrize("method", METHODS)
@laws
@given(losses=losses_of_any_length)
def test_there_is_no_lag_and_no_overshoot(method, losses):
    smoothed = smooth(losses, method)
    np.testing.assert_allclose(smooth(losses[::-1], method), smoothed[::-1], atol=1e-9)
    assert losses.min() - 1e-9 <= smoothed.min() <= smoothed.max() <= losses.max() + 1e-9


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("num_points", [1, 2, 3, 4, 5, 30, 100, 1001])
def test_constants_stay_exactly_and_lines_stay_straight_up_to_the_ends(method, num_points):
    np.testing.assert_array_equal(smooth(np.full(num_points, 2.3), method), np.full(num_points, 2.3))
    line = np.linspace(3.0, -1.0, num_points)
    np.testing.assert_allclose(smooth(line, method), line, atol=1e-12)


@pytest.mark.parametrize("method", ["gaussian", "ema", "median"])
def test_noise_gets_less_and_the_minimum_stays_where_it_is(method):
    rng, x = np.random.default_rng(0), np.linspace(-3, 3, 301)
    smoothed = smooth(x**2 + 0.1 * rng.normal(size=301), method)
    assert np.std(smoothed - x**2) < 0.06
    assert abs(x[np.argmin(smoothed)]) < 0.3


@pytest.mark.parametrize("method", ["gaussian", "ema", "median"])
def test_a_blow_up_does_not_leak_into_the_points_before(method):
    fall = np.linspace(3.0, 1.0, 90)
    blown = np.concatenate([fall, 10.0 ** np.arange(3, 31, 3)])
    np.testing.assert_allclose(smooth(blown, method)[:80], fall[:80], atol=0.2)
    assert 75 <= np.argmin(smooth(blown, method)) <= 90


@pytest.mark.parametrize("method", METHODS)
def test_huge_tiny_and_short_input_stays_finite(method):
    for size in (1e300, 1.7e308, 1e-300, 5e-324):
        assert np.all(np.isfinite(smooth(size * np.array([1, -1, 1, 0.5, -0.5, 1, 1, -1]), method)))
    assert smooth(np.array([]), method).shape == (0,)


def test_the_input_is_left_alone():
    losses = np.array([3.0, 1.0, 2.0, 5.0])
    smooth(losses, "none")[:] = 0
    np.testing.assert_array_equal(losses, [3, 1, 2, 5])


def test_unknown_method():
    with pytest.raises(ArgumentError, match=r"smoothing must be one of gaussian, .*got smoothing='loess'"):
        smooth(np.ones(9), "loess")


def test_scipys_filters_are_loaded_when_losses_are_smoothed_and_not_before():
    code = (
        "import sys, numpy as np; from lrfinder import smooth\n"
        "print('scipy.ndimage' in sys.modules); smooth(np.arange(9.0)); print('scipy.ndimage' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
