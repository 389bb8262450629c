import numpy as np

from lrfinder.curve.curve import Context, Curve
from lrfinder.curve.rules import suggestions
from lrfinder.curve.spread import lr_spreads


def falling(turn):
    lrs = np.geomspace(1e-5, 10, 100)
    losses = 1 / (1 + (lrs / turn) ** 2)
    return Curve(lrs=lrs, losses=losses, smoothed=losses, indices=np.arange(100), stop_reason=None)


def flat():
    return Curve(lrs=np.geomspace(1, 2, 9), losses=[1.0] * 9, smoothed=[1.0] * 9, indices=range(9), stop_reason=None)


def test_spreads_are_the_lowest_and_highest_rate_of_each_rule_that_applies():
    curves = [falling(1e-2), falling(1e-1), flat()]
    by_hand = [suggestions(curve)["steepest"].lr for curve in curves[:2]]
    spreads = lr_spreads(iter(curves), Context())
    assert spreads["steepest"] == (min(by_hand), max(by_hand))
    assert by_hand[0] < by_hand[1]
    assert "divergence" not in spreads
    assert lr_spreads([flat()], Context()) == {}
