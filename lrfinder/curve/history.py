"""A training's history as few numbers on one scale: binned losses against the summed learning rate."""

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from lrfinder.curve.arrays import Floats
from lrfinder.errors import ArgumentError

__all__ = ["History", "read_history"]

BINS = 100  # a longer history is averaged over this many stretches
MIN_ENTRIES = 12  # fewer losses say nothing
REACH = 0.02  # share of the bins on either side that the smoothing looks at
FIRST_SHARE = 0.03  # share of the bins, their median is the level of the first ones
FIRST_ENTRIES = 5  # their mean is the level before the training
CLEAR = 4.0  # standard deviations between the first entries and the first bins
TINY = 1e-300
DECIMALS = 9  # rounds off what adding an offset to the losses leaves behind
ROUNDING = 1e-12  # losses that differ by less, as a share of their size, are equal
MOST_SPREADS = 1e6  # losses count as no further from their median
LARGEST = 1e100  # losses count as no larger: sums of them stay finite


@dataclasses.dataclass(frozen=True, kw_only=True)
class History:
    """A cleaned and binned history.

    The losses are shifted and scaled: their median is 0, and the distance between their quartiles is about 1.

    Args:
        losses: Mean loss of each bin, without those that hold no finite loss, shape (B,).
        smoothed: The same without the noise, shape (B,).
        start: The level of the first entries.
        lrs: Mean learning rate of each bin, as a share of the largest, shape (B,).
        summed: Share of the summed learning rate that is spent at the middle of each bin, between 0 and 1, shape (B,).
        edges: First entry of each bin, and one past its last, shape (B, 2).
        entries: How many entries the history has.
        finite: How many of them are finite.
        lrs_known: Whether the learning rates were given.
        lost: The entry from which on no loss is finite, None where the last ones are.
    """

    losses: Floats
    smoothed: Floats
    start: float
    lrs: Floats
    summed: Floats
    edges: npt.NDArray[np.intp]
    entries: int
    finite: int
    lrs_known: bool
    lost: int | None

    def __len__(self) -> int:
        """Return the number of bins."""
        return len(self.losses)


def read_history(losses: npt.ArrayLike, lrs: npt.ArrayLike | None) -> History:
    """Check, clean and bin the losses and learning rates of a training.

    Args:
        losses: One loss per step, per k steps or per epoch, NaN where there is none, shape (N,).
        lrs: The learning rate of each entry, shape (N,); without it, the learning rate counts as constant.

    Returns:
        The history.

    Raises:
        ArgumentError: If either is not a row of numbers, the lengths differ, or a learning rate is negative.

    Example:
        >>> history = read_history(np.linspace(3.0, 1.0, 1000), None)
        >>> len(history), history.entries, history.lost
        (100, 1000, None)
    """  # noqa: DOC502 - raised by the functions that read the arguments
    losses = row_of_numbers("losses", losses)
    rates = np.ones(len(losses)) if lrs is None else _learning_rates(lrs, len(losses))
    lost = _lost_from(losses)
    kept = len(losses) if lost is None else lost
    finite = np.isfinite(losses[:kept])
    unit = _on_own_scale(np.clip(losses[:kept], -LARGEST, LARGEST), finite)
    ends = np.linspace(0, kept, min(BINS, kept) + 1).round().astype(np.intp)
    counts = np.add.reduceat(finite, ends[:-1], dtype=float)
    sums = np.add.reduceat(np.where(finite, unit, 0.0), ends[:-1])
    bins = np.flatnonzero(counts)
    means, widths = sums[bins] / counts[bins], np.diff(ends)
    spent = np.cumsum(rates[:kept]) - rates[:kept] / 2
    return History(
        losses=means,
        smoothed=_steady(means),
        start=_start(unit[finite], means),
        lrs=(np.add.reduceat(rates[:kept], ends[:-1]) / widths)[bins] / max(np.max(rates[:kept], initial=0.0), TINY),
        summed=(np.add.reduceat(spent, ends[:-1]) / widths)[bins] / max(np.sum(rates[:kept]), TINY),
        edges=np.stack([ends[:-1], ends[1:]], axis=1)[bins],
        entries=len(losses),
        finite=int(np.count_nonzero(finite)),
        lrs_known=lrs is not None,
        lost=lost,
    )


def row_of_numbers(name: str, values: npt.ArrayLike) -> Floats:
    """Return the values as an array of floats, NaN where they are None.

    Args:
        name: The argument, for messages.
        values: A sequence of numbers.

    Returns:
        The array, shape (N,).

    Raises:
        ArgumentError: If they are something else, or none at all.
    """
    try:
        array = np.array(_plain(values), dtype=np.float64)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last is torch's
        raise ArgumentError(
            f"diagnose({name}=...) must be a row of numbers, NaN where one is missing, got {_short(values)}."
        ) from None
    if array.ndim != 1 or not len(array):
        raise ArgumentError(
            f"diagnose({name}=...) must be a row of numbers, one per entry of the history, got shape {array.shape}."
        )
    return array


def _plain(values: Any) -> Any:
    # Tensors and lists of them, with gradients or without, which NumPy does not take.
    if hasattr(values, "tolist") and not (isinstance(values, np.ndarray) and values.dtype.kind in "biuf"):
        values = values.tolist()
    if isinstance(values, (list, tuple)):
        values = [value.item() if hasattr(value, "item") else value for value in values]
        if any(isinstance(value, (str, bytes)) for value in values):
            raise TypeError("NumPy would read numbers from text")
    return values


def _short(values: object) -> str:
    text = repr(values)
    return text if len(text) < 80 else f"{text[:60]} ..."


def _learning_rates(lrs: npt.ArrayLike, length: int) -> Floats:
    rates = row_of_numbers("lrs", lrs)
    if len(rates) != length:
        raise ArgumentError(
            f"diagnose(lrs=...) must hold the learning rate of each of the {length} losses, got {len(rates)}; "
            "repeat or average them to the same length."
        )
    known = np.flatnonzero(np.isfinite(rates))
    if not len(known) or (rates[known] < 0).any() or not (rates[known] > 0).any():
        raise ArgumentError(
            f"diagnose(lrs=...) must be learning rates, none negative and some above 0, got {_short(lrs)}."
        )
    filled: Floats = np.interp(np.arange(length), known, rates[known] / rates[known].max())
    return filled


def _lost_from(losses: Floats) -> int | None:
    # NaN at the end means a broken training, unless gaps of that length occur throughout.
    known = np.flatnonzero(np.isfinite(losses))
    last = int(known[-1]) + 1 if len(known) else 0
    gap = len(losses) - last
    if not gap:
        return None
    longest = int(np.max(np.diff(known), initial=1)) - 1
    return last if gap > longest or np.isinf(losses[last:]).any() else None


def _on_own_scale(losses: Floats, finite: npt.NDArray[np.bool_]) -> Floats:
    known = losses[finite]
    if not len(known):
        return losses
    middle, (low, high) = np.median(known), np.quantile(known, [0.25, 0.75])
    spread, centred = high - low, known - middle
    if spread <= ROUNDING * np.median(np.abs(known)):  # all alike but for a few
        spread = float(np.max(np.abs(centred)))
    unit = np.full(len(losses), np.nan)
    if spread <= ROUNDING * np.max(np.abs(known)):
        unit[finite] = 0.0
        return unit
    with np.errstate(over="ignore"):  # so large is clipped
        unit[finite] = np.round(np.clip(centred / spread, -MOST_SPREADS, MOST_SPREADS), DECIMALS)
    return unit


def _steady(means: Floats) -> Floats:
    # A median of neighbours passes over single spikes and keeps the edge of a sudden rise.
    from scipy.ndimage import gaussian_filter1d, median_filter

    if len(means) < MIN_ENTRIES:
        return means
    reach = max(1, round(REACH * len(means)))
    typical = median_filter(means, size=2 * reach + 1, mode="nearest")
    return np.asarray(gaussian_filter1d(typical, 0.5 * reach, mode="nearest"))


def _start(known: Floats, means: Floats) -> float:
    # Of a long history the first bin already holds much of the fall, or of a blow-up.
    if len(known) < MIN_ENTRIES:
        return math.nan
    level = float(np.median(means[: max(1, round(FIRST_SHARE * len(means)))]))
    first = float(np.mean(known[:FIRST_ENTRIES]))
    noise = float(np.median(np.abs(np.diff(known))))  # about one standard deviation of an entry
    if max(level, first) - known[0] > CLEAR * noise:
        return float(known[0])
    long = len(known) > FIRST_ENTRIES * len(means)
    return first if long and first - level > CLEAR * noise / math.sqrt(FIRST_ENTRIES) else level
