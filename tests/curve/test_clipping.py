import numpy as np
import pytest

from lrfinder import Curve, NoSuggestionError, StopReason
from lrfinder.curve import find_landmarks
from lrfinder.curve.clipping import (
    ABOVE_QUANTILE,
    PEAK_QUANTILE,
    QUANTILE,
    clip_threshold,
    norms_explode,
    norms_overflow,
)


def curve(norms, count=60):
    lrs = np.geomspace(1e-5, 1.0, count)
    losses = 1 / (1 + lrs / 1e-2) + np.minimum((lrs / 0.1) ** 4, 1e3)
    return Curve(
        lrs=lrs, losses=losses, smoothed=losses, indices=np.arange(count), stop_reason=StopReason.DIVERGED,
        grad_norms=norms,
    )  # fmt: skip


def test_the_threshold_is_a_multiple_of_a_quantile_of_the_norms_up_to_the_lr():
    norms = np.random.default_rng(0).uniform(1, 2, 60)
    measured = curve(norms)
    found = clip_threshold(measured, 1e-2)
    below = norms[measured.lrs <= 1e-2]
    assert found.max_norm == pytest.approx(ABOVE_QUANTILE * np.quantile(below, QUANTILE))
    assert found.share == pytest.approx(np.mean(below > found.max_norm))
    assert found.lr == 1e-2


def test_it_is_not_below_the_norms_of_higher_stable_lrs():
    measured = curve(np.geomspace(1, 100, 60))
    divergence = find_landmarks(measured).divergence
    below = measured.grad_norms[measured.lrs <= divergence]
    found = clip_threshold(measured, 1e-3)
    assert found.max_norm == np.quantile(below, PEAK_QUANTILE)
    assert found.max_norm > ABOVE_QUANTILE * np.quantile(measured.grad_norms[measured.lrs <= 1e-3], QUANTILE)
    assert "98% quantile of the gradient norms below divergence" in found.reason


def test_a_sweep_without_divergence_shows_no_higher_norms():
    lrs = np.geomspace(1e-5, 1.0, 60)
    losses, norms = 1 / (1 + lrs / 1e-2), np.where(lrs > 0.1, 1e6, 1.0)
    measured = Curve(
        lrs=lrs, losses=losses, smoothed=losses, indices=np.arange(60), stop_reason=StopReason.FINISHED,
        grad_norms=norms,
    )  # fmt: skip
    assert find_landmarks(measured).divergence is None
    assert clip_threshold(measured, 1e-2).max_norm == ABOVE_QUANTILE


def test_the_share_is_that_of_the_norms_it_would_have_clipped():
    norms = np.ones(60)
    norms[0] = 10.0
    measured = curve(norms)
    found = clip_threshold(measured, 1e-2)
    assert found.share == pytest.approx(1 / np.sum(measured.lrs <= 1e-2))
    assert "% are higher" in found.reason


def test_norms_beyond_divergence_do_not_count():
    norms = np.where(np.geomspace(1e-5, 1.0, 60) > 0.3, 1e6, 1.0)
    assert clip_threshold(curve(norms), 1.0).max_norm == ABOVE_QUANTILE


def test_infinite_norms_do_not_count():
    norms = np.ones(60)
    norms[3] = np.nan  # kept as infinite
    assert clip_threshold(curve(norms), 1e-2).max_norm == ABOVE_QUANTILE


def test_without_norms_the_remedy_is_named():
    with pytest.raises(NoSuggestionError, match=r"Call find\(grad_norms=True\)"):
        clip_threshold(curve(None), 1e-2)


def test_too_few_norms_are_no_ground_for_a_threshold():
    with pytest.raises(NoSuggestionError, match=r"needs 10 gradient norms .* got 1\. Lower start_lr"):
        clip_threshold(curve(np.ones(60)), 1.1e-5)


def test_gradients_of_zero_are_no_ground_for_a_threshold():
    with pytest.raises(NoSuggestionError, match=r"got norms of 0\. Look for a loss that does not depend"):
        clip_threshold(curve(np.zeros(60)), 1e-2)


@pytest.mark.parametrize(("peak", "explode"), [(50.0, False), (200.0, True), (np.inf, False)])
def test_one_norm_far_above_the_others_is_an_explosion(peak, explode):
    norms = np.ones(60)
    norms[10] = peak
    assert norms_explode(curve(norms), 1e-2) is explode
    assert not norms_explode(curve(None), 1e-2)


@pytest.mark.parametrize(("peak", "at", "overflow"), [(1e30, 10, False), (np.nan, 10, True), (np.inf, 59, False)])
def test_a_norm_that_is_not_finite_counts_before_the_loss_blows_up(peak, at, overflow):
    norms = np.ones(60)
    norms[at] = peak
    assert norms_overflow(curve(norms)) is overflow
    assert not norms_overflow(curve(None))
