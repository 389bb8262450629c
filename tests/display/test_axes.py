"""Limits that a blow-up cannot ruin, lines thinned without a visible change, kinds of grid told apart."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lrfinder.curve import RULES, Landmarks
from lrfinder.curve.curve import Curve
from lrfinder.curve.smoothing import smooth
from lrfinder.curve.stop_rule import StopReason
from lrfinder.curve.suggestion import Suggestion
from lrfinder.curve.sweep import grid
from lrfinder.display.axes import (
    choose_marks,
    diverged_from,
    is_linear,
    loss_at,
    loss_limits,
    power_of_ten,
    probe_arrays,
    thin,
)
from lrfinder.errors import ArgumentError

NONE = np.array([])


def _curve(losses, lrs=None, reason=StopReason.FINISHED, stop_lr=None, indices=None):
    losses = np.asarray(losses, dtype=float)
    lrs = np.geomspace(1e-5, 1.0, len(losses)) if lrs is None else lrs
    indices = np.arange(len(losses)) if indices is None else indices
    return Curve(lrs=lrs, losses=losses, smoothed=smooth(losses), indices=indices, stop_reason=reason, stop_lr=stop_lr)


def _fall(num=100, noise=0.02, seed=0):
    x = np.linspace(0, 1, num)
    return 2.3 - 1.5 / (1 + np.exp(-20 * (x - 0.6))) + noise * np.random.default_rng(seed).standard_normal(num)


@pytest.mark.parametrize("known", [True, False], ids=["divergence known", "divergence unknown"])
@pytest.mark.parametrize("shift", [0.0, -100.0])
def test_a_blow_up_leaves_the_limits_almost_alone(known, shift):
    losses = _fall() + shift
    low, high = loss_limits(_curve(losses), None, NONE)
    blown = losses.copy()
    blown[90:] = np.geomspace(10, 1e30, 10)
    curve = _curve(blown)
    with_blow_up = loss_limits(curve, curve.lrs[89] if known else None, NONE)
    assert with_blow_up[0] == pytest.approx(low, abs=0.8 * (high - low))
    assert with_blow_up[1] < high + (high - low)
    assert with_blow_up[1] > curve.smoothed[0]


def test_the_start_is_seen_however_little_of_the_curve_it_is():
    losses = np.r_[5.0, 4.9, np.full(98, 0.1)]
    assert loss_limits(_curve(losses), None, NONE)[1] >= _curve(losses).smoothed[0]


def test_one_outlier_does_not_set_the_limits_but_usual_noise_does():
    losses = _fall(noise=0.3)
    low, high = loss_limits(_curve(losses), None, NONE)
    assert low <= losses.min() + 1e-9
    assert high >= losses.max() - 1e-9
    losses[20] = 1e4
    assert loss_limits(_curve(losses), None, NONE)[1] < 10


def test_raw_losses_and_scores_count_only_where_they_are_drawn():
    curve = _curve(_fall(noise=0.3))
    smooth_only = loss_limits(curve, None, NONE, raw=False)
    assert smooth_only == (curve.smoothed.min(), curve.smoothed.max())
    low, high = loss_limits(curve, None, np.array([-0.5, 1.0, np.nan, np.inf, 1e9]), raw=False)
    assert (low, high) == (-0.5, smooth_only[1])


@settings(max_examples=60, deadline=None)
@given(
    arrays(float, st.integers(1, 40), elements=st.floats(-1.7e308, 1.7e308)),
    st.none() | st.floats(1e-6, 10.0),
    arrays(float, st.integers(0, 3), elements=st.floats(allow_nan=True, allow_infinity=True)),
)
def test_limits_are_finite_and_in_order_for_any_losses(losses, past, scores):
    curve = Curve(
        lrs=np.geomspace(1e-5, 1.0, len(losses)) if len(losses) > 1 else np.array([0.1]),
        losses=losses,
        smoothed=losses,
        indices=np.arange(len(losses)),
        stop_reason=StopReason.FINISHED,
    )
    low, high = loss_limits(curve, past, scores)
    assert np.isfinite([low, high]).all()
    assert low <= high


def test_a_thinned_line_keeps_ends_and_extremes_of_each_stretch():
    lrs, losses = np.geomspace(1e-6, 1, 100_000), np.random.default_rng(0).standard_normal(100_000)
    rates, kept = thin(lrs, losses)
    assert len(rates) <= 2002
    assert (np.diff(rates) > 0).all()
    assert (rates[0], rates[-1]) == (lrs[0], lrs[-1])
    assert np.isin(kept, losses).all()
    for stretch in losses.reshape(1000, 100)[::97]:
        assert {stretch.min(), stretch.max()} <= set(kept)
    np.testing.assert_array_equal(thin(lrs[:2000], losses[:2000])[1], losses[:2000])


@pytest.mark.parametrize("mode", ["exponential", "linear"])
@pytest.mark.parametrize("span", [1.01, 3, 1e6])
def test_the_grid_s_mode_is_recognised_with_gaps(mode, span):
    lrs = grid(1e-4, 1e-4 * span, 50, mode)
    kept = np.delete(np.arange(50), [7, 8, 9, 30])
    assert is_linear(_curve(np.ones(46), lrs[kept], indices=kept)) == (mode == "linear")


def test_two_points_count_as_exponential():
    assert not is_linear(_curve([1.0, 2.0], np.array([1.0, 2.0])))


def test_loss_between_and_beyond_points():
    curve = _curve([1.0, 3.0], np.array([1e-4, 1e-2]))
    assert loss_at(curve, 1e-3) == pytest.approx(2.0)
    assert (loss_at(curve, 1e-9), loss_at(curve, 10.0)) == (1.0, 3.0)


def test_where_it_diverged():
    stopped = _curve([1.0, 2.0], reason=StopReason.NONFINITE, stop_lr=2.0)
    assert diverged_from(stopped, Landmarks(divergence=0.3)) == 0.3
    assert diverged_from(stopped, Landmarks()) == 2.0
    assert diverged_from(_curve([1.0, 2.0]), Landmarks()) is None


def _made(*rules):
    return {rule: Suggestion(lr=1e-3, rule=rule, reason="So.", index=0, spread=(1e-4, 1e-2)) for rule in rules}


def test_which_suggestions_and_landmarks_are_marked():
    found = Landmarks(onset=1e-5, divergence=0.1)
    made = _made("auto", "fastai_valley", "mine")
    marks = choose_marks(made, found)
    assert [(mark.name, mark.lr, mark.marker, mark.spread) for mark in marks] == [
        ("suggestion", 1e-3, "o", (1e-4, 1e-2)),
        ("divergence", 0.1, "X", None),
    ]
    marks = choose_marks(made, found, ["mine", "onset", "fastai_valley", "steepest", "auto", "mine"])
    assert [(mark.name, mark.marker) for mark in marks] == [
        ("mine", "P"), ("onset", "s"), ("fastai_valley", RULES["fastai_valley"].marker), ("suggestion", "o"),
    ]  # fmt: skip
    assert [mark.name for mark in choose_marks(_made("refine", "auto"), found)] == ["suggestion", "divergence"]
    assert choose_marks(made, found, []) == choose_marks({}, Landmarks()) == []
    with pytest.raises(ArgumentError, match=r"plot\(rules=...\) takes names among auto, .*got 'best'"):
        choose_marks(made, found, ["best"])


def test_a_landmark_that_an_older_version_suggested_is_marked_once():
    assert [mark.name for mark in choose_marks(_made("steepest"), Landmarks(steepest=1e-3))] == ["suggestion"]


def test_powers_of_ten():
    assert [power_of_ten(x) for x in (1e-3, 2.5e-4, 20)] == ["$10^{-3}$", r"$2.5{\times}10^{-4}$", r"$2{\times}10^{1}$"]


def test_probes_are_sorted_and_checked():
    rates, scores = probe_arrays(([3.0, 1.0], [0.5, np.nan]))
    np.testing.assert_array_equal(rates, [1.0, 3.0])
    np.testing.assert_array_equal(scores, [np.nan, 0.5])
    assert [part.size for part in probe_arrays(())] == [0, 0]
    with pytest.raises(ArgumentError, match=r"as many lrs as losses.*got shapes=\(\(2,\), \(1,\)\)"):
        probe_arrays(([1.0, 2.0], [0.5]))
