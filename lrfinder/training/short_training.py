"""One short training that follows a schedule."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.optim import Optimizer

from lrfinder.distributed import Ranks
from lrfinder.optim import make_scheduler, stand_in
from lrfinder.training.batches import Batches
from lrfinder.training.loop import run_steps
from lrfinder.training.loss_queue import LossQueue
from lrfinder.training.step import Step

__all__ = ["train_short"]


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
    ranks: Ranks,
) -> npt.NDArray[np.float64] | None:
    """Train for a few steps under a schedule of that length.

    Args:
        step: Takes one optimizer step.
        batches: Where the training data comes from.
        optimizer: The optimizer to schedule.
        lrs: The peak learning rate of each parameter group.
        schedule: One of `lrfinder.SCHEDULES`.
        total_steps: The number of steps.
        device: Where the losses are.
        after_step: Called with the number of steps done, after each.
        ranks: The ranks that train at the same time.

    Returns:
        The training losses, shape (total_steps,), fewer where the data ended; None where a loss was not finite.
    """
    scheduler = make_scheduler(optimizer, stand_in(schedule), lrs, total_steps=total_steps)
    losses: list[float] = []

    def set_lrs() -> Iterator[Callable[[], object]]:
        yield lambda: None  # making the scheduler has set the first one
        for _ in range(total_steps - 1):
            if losses and not math.isfinite(losses[-1]):
                return
            yield lambda: _advance(scheduler)

    def tell(new: Sequence[float | None]) -> None:
        losses.extend(loss for loss in new if loss is not None)

    queue = LossQueue(total_steps, device)
    run_steps(set_lrs(), step, batches, tell, queue=queue, ranks=ranks, after_step=after_step)
    return np.array(losses) if np.isfinite(losses).all() else None


def _advance(scheduler: torch.optim.lr_scheduler.LRScheduler) -> None:
    with warnings.catch_warnings():
        # A GradScaler may have skipped the optimizer's step before it.
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        scheduler.step()
