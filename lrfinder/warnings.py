"""What casts doubt on a range test besides the shape of its curve."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from lrfinder.curve import Curve
from lrfinder.optim import unwrap_optimizer
from lrfinder.search import Search
from lrfinder.training import is_one_shot

__all__ = ["setup_warnings"]


def setup_warnings(search: Search, curve: Curve, optimizer: Any) -> list[str]:
    """Say what of the user's setup was consumed, was not really tried, or failed.

    Args:
        search: The search, when it is over.
        curve: What it measured.
        optimizer: The optimizer whose rate was swept.

    Returns:
        Sentences with the remedy; mostly none.
    """
    found = []
    if search.batches.one_shot:
        found.append(_consumed("loader", f"the {search.batches.consumed} batches"))
    if is_one_shot(search.options.val_loader):
        found.append(_consumed("val_loader", "the batches"))
    found += _capped_rates(curve, unwrap_optimizer(optimizer))
    if search.noted is not None:
        found.append(
            f"Your code raised {type(search.noted).__name__} ({search.noted}) on a loss that was not finite; "
            "the sweep ended there."
        )
    return found


def _consumed(name: str, what: str) -> str:
    return (
        f"The {name} is an iterator: {what} that it gave are consumed. "
        "Pass a DataLoader, a list, or a fresh iterator for the training."
    )


def _capped_rates(curve: Curve, optimizer: Any) -> list[str]:
    if not isinstance(optimizer, torch.optim.Adafactor):
        return []
    steps_before = max((_steps_taken(state) for state in optimizer.state.values()), default=0)
    capped = curve.lrs * np.sqrt(steps_before + 1 + curve.indices) > 1
    if not capped.any():
        return []
    lowest = curve.lrs[capped].min()
    return [f"Adafactor caps its rate at 1/sqrt(step): above {lowest:.1e} none was tried. Pass a lower end_lr."]


def _steps_taken(state: Any) -> int:
    return int(state.get("step", 0)) if isinstance(state, Mapping) else 0
