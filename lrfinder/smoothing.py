"""Smoothing without lag: losses (T,) -> losses (T,).

A causal average shifts every feature of a sweep towards larger rates, and a suggestion with it. All methods here look
both ways. The linear ones fit a straight line around each point (local linear regression, W. S. Cleveland 1979, "Robust
locally weighted regression and smoothing scatterplots"), so that the ends of a falling curve aren't bent.
"""

import math
from collections.abc import Callable

import numpy as np

from lrfinder.errors import ArgumentError
from lrfinder.sweep import Floats

__all__ = ["SMOOTHINGS", "smooth"]

WIDTH = 0.02
"""Width of the kernel as a share of the number of points: two points of a hundred."""

CAP = 3.0
"""A blow-up counts as no more than so many times the spread of the lower three quarters above them."""


def smooth(losses: Floats, method: str = "gaussian") -> Floats:
    """Smooth the losses of a sweep without shifting its features.

    Adding a constant, scaling, and reversing the input do the same to the output; straight lines stay as they are. Since
    averages leak, the linear methods first cap a blow-up at `CAP` times the spread of the rest above it: else the last
    few points of a sweep would bury everything before them.

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


def _width(num_points: int) -> float:
    return max(1.0, WIDTH * num_points)


def _gaussian(losses: Floats) -> Floats:
    sigma = _width(len(losses))
    reach = np.arange(math.ceil(4 * sigma) + 1)
    return _local_lines(_capped(losses), np.exp(-0.5 * (reach / sigma) ** 2))


def _ema(losses: Floats) -> Floats:
    # A two-sided exponential exp(-|k| / tau) has the standard deviation sqrt(2) tau.
    tau = _width(len(losses)) / math.sqrt(2)
    reach = np.arange(math.ceil(12 * tau) + 1)
    return _local_lines(_capped(losses), np.exp(-reach / tau))


def _median(losses: Floats) -> Floats:
    from scipy.ndimage import median_filter

    half = min(math.ceil(1.5 * _width(len(losses))), len(losses) - 1)
    padded = np.pad(losses, half, mode="reflect", reflect_type="odd")
    return np.asarray(median_filter(padded, size=2 * half + 1)[half:-half], dtype=np.float64)


def _none(losses: Floats) -> Floats:
    return losses


def _capped(losses: Floats) -> Floats:
    low, high = losses.min(), np.quantile(losses, 0.75)
    return np.minimum(losses, high + CAP * (high - low))


def _local_lines(losses: Floats, half_kernel: Floats) -> Floats:
    """Fit a weighted straight line around each point and return its value there; weights (half,) from the centre out."""
    half_kernel = half_kernel[: len(losses)]
    reach = np.arange(1 - len(half_kernel), len(half_kernel))
    kernel = np.concatenate([half_kernel[:0:-1], half_kernel])
    ones = np.ones_like(losses)
    s0, s1, s2 = (_correlate(ones, kernel * reach**power) for power in range(3))
    t0, t1 = (_correlate(losses, kernel * reach**power) for power in range(2))
    return np.asarray((s2 * t0 - s1 * t1) / (s2 * s0 - s1**2), dtype=np.float64)


def _correlate(values: Floats, kernel: Floats) -> Floats:
    """Return sum_k kernel[k] values[i + k], zeros outside, in O(T log T)."""
    half = len(kernel) // 2
    size = len(values) + len(kernel) - 1
    product = np.fft.rfft(values, size) * np.fft.rfft(kernel[::-1], size)
    return np.asarray(np.fft.irfft(product, size)[half : half + len(values)], dtype=np.float64)


SMOOTHINGS: dict[str, Callable[[Floats], Floats]] = {
    "gaussian": _gaussian,
    "ema": _ema,
    "median": _median,
    "none": _none,
}
