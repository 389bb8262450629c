"""The range and the function of every other finder that the suggestions are compared with.

Each finder's advice is taken from a sweep as its package runs it by default. `losses` are raw, one per rate.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from lrfinder.curve import other_finders

__all__ = ["BASELINES", "RANGES"]

Floats = npt.NDArray[np.float64]

RANGES = {"torch-lr-finder": (1e-7, 100.0), "ignite": (1e-7, 10.0), "lightning": (1e-8, 1.0), "fastai": (1e-7, 10.0)}
"""First and last rate of each package's sweep of 100 steps, from its documentation's first example."""

BASELINES: dict[str, tuple[str, Callable[[Floats, Floats], float | None]]] = {
    "torch-lr-finder": ("torch-lr-finder", other_finders.torch_lr_finder),
    "Ignite": ("ignite", other_finders.ignite),
    "Lightning": ("lightning", other_finders.lightning),
    "fastai valley": ("fastai", other_finders.fastai_valley),
    "fastai slide": ("fastai", other_finders.fastai_slide),
    "fastai minimum": ("fastai", other_finders.fastai_minimum),
    "fastai steep": ("fastai", other_finders.fastai_steep),
}
