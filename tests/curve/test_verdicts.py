"""A learning rate is judged by its distance from the suggestion and from divergence."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrfinder.curve import Context, Curve, Level, StopReason, Verdict, judge, smooth
from lrfinder.curve.verdicts import times

SUGGESTED = 1e-2


def curve(*, diverges=True, stop_reason=StopReason.DIVERGED):
    lrs = np.geomspace(1e-5, 1.0, 100)
    losses = 2.0 - 1.5 / (1 + (1e-3 / lrs) ** 2)
    if diverges:
        losses = losses + np.where(lrs > 0.1, (lrs / 0.1 - 1) ** 2, 0)
    return Curve(
        lrs=lrs, losses=losses, smoothed=smooth(losses), indices=np.arange(100), stop_reason=stop_reason, stop_lr=1.0
    )


@pytest.mark.parametrize(
    ("lr", "level"),
    [
        (1e-5, Level.TOO_LOW),
        (2e-4, Level.TOO_LOW),
        (1e-3, Level.LOW),
        (5e-3, Level.GOOD),
        (1e-2, Level.GOOD),
        (4e-2, Level.GOOD),
        (6e-2, Level.HIGH),
        (0.5, Level.HIGH),
        (20.0, Level.TOO_HIGH),
    ],
)
def test_levels_along_the_axis(lr, level):
    verdict = judge(lr, SUGGESTED, curve(), Context())
    assert (verdict.lr, verdict.level) == (lr, level)
    assert verdict.factor == pytest.approx(lr / SUGGESTED)


def test_the_reason_names_the_suggestion_the_distance_and_what_to_expect():
    low = judge(1e-3, SUGGESTED, curve(), Context())
    assert low.reason == (
        "1.0e-03 is 10x below the suggestion 1.0e-02: expect slow training that ends far from where it could."
    )
    assert str(low) == "10x below: expect slow training"
    high = judge(10.0, SUGGESTED, curve(), Context())
    assert "1000x above the suggestion" in high.reason
    assert "the divergence at" in high.reason
    assert "NaN" in str(high)
    assert str(judge(1.2e-2, SUGGESTED, curve(), Context())) == "near the suggestion"


def test_above_divergence_is_high_even_near_the_suggestion():
    assert judge(0.4, 0.2, curve(), Context()).level is Level.HIGH


def test_without_a_suggestion_it_is_unknown():
    verdict = judge(0.1, None, curve(), Context())
    assert verdict.level is Level.UNKNOWN
    assert math.isnan(verdict.factor)
    assert str(verdict) == "the curve cannot tell"


def test_far_above_a_sweep_without_divergence_it_is_unknown():
    quiet = curve(diverges=False, stop_reason=StopReason.FINISHED)
    assert judge(5.0, SUGGESTED, quiet, Context()).level is Level.HIGH
    verdict = judge(50.0, SUGGESTED, quiet, Context())
    assert verdict.level is Level.UNKNOWN
    assert "Pass a larger end_lr" in verdict.reason


@given(st.floats(1e-100, 1e100), st.floats(1e-100, 1e100))
def test_any_positive_lr_gets_a_verdict_and_larger_ones_no_lower_level(lr, suggested):
    order = [Level.TOO_LOW, Level.LOW, Level.GOOD, Level.HIGH, Level.TOO_HIGH]
    levels = [judge(each, suggested, curve(), Context()).level for each in (lr / 3, lr)]
    assert order.index(levels[0]) <= order.index(levels[1])


@pytest.mark.parametrize("level", list(Level))
def test_every_level_says_what_to_expect(level):
    assert level.expectation
    assert level.expectation in str(Verdict(lr=1.0, level=level, factor=2.0, reason=""))


@pytest.mark.parametrize(
    ("factor", "text"), [(1.0, "1x above"), (0.0714, "14x below"), (9.96, "10x above"), (1e9, "1e+09x above")]
)
def test_distances_are_written_with_two_digits(factor, text):
    assert times(factor) == text
