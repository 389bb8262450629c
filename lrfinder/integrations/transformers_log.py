"""Diagnose the learning rate of a `Trainer` from what it has logged."""

import math
from typing import Any

from transformers import Trainer

from lrfinder.curve import Diagnosis
from lrfinder.curve import diagnose as diagnose_losses
from lrfinder.display import log_of_rows
from lrfinder.errors import ArgumentError

__all__ = ["diagnose"]


def diagnose(trainer: Trainer) -> Diagnosis:
    """Diagnose the training of a `Trainer` from `trainer.state.log_history`, while it runs or afterwards.

    The same from the file of a checkpoint: `lrfinder diagnose checkpoint-500/trainer_state.json`.

    Args:
        trainer: The trainer. It logs the mean loss of every `logging_steps` steps; at least 12 such entries are needed.

    Returns:
        The diagnosis, see `lrfinder.diagnose`.

    Raises:
        ArgumentError: It is no trainer, or has logged no loss.
    """
    state: Any = getattr(trainer, "state", None)
    rows = getattr(state, "log_history", None)
    if rows is None:
        raise ArgumentError(
            f"diagnose(trainer=...) must be a transformers.Trainer, got {type(trainer).__name__}; for a file use "
            "`lrfinder diagnose FILE`."
        )
    if not any("loss" in row for row in rows):
        raise ArgumentError(
            "diagnose(trainer=...) must have logged the training loss; train first, with logging_steps in "
            "TrainingArguments well below the number of steps."
        )
    log = log_of_rows(rows, "trainer.state.log_history")
    done = state.global_step / state.max_steps if state.max_steps else 1.0
    total = math.ceil(len(log.losses) / done) if 0 < done < 1 else None
    return diagnose_losses(log.losses, log.lrs, val_losses=log.val_losses, total_steps=total)
