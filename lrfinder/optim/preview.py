"""The learning rates that a scheduler will set, found by stepping a copy of it."""

import copy
import math
import warnings
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lrfinder.errors import ArgumentError
from lrfinder.optim.param_groups import group_names

__all__ = ["Preview", "preview_schedule"]

Memo = dict[int, Any]


@dataclass(frozen=True, kw_only=True)
class Preview:
    """The learning rates and momenta of each optimizer step under a schedule.

    Attributes:
        steps: The index of each optimizer step, shape (T,).
        lrs: The learning rate of each parameter group, shape (T, G).
        momenta: Momentum, or Adam's beta1, of each group, shape (T, G); NaN where a group has neither.
        momentum: The name of what `momenta` holds, "momentum" or "beta1".
        names: The name of each group: its "name" where it has one, else "group" and its index.
    """

    steps: NDArray[np.intp]
    lrs: NDArray[np.float64]
    momenta: NDArray[np.float64]
    momentum: str
    names: tuple[str, ...]

    def distinct(self) -> dict[str, NDArray[np.float64]]:
        """Return the learning rates without duplicates: groups with the same ones share an entry.

        Returns:
            Learning rates of shape (T,) by the names of the groups, in the order of the groups.
        """
        same: dict[bytes, list[int]] = {}
        for group, lrs in enumerate(self.lrs.T):
            same.setdefault(lrs.tobytes(), []).append(group)
        return {
            ", ".join(self.names[group] for group in groups[:3]) + ", …" * (len(groups) > 3): self.lrs[:, groups[0]]
            for groups in same.values()
        }

    def scale(self, room: float) -> tuple[str, float, float]:
        """Return the scale and limits of an axis for the learning rates.

        It is linear from zero, or logarithmic where the peaks of two groups differ by a factor of more than 30.

        Args:
            room: The fraction of the height to leave free at the top.

        Returns:
            `"linear"` or `"log"`, the lower and the upper limit.
        """
        peaks = self.lrs.max(axis=0)
        highest, lowest = float(peaks.max()), float(peaks.min())
        if 0 < 30 * lowest < highest:
            bottom = max(float(self.lrs[self.lrs > 0].min()), lowest * 1e-2) / 1.5
            return "log", bottom, highest * (highest / bottom) ** room
        return "linear", 0.0, (1 + room) * highest or 1.0


def preview_schedule(scheduler: LRScheduler, total_steps: int) -> Preview:
    """Return the learning rates that a scheduler will set from its current step to the end of training.

    A copy of the scheduler is stepped. It is bound to a copy of the optimizer that has the hyperparameters and no
    parameters. The originals are only read. `ReduceLROnPlateau` gets a metric that never improves. Lambdas are called
    as training would call them.

    Args:
        scheduler: Any scheduler of `torch.optim.lr_scheduler`, fresh or in the middle of a training.
        total_steps: Optimizer steps of the whole training, those already taken included.

    Returns:
        Learning rates and momenta of the remaining steps.

    Raises:
        ArgumentError: `scheduler` is not a torch scheduler, `total_steps` leaves nothing to preview, or the schedule
            is shorter.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> preview_schedule(torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5), 4).lrs[:, 0].tolist()
        [1.0, 0.5, 0.25, 0.125]
        >>> optimizer.param_groups[0]["lr"]
        1.0
    """
    if not isinstance(scheduler, LRScheduler):
        raise ArgumentError(f"plot_schedule(scheduler=...) takes a torch.optim.lr_scheduler object, got {scheduler!r}")
    first = _position(scheduler)
    if total_steps <= first:
        raise ArgumentError(
            f"plot_schedule(total_steps=...) must exceed the {first} steps that the scheduler has taken, "
            f"got {total_steps=}; it counts the whole training"
        )
    twin = _twin(scheduler)
    steps = np.arange(first, total_steps)
    rows = [_hyperparameters(twin.optimizer)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the copy's optimizer never steps, which torch would report
        for step in steps[1:]:
            _advance(twin, int(step), total_steps)
            rows.append(_hyperparameters(twin.optimizer))
    table = np.array(rows, dtype=float)
    groups = scheduler.optimizer.param_groups
    return Preview(
        steps=steps,
        lrs=table[:, 0],
        momenta=table[:, 1],
        momentum="momentum" if "momentum" in groups[0] else "beta1",
        names=group_names(scheduler.optimizer),
    )


def _position(scheduler: LRScheduler) -> int:
    """Return the number of steps that a scheduler has taken; of a ChainedScheduler, that of its last part."""
    part: Any = scheduler
    while not hasattr(part, "last_epoch"):
        part = part._schedulers[-1]
    return max(int(part.last_epoch), 0)


def _advance(twin: Any, step: int, total_steps: int) -> None:
    """Step the copy once.

    Raises:
        ArgumentError: The schedule is over.
    """
    if isinstance(twin, ReduceLROnPlateau):
        # The first value becomes the best; no later one improves on it, in either mode and with any threshold.
        twin.step(0.0 if math.isinf(twin.best) else twin.mode_worse)
        return
    try:
        twin.step()
    except ValueError as error:  # OneCycleLR refuses to go past its end
        raise ArgumentError(
            f"plot_schedule(total_steps=...) must not exceed the schedule's own length: {type(twin).__name__} "
            f"ends after {step} steps ({error}), got {total_steps=}"
        ) from error


def _hyperparameters(optimizer: Any) -> tuple[list[float], list[float]]:
    """Return the lr and the momentum (or beta1, or NaN) of every group."""
    groups = optimizer.param_groups
    momenta = [group.get("momentum", group.get("betas", (math.nan,))[0]) for group in groups]
    return [float(group["lr"]) for group in groups], [float(momentum) for momentum in momenta]


def _twin(scheduler: LRScheduler) -> Any:
    """Return a copy of the scheduler, bound to a copy of the optimizer without its parameters."""
    memo: Memo = {}
    optimizer = scheduler.optimizer
    stand_in = object.__new__(type(optimizer))
    memo[id(optimizer)] = stand_in
    stand_in.__dict__.update(optimizer.__dict__)
    # One deepcopy for all groups, so that an lr tensor that groups share stays shared.
    stand_in.param_groups = copy.deepcopy(
        [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups], memo
    )
    return _copied(scheduler, memo)


def _copied(value: Any, memo: Memo) -> Any:
    """Return a copy: recursive of schedulers and lists; of others deep, else shallow, else the object itself."""
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, LRScheduler):
        twin = memo[id(value)] = object.__new__(type(value))
        twin.__dict__.update({name: _copied(part, memo) for name, part in vars(value).items()})
        return twin
    if isinstance(value, list):
        return [_copied(part, memo) for part in value]
    if isinstance(value, MethodType) and id(value.__self__) not in memo:
        return value  # copying it would copy its owner, perhaps a whole trainer
    for duplicate in (partial(copy.deepcopy, value, memo), partial(copy.copy, value)):
        try:
            return duplicate()
        except Exception:  # noqa: BLE001, PERF203 -- a user's object may refuse to be copied in any way
            continue
    return value
