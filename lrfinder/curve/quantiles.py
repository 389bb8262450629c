"""Quantiles of a single row of numbers: NumPy's are made for any axes, and cost ten times as much on a short row."""

import numpy as np
import numpy.typing as npt

__all__ = ["median", "quantile"]


def quantile(values: npt.ArrayLike, share: float) -> float:
    """Return the number that a share of the values lies below, on the straight line between the nearest two.

    With the sorted values v_0 .. v_{n-1} it lies at the place share * (n - 1), as NumPy's default has it.

    Args:
        values: Finite numbers, not empty, shape (n,).
        share: Between 0 and 1.

    Returns:
        The quantile.

    Example:
        >>> quantile([30.0, 10.0, 20.0], 0.75)
        25.0
    """
    ordered = np.array(values, dtype=np.float64)
    ordered.sort()
    place = share * (len(ordered) - 1)
    below = int(place)
    low, high = float(ordered[below]), float(ordered[min(below + 1, len(ordered) - 1)])
    return low + (place - below) * (high - low)


def median(values: npt.ArrayLike) -> float:
    """Return the middle one of the values, or the mean of the middle two.

    Args:
        values: Finite numbers, not empty, shape (n,).

    Returns:
        The median.

    Example:
        >>> median([4.0, 1.0, 3.0])
        3.0
    """
    return quantile(values, 0.5)
