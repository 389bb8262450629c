"""What the validation losses of a training show of its learning rate."""

import dataclasses

import numpy as np

from lrfinder.curve.arrays import Floats
from lrfinder.curve.history import ROUNDING, History

__all__ = ["LEAST_VAL", "ValSigns", "measure_val_signs"]

LEAST_VAL = 6  # validation losses that tell anything
SMALL = 0.05  # share of the range; a smaller fall says nothing


@dataclasses.dataclass(frozen=True, kw_only=True)
class ValSigns:
    """The numbers that validation losses add to a diagnosis; none depends on their offset or scale.

    With the first validation loss V, the mean W of the last two, and R the range of all:

    Args:
        val_half: (V - loss) / (V - W) at half of the summed learning rate.
        val_late: Fall from there to the end as a share of R, by a straight line.
        val_rise: Largest rise above an earlier minimum, as a share of R.
        val_regained: The last one's height above the lowest, as a share of R.
        val_falling: Share of the steps between neighbours that are falls.
        val_noise: Median second difference, as a share of R.
        val_together: Correlation with the training loss.
    """

    val_half: float
    val_late: float
    val_rise: float
    val_regained: float
    val_falling: float
    val_noise: float
    val_together: float


def measure_val_signs(val_losses: Floats, history: History) -> ValSigns | None:
    """Measure the validation losses of a training.

    Args:
        val_losses: Validation losses, evenly spread over the training, the last one at its end, shape (V,).
        history: The training losses.

    Returns:
        The signs, None where fewer than six validation losses are finite, or all are equal.
    """
    places = np.flatnonzero(np.isfinite(val_losses))
    known = val_losses[places]
    if len(known) < LEAST_VAL:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        spread = float(known.max() - known.min())
    if not ROUNDING * float(np.abs(known).max()) < spread < np.inf:
        return None
    losses = (known - known.min()) / spread
    bins = (np.arange(len(history)) + 0.5) / len(history)
    done = (places + 1) / len(val_losses)
    summed = np.interp(done, bins, history.summed)
    train = np.interp(done, bins, history.smoothed)
    rises = losses - np.minimum.accumulate(losses)
    fall = losses[0] - float(losses[-2:].mean())
    return ValSigns(
        val_half=(losses[0] - float(np.interp(0.5, summed, losses))) / max(fall, SMALL),
        val_late=_fall_from_half(summed, losses),
        val_rise=float(rises.max()),
        val_regained=float(losses[-1]),
        val_falling=float(np.mean(np.diff(losses) < 0)),
        val_noise=float(np.median(np.abs(np.diff(losses, 2)))),
        val_together=_correlation(losses, train),
    )


def _fall_from_half(summed: Floats, losses: Floats) -> float:
    late = summed >= 0.5
    if np.count_nonzero(late) < 2:
        return 0.0
    x, y = summed[late] - summed[late].mean(), losses[late]
    squares = float((x**2).sum())
    return -0.5 * float((x * y).sum()) / squares if squares > 1e-6 else 0.0


def _correlation(first: Floats, second: Floats) -> float:
    a, b = first - first.mean(), second - second.mean()
    size = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / size if size > 0 else 0.0
