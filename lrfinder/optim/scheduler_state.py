"""What torch's schedulers leave in the parameter groups of an optimizer."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from lrfinder.optim.param_groups import separate_lrs, set_lrs

__all__ = ["clear_scheduler_state", "groups_kept_on_error", "one_cycle_peaks"]

ONE_CYCLE_KEYS = frozenset({"initial_lr", "max_lr", "min_lr"})  # OneCycleLR leaves all of them in each group
MOMENTUM_KEYS = frozenset({"base_momentum", "max_momentum"})  # so do OneCycleLR and CyclicLR where they cycle it


def one_cycle_peaks(optimizer: Any) -> list[float | None]:
    """Return the peak lr of each group that a `OneCycleLR` has left there.

    Args:
        optimizer: The optimizer, or a wrapper around one.

    Returns:
        One peak per group; None for a group without, also where `max_lr` belongs to the optimizer.
    """
    return [
        float(group["max_lr"]) if _has(ONE_CYCLE_KEYS, group, optimizer) else None for group in optimizer.param_groups
    ]


def _has(keys: frozenset[str], group: dict[str, Any], optimizer: Any) -> bool:
    """Return whether a scheduler has left these keys in a group: none of them may belong to the optimizer."""
    return keys <= group.keys() - getattr(optimizer, "defaults", {}).keys()


def clear_scheduler_state(optimizer: Optimizer, lrs: Sequence[float]) -> None:
    """Remove what an earlier torch scheduler left in the groups, and set `lr` and `initial_lr` of each.

    A torch scheduler sets `initial_lr` only where there is none, so that a second scheduler would start from the lr of
    the first. A momentum (or Adam's first beta) that was cycled is set to the optimizer's default. Keys that belong to
    the optimizer, such as optimi's `max_lr`, are kept. Tensor lrs that groups share are separated.

    Args:
        optimizer: The optimizer.
        lrs: One lr per group.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=0.1, momentum=0.9)
        >>> scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=10)
        >>> clear_scheduler_state(optimizer, [0.5])
        >>> [optimizer.param_groups[0][key] for key in ("lr", "initial_lr", "momentum")]
        [0.5, 0.5, 0.9]
    """
    separate_lrs(optimizer)
    set_lrs(optimizer, lrs)
    for group, lr in zip(optimizer.param_groups, lrs, strict=True):
        left = [keys for keys in (ONE_CYCLE_KEYS, MOMENTUM_KEYS) if _has(keys, group, optimizer)]
        if MOMENTUM_KEYS in left and "betas" in optimizer.defaults:
            group["betas"] = (optimizer.defaults["betas"][0], *group["betas"][1:])
        elif MOMENTUM_KEYS in left and "momentum" in optimizer.defaults:
            group["momentum"] = optimizer.defaults["momentum"]
        for key in frozenset().union(*left):
            del group[key]
        group["initial_lr"] = lr


@contextmanager
def groups_kept_on_error(optimizer: Optimizer) -> Iterator[None]:
    """Put the parameter groups back as they were, tensor lrs and their values included, if the block raises.

    Args:
        optimizer: The optimizer whose groups the block changes.
    """
    before = [dict(group) for group in optimizer.param_groups]
    lrs = [lr.item() if isinstance(lr, Tensor) else lr for lr in (group["lr"] for group in before)]
    try:
        yield
    except BaseException:
        for group, entries in zip(optimizer.param_groups, before, strict=True):
            group.clear()
            group.update(entries)
        set_lrs(optimizer, lrs)
        raise
