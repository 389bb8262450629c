"""Smoothing without lag: losses (T,) -> losses (T,).

A causal average shifts every feature of a sweep towards larger rates, and a suggestion with it. All methods here look
both ways, equally far: near the ends the window shrinks on both sides, so that a straight line stays straight and
nothing is extrapolated.
"""

import math
from collections.abc import Callable

import numpy as np

from lrfinder.curve.arrays import Floats
from lrfinder.curve.quantiles import median, quantile
from lrfinder.errors import ArgumentError

__all__ = ["SMOOTHINGS", "smooth"]

WIDTH = 0.02
"""Width of the kernel as a share of the number of points: two points of a hundred."""

CAP = 3.0
"""A blow-up counts as no more than so many times the spread of the lower three quarters above them."""


DIRECT = 1000
"""A row of so many points is faster to convolve as it stands."""


def smooth(losses: Floats, method: str = "gaussian") -> Floats:
    """Smooth the losses of a sweep without shifting its features.

    Adding a constant, scaling, and reversing the input do the same to the output; straight lines stay as they are.
    Since averages leak, the linear methods first cap a blow-up, at `CAP` times the spread of the rest above it: else
    the last few points of a sweep would bury everything before them.

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
    offset = median(unit)
    return np.asarray((SMOOTHINGS[method](unit - offset) + offset) * scale, dtype=np.float64)


def _width(num_points: int) -> float:
    return max(1.0, WIDTH * num_points)


def _gaussian(losses: Floats) -> Floats:
    sigma = _width(len(losses))
    reach = np.arange(math.ceil(4 * sigma) + 1)
    return _average(_capped(losses), np.exp(-0.5 * (reach / sigma) ** 2))


def _ema(losses: Floats) -> Floats:
    # On both sides exp(-|k| / tau) has the standard deviation sqrt(2) tau.
    tau = _width(len(losses)) / math.sqrt(2)
    reach = np.arange(math.ceil(8 * tau) + 1)
    return _average(_capped(losses), np.exp(-reach / tau))


def _median(losses: Floats) -> Floats:
    from scipy.ndimage import median_filter

    half = min(math.ceil(1.5 * _width(len(losses))), (len(losses) - 1) // 2)
    smoothed = np.asarray(median_filter(losses, size=2 * half + 1), dtype=np.float64)
    for i in range(half):
        smoothed[i] = median(losses[: 2 * i + 1])
        smoothed[-1 - i] = median(losses[len(losses) - 2 * i - 1 :])
    return smoothed


def _none(losses: Floats) -> Floats:
    return losses


def _capped(losses: Floats) -> Floats:
    low, high = losses.min(), quantile(losses, 0.75)
    capped: Floats = np.minimum(losses, high + CAP * (high - low))
    return capped


def _average(losses: Floats, weights: Floats) -> Floats:
    # Weights from the centre out, shape (reach + 1,); the windows are symmetric and shrink towards the ends.
    reach = min(len(weights), (len(losses) + 1) // 2) - 1
    kernel = np.concatenate([weights[reach:0:-1], weights[: reach + 1]])
    smoothed = np.empty_like(losses)
    smoothed[reach : len(losses) - reach] = _convolved(losses, kernel) / kernel.sum()
    for i in range(reach):
        part = kernel[reach - i : reach + i + 1]
        smoothed[i] = losses[: 2 * i + 1] @ part
        smoothed[-1 - i] = losses[len(losses) - 2 * i - 1 :] @ part
    totals = 2 * np.cumsum(weights[:reach]) - weights[0]
    smoothed[:reach] /= totals
    smoothed[len(losses) - reach :] /= totals[::-1]
    return smoothed


def _convolved(losses: Floats, kernel: Floats) -> Floats:
    # Where all of the kernel lies on the losses. It grows with them, so a long row goes by FFT.
    if len(losses) <= DIRECT:
        return np.convolve(losses, kernel, "valid")
    size = 1 << (len(losses) + len(kernel)).bit_length()
    product = np.fft.rfft(losses, size) * np.fft.rfft(kernel, size)
    return np.fft.irfft(product, size)[len(kernel) - 1 : len(losses)]


SMOOTHINGS: dict[str, Callable[[Floats], Floats]] = {
    "gaussian": _gaussian,
    "ema": _ema,
    "median": _median,
    "none": _none,
}
