"""Losses of data that has only a few batches, without the differences between the batches."""

from dataclasses import replace

import numpy as np

from lrfinder.curve.curve import Context, Curve
from lrfinder.curve.smoothing import smooth

__all__ = ["over_epochs"]

MOST_POINTS = 5  # of an epoch: with 20 a decade, a mean over more hides the valley
FEWEST_EPOCHS = 5  # in a curve that is still read after that


def over_epochs(curve: Curve, context: Context) -> Curve:
    """Return the curve with the mean loss of its epoch at each point, where an epoch has only a few points.

    Every sample counts once in such a mean. Single losses of a few batches differ more than the learning rate changes
    them: two batches with losses of 0.1 and 2.8 hide an explosion to 3.

    Args:
        curve: The measured sweep.
        context: What is known of the training, `epoch_points` among it.

    Returns:
        The curve with other losses, or the curve itself.

    Example:
        >>> lrs, losses = np.geomspace(1e-3, 1.0, 10), np.tile([0.0, 2.0], 5)
        >>> curve = Curve(lrs=lrs, losses=losses, smoothed=losses, indices=np.arange(10), stop_reason=None)
        >>> over_epochs(curve, Context(epoch_points=2)).losses.tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    points = context.epoch_points
    if points is None or context.val or not 2 <= points <= MOST_POINTS or len(curve) < FEWEST_EPOCHS * points:
        return curve
    _, epochs, counts = np.unique(curve.indices // points, return_inverse=True, return_counts=True)
    means = np.bincount(epochs, curve.losses) / counts
    if counts[-1] < points:
        means[-1] = np.mean(curve.losses[-points:])  # an epoch that was cut short, with the end of the one before
    losses = means[epochs]
    return replace(curve, losses=losses, smoothed=smooth(losses))
