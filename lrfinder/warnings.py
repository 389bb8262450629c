"""Warnings about a training setup, found while or after it was measured."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from lrfinder.curve import Curve
from lrfinder.optim import unwrap_optimizer
from lrfinder.options import FindOptions
from lrfinder.search import SearchOutcome
from lrfinder.training import is_one_shot

__all__ = ["setup_warnings"]


def setup_warnings(outcome: SearchOutcome, options: FindOptions, optimizer: Any) -> list[str]:
    """Return what of the user's setup was consumed, was not used, or failed.

    Args:
        outcome: What was measured.
        options: What `find` was asked for.
        optimizer: The optimizer whose learning rate was swept.

    Returns:
        Sentences with the remedy; mostly none.
    """
    found = []
    if outcome.consumed:
        found.append(_consumed("loader", f"the {outcome.consumed} batches"))
    if is_one_shot(options.val_loader):
        found.append(_consumed("val_loader", "the batches"))
    found += _capped_lrs(outcome.curve, unwrap_optimizer(optimizer))
    if outcome.error is not None:
        found.append(
            f"Your code raised {type(outcome.error).__name__} ({outcome.error}) on a loss that was not finite; "
            "the sweep ended there."
        )
    return found


def _consumed(name: str, what: str) -> str:
    return (
        f"The {name} is an iterator: {what} that it gave are consumed. "
        "Pass a DataLoader, a list, or a fresh iterator for the training."
    )


def _capped_lrs(curve: Curve, optimizer: Any) -> list[str]:
    if not isinstance(optimizer, torch.optim.Adafactor):
        return []
    steps_before = max((_steps_taken(state) for state in optimizer.state.values()), default=0)
    capped = curve.lrs * np.sqrt(steps_before + 1 + curve.indices) > 1
    if not capped.any():
        return []
    lowest = curve.lrs[capped].min()
    return [f"Adafactor caps its learning rate at 1/sqrt(step): above {lowest:.1e} none was used. Pass a lower end_lr."]


def _steps_taken(state: Any) -> int:
    return int(state.get("step", 0)) if isinstance(state, Mapping) else 0
