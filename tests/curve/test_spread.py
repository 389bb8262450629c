import numpy as np
import pytest

from lrfinder.curve.curve import Context, Curve
from lrfinder.curve.rules import suggestions
from lrfinder.curve.spread import lr_spreads


def falling(turn):
    lrs = np.geomspace(1e-5, 10, 100)
    losses = 1 / (1 + (lrs / turn) ** 2)
    return Curve(lrs=lrs, losses=losses, smoothed=losses, indices=np.arange(100), stop_reason=None)


def flat():
    return Curve(lrs=np.geomspace(1, 2, 9), losses=[1.0] * 9, smoothed=[1.0] * 9, indices=range(9), stop_reason=None)


def test_spreads_are_the_lowest_and_highest_lr_of_each_rule_that_applies():
    curves = [falling(1e-2), falling(1e-1), flat()]
    by_hand = [suggestions(curve)["auto"].lr for curve in curves[:2]]
    spreads = lr_spreads(iter(curves), Context())
    assert spreads["auto"] == (min(by_hand), max(by_hand))
    assert by_hand[0] < by_hand[1]
    assert "refine" not in spreads  # it applies to no bare curve
    assert lr_spreads([flat()], Context()) == {}


def test_the_spread_of_a_function_goes_by_its_name():
    def last(curve, context):
        return curve.lrs[-1]

    assert lr_spreads([falling(1e-2), flat()], Context(), [last]) == {"last": (2.0, pytest.approx(10.0))}
