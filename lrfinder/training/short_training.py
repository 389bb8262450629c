"""One short training that follows a schedule, through the same loop as a sweep."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.optim import Optimizer

from lrfinder.curve import StopReason, Sweep
from lrfinder.distributed import Ranks
from lrfinder.optim import make_scheduler, stand_in
from lrfinder.training.batches import Batches
from lrfinder.training.loop import run_sweep
from lrfinder.training.loss_queue import LossQueue
from lrfinder.training.step import Step

__all__ = ["train_short"]


class _Follower:
    """Lets a scheduler write the rates; the sweep only counts the steps."""

    def __init__(self, optimizer: Optimizer, lrs: Sequence[float], schedule: str, total_steps: int) -> None:
        self._scheduler = make_scheduler(optimizer, stand_in(schedule), lrs, total_steps=total_steps)
        self._begun = False

    def write(self, lr: float) -> None:
        del lr  # the number of the step
        if self._begun:
            with warnings.catch_warnings():
                # A GradScaler may have skipped the optimizer's step before it.
                warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
                self._scheduler.step()
        self._begun = True


def train_short(
    step: Step,
    batches: Batches,
    optimizer: Optimizer,
    lrs: Sequence[float],
    schedule: str,
    total_steps: int,
    device: torch.device,
    *,
    after_step: Callable[[int], None],
    ranks: Ranks | None,
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None:
    """Train with a schedule squeezed into a few steps.

    Args:
        step: Takes one optimizer step.
        batches: Where the training data comes from.
        optimizer: What is scheduled.
        lrs: The top rate of each parameter group.
        schedule: One of `lrfinder.SCHEDULES`.
        total_steps: How many steps.
        device: Where the losses are.
        after_step: Called with the number of steps done, after each.
        ranks: Those that train at the same time, or None.

    Returns:
        The training losses, shape (total_steps,), fewer where the data ended; None where a loss was not finite.
    """
    counter = Sweep(np.arange(1.0, total_steps + 1), stop_rule=None)
    follower = _Follower(optimizer, lrs, schedule, total_steps)
    run_sweep(counter, step, batches, follower, LossQueue(total_steps, device), after_step=after_step, ranks=ranks)
    return None if counter.stop_reason is StopReason.NONFINITE else counter.losses
