"""Whether a range begins above the learning rates that work."""

import numpy as np

from lrfinder.curve.curve import Curve
from lrfinder.curve.sweep import MIN_POINTS

__all__ = ["FAR_ABOVE_START", "fallen_at_start"]

AT_ONCE = 3.0  # the loss falls at once if it does below this factor above the first learning rate
AT_ONCE_SHARE = 0.7  # by this share of its whole fall
AT_ONCE_NOISE = 3.0  # and by this many typical differences of neighbours
FAR_ABOVE_START = 5.0  # a suggestion more than this factor above the first learning rate is doubtful then


def fallen_at_start(curve: Curve) -> float | None:
    """Return the learning rate at which most of the fall is over, where that is near the first one.

    A network that breaks in the first steps still learns the mean of its targets, and the sweep shows a valley.

    Args:
        curve: The measured sweep.

    Returns:
        Three times the first learning rate, or so, None where the loss falls later.
    """
    losses = curve.unit_losses
    index = int(np.searchsorted(curve.lrs, AT_ONCE * float(curve.lrs[0])))
    if not MIN_POINTS <= index <= len(curve) - MIN_POINTS:
        return None
    first = float(np.median(losses[:3]))
    fall = first - float(np.median(losses[index - 2 : index + 3]))
    noise = float(np.median(np.abs(np.diff(losses[: 2 * index]))))
    at_once = fall > max(AT_ONCE_SHARE * (first - curve.lowest), AT_ONCE_NOISE * noise)
    return float(curve.lrs[index]) if at_once else None
