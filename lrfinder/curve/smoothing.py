"""Smoothing without lag: losses of shape (T,) -> losses of shape (T,).

A causal average shifts every feature of a sweep towards larger learning rates. All methods here look equally far to
both sides. Beyond its ends a curve is continued by its odd reflection, which keeps straight lines straight.
"""

import math
from collections.abc import Callable

import numpy as np

from lrfinder.curve.arrays import Floats
from lrfinder.errors import ArgumentError

__all__ = ["SMOOTHINGS", "smooth"]

WIDTH = 0.02  # standard deviation of the kernel as a share of the number of points: two points of a hundred
CAP = 3.0  # a blow-up counts as no more than this multiple of the spread of the lower three quarters above them


def smooth(losses: Floats, method: str = "gaussian") -> Floats:
    """Return the losses of a sweep without their noise, their features at the same place.

    Adding a constant, scaling, and reversing the input do the same to the output; straight lines stay as they are.
    The linear methods first cap a blow-up at `CAP` times the spread of the rest above it. Otherwise the last few points
    of a sweep would dominate the average of everything near them.

    Args:
        losses: Finite losses at evenly spaced places, shape (T,).
        method: `"gaussian"`, `"ema"` (an exponential kernel on both sides), `"median"` or `"none"`.

    Returns:
        The smoothed losses, shape (T,).

    Raises:
        ArgumentError: If the method is unknown.

    Example:
        >>> smooth(np.array([3.0, 3.0, 3.0]))
        array([3., 3., 3.])
    """
    if method not in SMOOTHINGS:
        raise ArgumentError(f"smoothing must be one of {', '.join(SMOOTHINGS)}, got smoothing={method!r}.")
    losses = np.asarray(losses, dtype=np.float64)
    scale = np.max(np.abs(losses), initial=0.0)
    if len(losses) < 3 or scale == 0:
        return losses.copy()
    # Near 1e308 sums overflow; and the sum of equal numbers is exact only where they are zero.
    unit = losses / scale
    offset = np.median(unit)
    return np.asarray((SMOOTHINGS[method](unit - offset) + offset) * scale, dtype=np.float64)


def _gaussian(losses: Floats) -> Floats:
    from scipy.ndimage import gaussian_filter1d

    sigma = _width(losses)
    reach = min(math.ceil(4 * sigma), len(losses) - 1)
    smoothed: Floats = gaussian_filter1d(_continued(_capped(losses), reach), sigma, radius=reach)
    return smoothed[reach:-reach]


def _ema(losses: Floats) -> Floats:
    from scipy.signal import filtfilt

    # Forward and backward in turn have the kernel exp(-|k| / tau), of standard deviation sqrt(2) tau.
    tau = _width(losses) / math.sqrt(2)
    decay = math.exp(-1 / tau)
    reach = math.ceil(40 * tau)  # what the filter starts from is forgotten there
    smoothed: Floats = filtfilt([1 - decay], [1, -decay], _continued(_capped(losses), reach), padtype=None)
    return smoothed[reach:-reach]


def _median(losses: Floats) -> Floats:
    from scipy.ndimage import median_filter

    reach = min(math.ceil(1.5 * _width(losses)), (len(losses) - 1) // 2)
    smoothed: Floats = median_filter(_continued(losses, reach), size=2 * reach + 1)
    return smoothed[reach:-reach]


def _none(losses: Floats) -> Floats:
    return losses


SMOOTHINGS: dict[str, Callable[[Floats], Floats]] = {
    "gaussian": _gaussian,
    "ema": _ema,
    "median": _median,
    "none": _none,
}


def _width(losses: Floats) -> float:
    return max(1.0, WIDTH * len(losses))


def _capped(losses: Floats) -> Floats:
    low, high = losses.min(), np.quantile(losses, 0.75)
    capped: Floats = np.minimum(losses, high + CAP * (high - low))
    return capped


def _continued(losses: Floats, reach: int) -> Floats:
    return np.pad(losses, reach, mode="reflect", reflect_type="odd")
