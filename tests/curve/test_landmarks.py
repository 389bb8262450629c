import math

import numpy as np
import pytest

from lrfinder.curve.landmarks import Landmarks, find_landmarks
from lrfinder.curve.rules import suggest
from tests.curve.curves import decades, healthy, measured


@pytest.mark.parametrize("smoothing", ["gaussian", "ema", "median"])
def test_each_feature_is_found_where_it_was_put(smoothing):
    losses = healthy(steepest_at=1e-3, diverges_at=3e-2)
    curve = measured(losses, smoothing=smoothing)
    found = find_landmarks(curve)
    assert decades(found.steepest, 1e-3) < 0.2
    assert decades(found.divergence, 3e-2) < 0.2
    assert 3e-5 < found.onset < 4e-4  # the fall is through 2% at 7e-5 and through 20% at 4e-4
    assert decades(found.minimum, 2.5e-2) < 0.3
    assert found.onset < suggest("auto", curve).lr < found.divergence


def test_without_noise_steepest_is_exact_on_an_uneven_grid():
    rng = np.random.default_rng(0)
    lrs = np.sort(10 ** rng.uniform(-6, 0, size=300))
    losses = 1 / (1 + (lrs / 1e-3) ** 2)
    curve = measured(losses, lrs, smoothing="none")
    assert decades(find_landmarks(curve).steepest, 1e-3) < 0.05


def test_steepest_agrees_with_a_slow_reference():
    curve = measured(healthy(noise=0.0, steepest_at=1.1e-3), smoothing="none")
    slopes = {}
    for i in range(3, 73):
        run = math.log10(curve.lrs[i + 3] / curve.lrs[i - 3])
        slopes[i] = (curve.smoothed[i + 3] - curve.smoothed[i - 3]) / run
    assert find_landmarks(curve).steepest == curve.lrs[min(slopes, key=slopes.get)]


def test_steepest_looks_at_neither_the_plateau_nor_what_follows_the_lowest_loss():
    losses = healthy(diverges_at=1e-2)
    losses[90:] = 1e6 * np.linspace(1, 0, 10)  # the steepest fall of all
    curve = measured(losses, stop_rule=False)
    assert decades(find_landmarks(curve).steepest, 1e-3) < 0.2


def test_onset_is_where_the_plateau_ends():
    lrs = np.geomspace(1e-6, 1.0, 200)
    losses = 3 - np.clip(np.log10(lrs / 1e-3), 0, None) + 0.02 * np.random.default_rng(0).normal(size=200)
    assert 1e-3 < find_landmarks(measured(losses)).onset < 1.5e-3


def test_minimum_is_the_lowest_smoothed_loss():
    lrs = np.geomspace(1e-6, 1.0, 101)
    curve = measured(np.log10(lrs / 1e-2) ** 2, stop_rule=False)
    assert find_landmarks(curve).minimum == pytest.approx(1e-2, rel=0.1)


def test_where_nothing_is_seen_they_are_none():
    assert find_landmarks(measured(np.full(50, 2.3))) == Landmarks()
    assert find_landmarks(measured([3.0, 2.0, 1.0, 9.0])) == Landmarks()  # too few points
