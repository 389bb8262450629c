import dataclasses

import numpy as np
import pytest

from lrfinder.curve.curve import Context, Curve
from lrfinder.curve.stop_rule import StopReason
from lrfinder.errors import ArgumentError

GOOD = {
    "lrs": [1e-3, 1e-2, 1e-1],
    "losses": [3.0, -2.0, 1.0],
    "smoothed": [3.0, -1.0, 1.0],
    "indices": [0, 2, 3],
    "stop_reason": StopReason.FINISHED,
}


def test_arrays_are_read_only_copies_in_double_precision():
    losses = np.array([3, -2, 1], dtype=np.float32)
    curve = Curve(**{**GOOD, "losses": losses})
    losses[0] = 99
    assert len(curve) == 3
    assert curve.losses.dtype == curve.lrs.dtype == curve.smoothed.dtype == np.float64
    assert curve.losses.tolist() == [3, -2, 1]
    for array in (curve.lrs, curve.losses, curve.smoothed, curve.indices):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        curve.stop_lr = 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"losses": [3.0, 2.0]}, r"Curve\(losses=...\) must have the shape of lrs=\(3,\), .* got shape \(2,\)"),
        ({"smoothed": [[3.0, 2.0, 1.0]]}, r"Curve\(smoothed=...\) must have the shape"),
        ({"indices": [0]}, r"Curve\(indices=...\) must have the shape"),
        ({"losses": [3.0, np.nan, 1.0]}, r"Curve\(losses=...\) must be finite"),
        ({"smoothed": [3.0, np.inf, 1.0]}, r"Curve\(smoothed=...\) must be finite"),
        ({"lrs": [1e-3, 1e-1, 1e-2]}, r"Curve\(lrs=...\) must be positive and strictly increasing"),
        ({"lrs": [1e-3, 1e-3, 1e-2]}, r"Curve\(lrs=...\) must be positive and strictly increasing"),
        ({"lrs": [0.0, 1e-3, 1e-2]}, r"Curve\(lrs=...\) must be positive and strictly increasing"),
    ],
)
def test_what_no_sweep_gives_is_refused(change, message):
    with pytest.raises(ArgumentError, match=message):
        Curve(**{**GOOD, **change})


def test_features_by_hand():
    losses = np.array([3.0, 3.2, 2.8, 3.0, 3.0, 2.0, 1.0, 1.0, 1.0, 5.0])
    curve = Curve(
        **{**GOOD, "lrs": np.geomspace(1e-3, 1, 10), "losses": losses, "smoothed": losses, "indices": range(10)}
    )
    unit = np.quantile(losses, 0.75) - 1.0
    assert curve.unit_losses == pytest.approx((losses - 1) / unit, abs=1e-9)
    assert curve.lowest_index == 6
    assert (curve.plateau, curve.lowest) == pytest.approx((2 / unit, 0.0), abs=1e-9)
    assert curve.depth == curve.plateau
    steps = [0.2, 0.4, 0.2, 1.0]  # down to the lowest, without the two that are equal
    assert curve.noise == pytest.approx(np.mean(steps) * np.sqrt(np.pi) / 2 / unit)
    assert curve.has_clear_descent  # medians 3 and 1, three standard errors are 0.8


def test_a_feature_is_computed_once_and_cannot_be_changed():
    curve = Curve(**GOOD)
    assert curve.unit_losses is curve.unit_losses
    with pytest.raises(ValueError, match="read-only"):
        curve.unit_losses[0] = 1
    assert "lowest_index" not in vars(curve)
    assert curve.lowest_index == vars(curve)["lowest_index"]


def test_features_of_a_single_point_are_finite():
    one = Curve(lrs=[0.1], losses=[2.0], smoothed=[2.0], indices=[0], stop_reason=None)
    assert (one.lowest_index, one.plateau, one.depth, one.noise) == (0, 0.0, 0.0, 0.0)


def test_a_curve_without_points_is_a_curve():
    empty = {name: [] for name in ("lrs", "losses", "smoothed", "indices")}
    assert len(Curve(**empty, stop_reason=StopReason.NONFINITE, stop_lr=1e-8)) == 0


def test_a_context_is_frozen_and_assumes_nothing():
    context = Context()
    assert (context.optimizer, context.momentum, context.total_steps, context.val) == ("", 0.0, None, False)
    with pytest.raises(dataclasses.FrozenInstanceError):
        context.momentum = 0.9
