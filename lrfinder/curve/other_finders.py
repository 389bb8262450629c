"""What other learning-rate finders advise: learning rates and losses of a sweep, both of shape (T,) -> a learning rate.

Each function follows the source of its package: torch-lr-finder 0.2 (`LRFinder.plot`), Ignite 0.5
(`FastaiLRFinder.lr_suggestion`), Lightning 2.6 (`_LRFinder.suggestion`) and fastai 2.8 (`fastai.callback.schedule`).
All of them take a causal moving average of the losses, stop at a multiple of its lowest value and look for a feature of
the average. They return None where too few points are left. So their advice depends on the loss's offset and scale.
"""

import bisect
import math

import numpy as np

from lrfinder.curve.arrays import Floats

__all__ = [
    "fastai_minimum",
    "fastai_slide",
    "fastai_steep",
    "fastai_valley",
    "ignite",
    "lightning",
    "torch_lr_finder",
]


def torch_lr_finder(lrs: Floats, losses: Floats) -> float | None:
    """Return the learning rate of the average's steepest descent, without the first 10 and the last 5 points."""
    averages = _average(losses, 0.95, corrected=False)
    stop = _stop(averages, 5)
    if stop < 17:
        return None
    return float(lrs[10 : stop - 5][np.gradient(averages[10 : stop - 5]).argmin()])


def ignite(lrs: Floats, losses: Floats) -> float | None:
    """Return the learning rate of the average's steepest descent before its minimum."""
    averages = _average(losses, 0.95, corrected=False)
    averages = averages[: _stop(averages, 5)]
    falling = averages[: int(np.nanargmin(averages)) + 1]
    if len(falling) < 3:
        return None
    return float(lrs[int(np.argmin(0.5 * (falling[2:] - falling[:-2]))) + 1])


def lightning(lrs: Floats, losses: Floats) -> float | None:
    """Return the learning rate of the steepest descent with respect to the learning rate, not its logarithm."""
    averages = _average(losses, 0.98, corrected=True)
    stop = _stop(averages, 4)
    lrs, averages = lrs[10 : stop - 1], averages[10 : stop - 1]
    kept = np.isfinite(averages)
    if kept.sum() < 2:
        return None
    return float(lrs[kept][np.gradient(averages[kept], lrs[kept]).argmin()])


def fastai_valley(lrs: Floats, losses: Floats) -> float | None:
    """Return the learning rate half-way through the longest falling subsequence of the average."""
    lrs, averages = _fastai_curve(lrs, losses)
    if len(averages) < 2:
        return None
    end, length = _longest_fall(averages)
    return float(lrs[max(end - length + length // 3 + length // 6, 0)])


def fastai_slide(lrs: Floats, losses: Floats) -> float | None:
    """Return the learning rate where two slopes 15 steps apart are nearly equal, searched from the end."""
    lrs, averages = _fastai_curve(lrs, losses)
    if len(averages) < 17:
        return None
    slopes, right, left = np.gradient(averages), -1, -16
    lr = lrs[left]
    while left >= -len(averages) and abs(slopes[right] - slopes[left]) > 0.005:
        lr, right, left = lrs[left], right - 1, left - 1
    return float(lr)


def fastai_minimum(lrs: Floats, losses: Floats) -> float | None:
    """Return a tenth of the learning rate at which the average is lowest."""
    lrs, averages = _fastai_curve(lrs, losses)
    return float(lrs[averages.argmin()] / 10) if len(averages) else None


def fastai_steep(lrs: Floats, losses: Floats) -> float | None:
    """Return the learning rate of the steepest descent with respect to the logarithm of the learning rate."""
    lrs, averages = _fastai_curve(lrs, losses)
    return float(lrs[(np.diff(averages) / np.diff(np.log(lrs))).argmin()]) if len(averages) > 1 else None


def _average(losses: Floats, beta: float, *, corrected: bool) -> Floats:
    """Return the causal moving average; `corrected` divides out the zero that it starts from."""
    average, averages = 0.0, []
    for i, loss in enumerate(losses.tolist()):
        average = beta * average + (1 - beta) * loss if i or corrected else loss
        averages.append(average / (1 - beta ** (i + 1)) if corrected else average)
    return np.array(averages)


def _stop(averages: Floats, multiple: float) -> int:
    """Return the number of points until one exceeds `multiple` times the lowest, that point included."""
    lowest = math.inf
    for i, average in enumerate(averages.tolist()):
        lowest = min(lowest, average)
        if not math.isfinite(average) or average > multiple * lowest:
            return i + 1
    return len(averages)


def _fastai_curve(lrs: Floats, losses: Floats) -> tuple[Floats, Floats]:
    averages = _average(losses, 0.98, corrected=True)
    stop = _stop(averages, 4)
    return lrs[10 : max(stop - 5, 0)], averages[10 : max(stop - 5, 0)]


def _longest_fall(losses: Floats) -> tuple[int, int]:
    """Return end and length of the longest strictly falling subsequence, by patience sorting in O(T log T)."""
    piles: list[float] = []
    end = 0
    for index, value in enumerate((-losses).tolist()):
        place = bisect.bisect_left(piles, value)
        if place == len(piles):
            piles.append(value)
            end = index
        else:
            piles[place] = value
    return end, len(piles)
