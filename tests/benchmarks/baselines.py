"""What other finders suggest, from a sweep as each of them runs it by default.

Written anew after torch-lr-finder 0.2, Ignite 0.5, Lightning 2.6 and fastai 2.8. All average the loss causally, stop at
a multiple of the lowest average and look for a feature of the averaged curve. `losses` are raw, one per rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

__all__ = ["BASELINES", "RANGES"]

Floats = npt.NDArray[np.float64]

RANGES = {"torch-lr-finder": (1e-7, 100.0), "ignite": (1e-7, 10.0), "lightning": (1e-8, 1.0), "fastai": (1e-7, 10.0)}
"""First and last rate of each package's sweep of 100 steps, from its documentation's first example."""


def _averaged(losses: Floats, beta: float, *, corrected: bool) -> Floats:
    average, averages = 0.0, []
    for i, loss in enumerate(losses):
        if corrected:
            average = beta * average + (1 - beta) * loss
            averages.append(average / (1 - beta ** (i + 1)))
        else:
            average = loss if i == 0 else beta * average + (1 - beta) * loss
            averages.append(average)
    return np.array(averages)


def _until(losses: Floats, multiple: float) -> int:
    """How many points there are when the loss first exceeds so many times its lowest value, that point included."""
    lowest = math.inf
    for i, loss in enumerate(losses):
        lowest = min(lowest, loss)
        if not math.isfinite(loss) or loss > multiple * lowest:
            return i + 1
    return len(losses)


def torch_lr_finder(lrs: Floats, losses: Floats) -> float | None:
    """The steepest descent of the average (weight 0.05 on each new loss), the ends skipped."""
    averages = _averaged(losses, 0.95, corrected=False)
    stop = _until(averages, 5)
    if stop < 17:
        return None
    return float(lrs[10 : stop - 5][np.gradient(averages[10 : stop - 5]).argmin()])


def ignite(lrs: Floats, losses: Floats) -> float | None:
    """The steepest descent of the average before its minimum."""
    averages = _averaged(losses, 0.95, corrected=False)
    averages = averages[: _until(averages, 5)]
    falling = averages[: int(np.nanargmin(averages)) + 1]
    if len(falling) < 3:
        return None
    return float(lrs[int(np.argmin(0.5 * (falling[2:] - falling[:-2]))) + 1])


def lightning(lrs: Floats, losses: Floats) -> float | None:
    """The steepest descent in the rate itself, not its logarithm."""
    averages = _averaged(losses, 0.98, corrected=True)
    stop = _until(averages, 4)
    lrs, averages = lrs[10 : stop - 1], averages[10 : stop - 1]
    kept = np.isfinite(averages)
    if kept.sum() < 2:
        return None
    return float(lrs[kept][np.gradient(averages[kept], lrs[kept]).argmin()])


def _fastai_curve(lrs: Floats, losses: Floats) -> tuple[Floats, Floats]:
    averages = _averaged(losses, 0.98, corrected=True)
    stop = _until(averages, 4)
    return lrs[10 : stop - 5], averages[10 : stop - 5]


def fastai_valley(lrs: Floats, losses: Floats) -> float | None:
    """The middle of the longest falling subsequence."""
    lrs, losses = _fastai_curve(lrs, losses)
    if len(losses) < 2:
        return None
    lengths, start, end = [1] * len(losses), 0, 0
    for i in range(1, len(losses)):
        for j in range(i):
            if losses[i] < losses[j] and lengths[i] < lengths[j] + 1:
                lengths[i] = lengths[j] + 1
            if lengths[end] < lengths[i]:
                end, start = i, i - lengths[i]
    section = (end - start) / 3
    return float(lrs[start + int(section) + int(section / 2)])


def fastai_slide(lrs: Floats, losses: Floats) -> float | None:
    """Where two slopes 15 steps apart differ by little, coming from the right."""
    lrs, losses = _fastai_curve(lrs, losses)
    if len(losses) < 17:
        return None
    slopes, right, left = np.gradient(losses), -1, -16
    lr = lrs[left]
    while left >= -len(losses) and abs(slopes[right] - slopes[left]) > 0.005:
        lr, right, left = lrs[left], right - 1, left - 1
    return float(lr)


def fastai_minimum(lrs: Floats, losses: Floats) -> float | None:
    """A tenth of the rate of the lowest loss."""
    lrs, losses = _fastai_curve(lrs, losses)
    return float(lrs[losses.argmin()] / 10) if len(losses) else None


def fastai_steep(lrs: Floats, losses: Floats) -> float | None:
    """The steepest descent in the rate's logarithm."""
    lrs, losses = _fastai_curve(lrs, losses)
    return float(lrs[(np.diff(losses) / np.diff(np.log(lrs))).argmin()]) if len(losses) > 1 else None


BASELINES: dict[str, tuple[str, Callable[[Floats, Floats], float | None]]] = {
    "torch-lr-finder": ("torch-lr-finder", torch_lr_finder),
    "Ignite": ("ignite", ignite),
    "Lightning": ("lightning", lightning),
    "fastai valley": ("fastai", fastai_valley),
    "fastai slide": ("fastai", fastai_slide),
    "fastai minimum": ("fastai", fastai_minimum),
    "fastai steep": ("fastai", fastai_steep),
}
