"""What a find has to know of a training: how a step is taken, and what a step changes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lrfinder.distributed import Ranks
from lrfinder.snapshot import Snapshot
from lrfinder.training.loss import BatchLoss
from lrfinder.training.step import Step

__all__ = ["TrainingSetup"]


@dataclass(frozen=True, kw_only=True)
class TrainingSetup:
    """A training as a find sees it. `LRFinder` makes one from its arguments, an integration from its framework.

    Args:
        model: The model that is trained, as the training wraps it.
        optimizer: The optimizer whose learning rate is swept.
        make_step: `make_step(ranks)` returns what takes an optimizer step, see `Step`. It is called once in each find,
            when everything is captured.
        batch_loss: Computes the loss of a validation batch; None where only the step knows how.
        device: Where the losses are; None where `batch_loss` says it.
        accumulation_steps: Micro-batches per optimizer step.
        collective_steps: Whether ranks communicate in more of a step than its backward pass.
        grad_scaler: The gradient scaler that the step uses.
        extra_state: More that the step changes, as for `LRFinder`.
        captured: Further objects whose attributes are captured and restored: functions that the step calls, and the
            framework's own objects.
        skipped: What these lead to and must not be entered, such as data sets.
        snapshot_device: As for `LRFinder`.
        snapshot_frozen: As for `LRFinder`.
        outer_snapshot: A snapshot that the caller has taken and restores afterwards; its copies are used again.
        description: What the finder's `repr` says behind model and optimizer.
    """

    model: nn.Module
    optimizer: Any
    make_step: Callable[[Ranks], Step]
    batch_loss: BatchLoss | None = None
    device: torch.device | None = None
    accumulation_steps: int = 1
    collective_steps: bool = False
    grad_scaler: Any = None
    extra_state: tuple[Any, ...] = ()
    captured: tuple[Any, ...] = ()
    skipped: tuple[Any, ...] = ()
    snapshot_device: torch.device | str | None = None
    snapshot_frozen: bool = True
    outer_snapshot: Snapshot | None = None
    description: str = ""

    def find_device(self) -> torch.device:
        """Return the device that the losses are on: by default the one of the model's first parameter."""
        if self.device is not None:
            return self.device
        return self.batch_loss.device if self.batch_loss is not None else next(self.model.parameters()).device
