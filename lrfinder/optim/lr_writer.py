"""Writing the learning rates of a sweep, step after step."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lrfinder.errors import ArgumentError
from lrfinder.optim.param_groups import base_lrs, group_lrs, group_ratios, largest_group, set_group_lrs
from lrfinder.optim.scheduler_state import one_cycle_peaks
from lrfinder.optim.wrappers import unwrap_optimizer

__all__ = ["LRWriter"]


class LRWriter:
    """Writes an lr to the groups of an optimizer, step after step: to all at their ratios, or to one of them.

    The ratios are read once, at the start; writing reads nothing from a device.

    Args:
        optimizer: The optimizer, or a wrapper around one with the same `param_groups` and `state`.
        group: The index of the only group to write to; the others get their own lr. By default all groups.

    Raises:
        ArgumentError: A group has no usable lr, or what is written to it is lost.

    Attributes:
        ratios: Each group's ratio to the largest group; with a single group 1 for it and 0 for the others.
        fixed_lrs: The lr of the groups that keep their own, 0 for the others.
        initial_lrs: The lr of each group at the start, before a scheduler.
        peak_lrs: The same, or the peak where `OneCycleLR` is attached.

    Example:
        >>> head, body = torch.nn.Linear(2, 2), torch.nn.Linear(9, 9)
        >>> groups = [{"params": head.parameters()}, {"params": body.parameters(), "lr": 0.01}]
        >>> optimizer = torch.optim.SGD(groups, lr=0.1)
        >>> LRWriter(optimizer).write(0.5)
        >>> [group["lr"] for group in optimizer.param_groups]
        [5.0, 0.5]
    """

    def __init__(self, optimizer: Optimizer, group: int | None = None) -> None:
        self._optimizer = optimizer
        self.ratios = group_ratios(optimizer)
        _check_that_writes_last(optimizer)
        self.initial_lrs = group_lrs(self.ratios, base_lrs(optimizer)[largest_group(optimizer)])
        peaks = one_cycle_peaks(optimizer)
        self.peak_lrs = [max(lr, peak or 0.0) for lr, peak in zip(self.initial_lrs, peaks, strict=True)]
        self.fixed_lrs = [0.0] * len(self.ratios)
        if group is not None:
            self.ratios = [float(index == group) for index in range(len(self.ratios))]
            self.fixed_lrs = [0.0 if index == group else lr for index, lr in enumerate(self.initial_lrs)]
        tensors = any(isinstance(group["lr"], Tensor) for group in optimizer.param_groups)
        self._plain = not tensors and not isinstance(unwrap_optimizer(optimizer), torch.optim.ASGD)

    def write(self, lr: float) -> None:
        """Write the lrs of the optimizer's next step.

        Args:
            lr: The largest group's lr; the others follow at their ratios.
        """
        if not self._plain:
            set_group_lrs(self._optimizer, self.group_lrs(lr))
            return
        for group, each in zip(self._optimizer.param_groups, self.group_lrs(lr), strict=True):
            group["lr"] = each

    def group_lrs(self, lr: float) -> list[float]:
        """Return the lr of each group.

        Args:
            lr: As for `write`.

        Returns:
            One lr per group.
        """
        return [lr * ratio + fixed for ratio, fixed in zip(self.ratios, self.fixed_lrs, strict=True)]


def _check_that_writes_last(optimizer: Any) -> None:
    """Check that an lr written to a group is read there again: some wrappers make new groups at each access.

    Raises:
        ArgumentError: It is not.
    """
    for index, group in enumerate(optimizer.param_groups):
        lr = group["lr"]
        if isinstance(lr, Tensor):
            lasts = optimizer.param_groups[index]["lr"] is lr
        else:
            group["lr"] = 0.5 * lr + 1.0
            lasts = optimizer.param_groups[index]["lr"] == group["lr"]
            group["lr"] = lr
        if not lasts:
            raise ArgumentError(
                "LRFinder(optimizer=...) must keep what is written to its param_groups, got "
                f"{type(optimizer).__name__}, which makes new groups at each access, so that no lr reaches its step; "
                "pass the torch optimizer inside it. For fastai's learn.opt, use "
                "lrfinder.integrations.fastai.find_lr(learn)."
            )
