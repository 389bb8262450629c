import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrfinder.curve.curve import Context
from lrfinder.curve.landmarks import find_landmarks
from lrfinder.curve.rules import suggestions
from lrfinder.curve.scout import scouted_range
from lrfinder.curve.smoothing import SMOOTHINGS
from lrfinder.curve.sweep import Sweep
from lrfinder.curve.warnings import curve_warnings
from tests.curve.curves import curve_of, decades, found_at, healthy, measured

laws = settings(max_examples=50, deadline=None)


@laws
@given(
    seed=st.integers(0, 999),
    noise=st.floats(1e-3, 0.5),
    shift=st.floats(-100, 100),
    scale=st.floats(1e-3, 1e3),
    smoothing=st.sampled_from(sorted(SMOOTHINGS)),
    momentum=st.sampled_from([0.0, 0.9]),
)
def test_auto_and_landmarks_depend_on_no_offset_or_scale(seed, noise, shift, scale, smoothing, momentum):
    losses = healthy(noise=noise, seed=seed, diverges_at=10 ** (-1 - seed % 5 / 2))
    context = Context(momentum=momentum, total_steps=5000)
    here, there = (measured(each, smoothing=smoothing) for each in (losses, scale * losses + shift))
    assert found_at(there, context) == pytest.approx(found_at(here, context), rel=1e-6)


@settings(max_examples=200, deadline=None)
@given(
    losses=st.one_of(
        st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=60),
        st.lists(st.sampled_from([0.0, 1.0, -1.0, 2.0]), min_size=1, max_size=60),
        st.lists(st.sampled_from([1e30, 1.0, 2.3, 1e300, -1e300, 5e-324, 1.7e308, -1.7e308]), min_size=1),
        st.lists(st.floats(-1, 1), min_size=1, max_size=60),
    ),
    smoothing=st.sampled_from(sorted(SMOOTHINGS)),
    linear=st.booleans(),
    stop_rule=st.booleans(),
    val=st.booleans(),
    momentum=st.floats(0, 0.999),
)
def test_no_curve_breaks_a_rule(losses, smoothing, linear, stop_rule, val, momentum):
    lrs = (np.linspace if linear else np.geomspace)(1e-6, 10.0, len(losses))
    curve = measured(losses, lrs, smoothing=smoothing, stop_rule=stop_rule)
    context = Context(momentum=momentum, val=val)
    for suggestion in suggestions(curve, context).values():  # swallows NoSuggestionError, nothing else
        assert 0 < suggestion.lr <= 10.0 * (1 + 1e-9)
        assert 0 <= suggestion.index < len(curve)
        assert suggestion.reason
    for lr in dataclasses.astuple(find_landmarks(curve, context)):
        assert lr is None or 0 < lr <= 10.0 * (1 + 1e-9)
    assert all(isinstance(sentence, str) for sentence in curve_warnings(curve, context))
    start, end = scouted_range(curve, context)
    assert 0 < start < end < math.inf


@pytest.mark.parametrize("height", [1e3, 1e10, 1e30, 1e300])
def test_the_height_of_an_explosion_does_not_matter(height):
    losses = healthy()
    tame, wild = measured(losses), losses.copy()
    wild[85:] = 2 + height * np.arange(15)
    here, there = found_at(tame), found_at(measured(wild))
    for name, lr in here.items():
        assert decades(lr, there[name]) < 0.1, name
    assert curve_warnings(measured(wild)) == []


@laws
@given(seed=st.integers(0, 999))
def test_gaps_change_little(seed):
    losses, rng = healthy(seed=seed), np.random.default_rng(seed)
    sweep = Sweep(np.geomspace(1e-6, 1.0, 100))
    skips = rng.random(100) < 0.15
    skips[1:] &= ~skips[:-1]  # many in a row would be divergence
    for loss, skip in zip(losses, skips, strict=True):
        if sweep.ask() is None:
            break
        sweep.skip() if skip else sweep.tell(float(loss))
    whole, gappy = found_at(measured(losses)), found_at(curve_of(sweep))
    for name in ("steepest", "divergence", "auto"):
        assert decades(whole[name], gappy[name]) < 0.4


def test_pure_noise_is_nearly_always_called_flat():
    rng = np.random.default_rng(0)
    curves = [measured(losses) for losses in rng.normal(size=(200, 100))]
    assert sum("auto" in suggestions(curve) for curve in curves) <= 6


def test_many_points():
    curve = measured(healthy(100_000, noise=0.3))
    found = find_landmarks(curve)
    assert decades(found.divergence, 3e-2) < 0.2
    assert decades(found.steepest, 1e-3) < 0.3
    assert "auto" in suggestions(curve)
