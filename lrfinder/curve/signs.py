"""What the losses of a training show of its learning rate: unrest, progress per summed learning rate, early decay."""

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from lrfinder.curve.arrays import Floats
from lrfinder.curve.history import BINS, History

__all__ = ["Signs", "measure_signs"]

RISE_SHARE = 0.2  # share of the fall that the loss has to rise again to count as unrest
RISE_NOISE = 3.0  # standard deviations of a bin that it has to rise
LATE_FROM = 0.6  # share of the summed learning rate from which on the progress is late
WINDOW = 0.12  # share of the summed learning rate on either side that a level is read from
LEAST_BINS = 6  # that a line is drawn through
LOW_LR = 1 / 3  # share of the peak below which a learning rate has decayed
TINY = 1e-9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Signs:
    """The numbers that decide a diagnosis; none depends on the offset or scale of losses and learning rates.

    With the start level S, the end level E and the loss L at a share of the summed learning rate:

    Args:
        fall: S - E in standard deviations of a bin's noise.
        trend: Slope of a straight line through the losses against the summed learning rate, in standard errors;
            positive where they fall.
        rise: Largest rise of the smoothed loss above its earlier minimum, as a share of its fall.
        rise_noise: The same in standard deviations of a bin.
        top: Highest loss of a bin above S, as a share of the fall.
        regained: Rise of E above the smoothed minimum, as a share of S - E.
        wiggle: Sum of all rises and falls of the smoothed loss, as a multiple of its fall.
        noise: Standard deviation of a bin, as a share of the fall.
        jump: Largest step between neighbouring bins in the last fifth, as a share of S - E.
        unrest: Share of the training in which the smoothed loss was clearly above its earlier minimum.
        quarter: (S - L) / (S - E) at a quarter of the summed learning rate.
        half: The same at half of it.
        half_time: The same at half of the training.
        late: Progress per summed learning rate after 60 % of it, where 1 is the average.
        late_noise: The same in standard errors.
        decayed_after: Share of the training after which the learning rate stays below a third of its peak.
        bins: How many bins the history has.
        lrs_known: Whether the learning rates are known.
        at_once: (S - L) / (S - E) at the second entry, 0 where a bin holds several entries.
        unrest_bins: First bin, and one past the last, of the longest unrest.
        late_bins: The same of the late progress.
    """

    fall: float
    trend: float
    rise: float
    rise_noise: float
    top: float
    regained: float
    wiggle: float
    noise: float
    jump: float
    unrest: float
    quarter: float
    half: float
    half_time: float
    late: float
    late_noise: float
    decayed_after: float
    bins: int
    lrs_known: bool
    at_once: float
    unrest_bins: tuple[int, int]
    late_bins: tuple[int, int]


def measure_signs(history: History) -> Signs:
    """Measure a history.

    Args:
        history: The cleaned and binned history, of at least 12 bins.

    Returns:
        The signs.
    """
    losses, smoothed, summed = history.losses, history.smoothed, history.summed
    noise = _noise(losses)
    end = float(np.median(losses[-max(5, len(losses) // 12) :]))
    depth = max(history.start - min(float(smoothed.min()), end), noise)
    rises = smoothed - np.minimum.accumulate(np.minimum(smoothed, history.start))
    high = (rises > RISE_SHARE * depth) & (rises > RISE_NOISE * noise)
    gain = max(history.start - end, noise)  # less says nothing
    late = _Line(summed, losses, LATE_FROM, 1.0)
    whole = _Line(summed, losses, 0.0, 1.0)
    return Signs(
        fall=(history.start - end) / noise,
        trend=-whole.slope_in_errors,
        rise=float(rises.max()) / depth,
        rise_noise=float(rises.max()) / noise,
        top=max(float(losses.max()) - history.start, 0.0) / depth,
        regained=max(end - float(smoothed.min()), 0.0) / gain,
        wiggle=float(np.abs(np.diff(smoothed)).sum()) / depth,
        noise=noise / depth,
        jump=float(np.abs(np.diff(losses[-max(3, len(losses) // 5) :])).max()) / gain,
        unrest=float(np.mean(high)),
        quarter=(history.start - _level(history, 0.25)) / gain,
        half=(history.start - _level(history, 0.5)) / gain,
        half_time=(history.start - float(smoothed[len(smoothed) // 2])) / gain,
        late=-late.slope / gain,
        late_noise=-late.slope_in_errors,
        decayed_after=_decayed_after(history),
        bins=len(history),
        lrs_known=history.lrs_known,
        at_once=(history.start - float(losses[1])) / gain if history.entries <= BINS else 0.0,
        unrest_bins=_longest_run(high),
        late_bins=(int(late.bins[0]), len(losses)),
    )


def _noise(losses: Floats) -> float:
    """Return the standard deviation of a bin from the differences of neighbours, which lose the trend."""
    steps = np.diff(losses)
    return 1.4826 * float(np.median(np.abs(steps - np.median(steps)))) / math.sqrt(2) + TINY


class _Line:
    """A straight line through the bins whose place is between two shares of the summed learning rate."""

    def __init__(self, places: Floats, losses: Floats, low: float, high: float) -> None:
        bins = np.flatnonzero((places >= low) & (places <= high))
        if len(bins) < LEAST_BINS:
            bins = np.sort(np.argsort(np.abs(places - (low + high) / 2), kind="stable")[:LEAST_BINS])
        x, y = places[bins], losses[bins]
        self.bins = bins
        self.place, self.level = float(x.mean()), float(y.mean())
        squares = float(((x - self.place) ** 2).sum())
        flat = squares <= TINY**2
        self.slope = 0.0 if flat else float(((x - self.place) * (y - self.level)).sum()) / squares
        rest = float(((y - self.at(x)) ** 2).sum()) / max(len(bins) - 2, 1)
        error = math.sqrt(rest / squares) if not flat else 0.0
        self.slope_in_errors = self.slope / (error + TINY)

    def at(self, place: Floats) -> Floats:
        return self.level + self.slope * (place - self.place)


def _level(history: History, share: float) -> float:
    line = _Line(history.summed, history.losses, max(share - WINDOW, 0.0), min(share + WINDOW, 1.0))
    return float(line.at(np.array(share)))


def _decayed_after(history: History) -> float:
    peaks = np.flatnonzero(history.lrs >= LOW_LR * history.lrs.max())
    return float(peaks[-1] + 1) / len(history.lrs)


def _longest_run(mask: npt.NDArray[np.bool_]) -> tuple[int, int]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    if not len(edges):
        return 0, 0
    longest = int(np.argmax(edges[1::2] - edges[::2]))
    return int(edges[2 * longest]), int(edges[2 * longest + 1])
