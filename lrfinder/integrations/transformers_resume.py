"""A warning for a training that resumes from a checkpoint: the checkpoint brings its own learning rate."""

import warnings
from math import isclose
from typing import Any

from torch.optim import Optimizer
from transformers import Trainer, TrainerCallback

from lrfinder.errors import LRFinderWarning
from lrfinder.optim import base_lrs, largest_group

__all__ = ["warn_if_replaced"]


class _WarnIfReplaced(TrainerCallback):  # type: ignore[misc]  # its type is Any where transformers is not installed
    """Warns when a training begins with another learning rate than the one that was set."""

    def __init__(self, lr: float) -> None:
        self.lr = lr

    def on_train_begin(self, args: Any, state: Any, control: Any, optimizer: Optimizer, **others: Any) -> None:  # noqa: ARG002 - the callback's interface
        """Compare the peak learning rates; by now a checkpoint has been loaded."""
        lr = base_lrs(optimizer)[largest_group(optimizer)]
        if state.global_step and not isclose(lr, self.lr, rel_tol=1e-6):
            warnings.warn(
                f"The checkpoint that the training resumes from has replaced the learning rate {self.lr:.2e} of "
                f"set_lr(trainer, ...) by its own, {lr:.2e}. To train at another one, load the checkpoint's weights "
                "into the model and call train() without resume_from_checkpoint.",
                LRFinderWarning,
                stacklevel=2,
            )


def warn_if_replaced(trainer: Trainer, lr: float) -> None:
    """Let the trainer's next trainings warn if a checkpoint replaces the learning rate.

    Args:
        trainer: The trainer.
        lr: The learning rate that was set, of the largest parameter group.
    """
    trainer.remove_callback(_WarnIfReplaced)
    trainer.add_callback(_WarnIfReplaced(lr))
