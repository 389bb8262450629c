"""Sweeps become curves, and the curves of repeated sweeps their mean."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lrfinder.curve.arrays import Floats
from lrfinder.curve.curve import Curve
from lrfinder.curve.smoothing import smooth
from lrfinder.curve.sweep import Sweep

__all__ = ["curve_of", "mean_curve"]


def curve_of(sweep: Sweep, smoothing: str) -> Curve:
    """Return the curve of a sweep, as far as it has come.

    Args:
        sweep: The sweep.
        smoothing: A key of `lrfinder.SMOOTHINGS`.

    Returns:
        Its points, with smoothed losses.

    Example:
        >>> sweep = Sweep([0.1, 0.2, 0.4])
        >>> for loss in (3.0, 2.0):
        ...     _ = sweep.ask(), sweep.tell(loss)
        >>> curve_of(sweep, "none").losses
        array([3., 2.])
    """
    return _smoothed(sweep.lrs, sweep.losses, sweep.indices, sweep, smoothing)


def mean_curve(curves: Sequence[Curve], smoothing: str) -> Curve:
    """Return the mean of repeated sweeps over the points that all of them have; the shortest says why it ends.

    Args:
        curves: The curve of each repeat, at least one.
        smoothing: A key of `lrfinder.SMOOTHINGS`.

    Returns:
        Their mean; a single curve as it is.
    """
    if len(curves) == 1:
        return curves[0]
    shared = sorted(set.intersection(*(set(curve.indices.tolist()) for curve in curves)))
    losses = np.mean([curve.losses[np.isin(curve.indices, shared)] for curve in curves], axis=0)
    norms = [curve.grad_norms[np.isin(curve.indices, shared)] for curve in curves if curve.grad_norms is not None]
    shortest = min(curves, key=lambda curve: int(curve.indices[-1]) if len(curve) else -1)
    lrs = shortest.lrs[np.isin(shortest.indices, shared)]
    mean = _smoothed(lrs, losses, np.array(shared, dtype=np.intp), shortest, smoothing)
    return replace(mean, grad_norms=np.mean(norms, axis=0)) if norms else mean


def _smoothed(lrs: Floats, losses: Floats, indices: NDArray[np.intp], ended: Sweep | Curve, smoothing: str) -> Curve:
    return Curve(
        lrs=lrs,
        losses=losses,
        smoothed=smooth(losses, smoothing),
        indices=indices,
        stop_reason=ended.stop_reason,
        stop_lr=ended.stop_lr,
    )
