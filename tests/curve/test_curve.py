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


def test_a_curve_without_points_is_a_curve():
    empty = {name: [] for name in ("lrs", "losses", "smoothed", "indices")}
    assert len(Curve(**empty, stop_reason=StopReason.NONFINITE, stop_lr=1e-8)) == 0


def test_a_context_is_frozen_and_assumes_nothing():
    context = Context()
    assert (context.optimizer, context.momentum, context.total_steps, context.val) == ("", 0.0, None, False)
    with pytest.raises(dataclasses.FrozenInstanceError):
        context.momentum = 0.9
