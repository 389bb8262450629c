import numpy as np
import pytest

from lrfinder import Curve, NoSuggestionError, StopReason
from lrfinder.curve.clipping import ABOVE_QUANTILE, QUANTILE, clip_threshold, norms_explode


def curve(norms, count=60):
    lrs = np.geomspace(1e-5, 1.0, count)
    losses = 1 / (1 + lrs / 1e-2) + np.minimum((lrs / 0.1) ** 4, 1e3)
    return Curve(
        lrs=lrs, losses=losses, smoothed=losses, indices=np.arange(count), stop_reason=StopReason.DIVERGED,
        grad_norms=norms,
    )  # fmt: skip


def test_the_threshold_is_a_high_quantile_of_the_norms_up_to_the_lr():
    norms = np.random.default_rng(0).uniform(1, 2, 60)
    measured = curve(norms)
    found = clip_threshold(measured, 1e-2)
    below = norms[measured.lrs <= 1e-2]
    assert found.max_norm == pytest.approx(ABOVE_QUANTILE * np.quantile(below, QUANTILE))
    assert found.share == pytest.approx(np.mean(below > found.max_norm))
    assert found.lr == 1e-2


def test_the_share_is_that_of_the_norms_it_would_have_clipped():
    norms = np.ones(60)
    norms[:2] = 10.0
    measured = curve(norms)
    found = clip_threshold(measured, 1e-2)
    assert found.share == pytest.approx(2 / np.sum(measured.lrs <= 1e-2))
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


@pytest.mark.parametrize(("peak", "explode"), [(50.0, False), (200.0, True), (np.inf, True)])
def test_one_norm_far_above_the_others_is_an_explosion(peak, explode):
    norms = np.ones(60)
    norms[10] = peak
    assert norms_explode(curve(norms), 1e-2) is explode
    assert not norms_explode(curve(None), 1e-2)
