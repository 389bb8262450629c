"""Batches in, one detached loss per optimizer step out."""

from lrfinder.training.batches import Batches
from lrfinder.training.exclusive import use_exclusively
from lrfinder.training.grad_norm import full_norm, total_grad_norm
from lrfinder.training.grad_norm_recorder import GradNormRecorder
from lrfinder.training.held_out import Remaining, epoch_length, held_out_count
from lrfinder.training.loaders import check_loader, clone, is_one_shot, is_ordered, shut_down
from lrfinder.training.loop import OnPoint, run_steps, run_sweep
from lrfinder.training.loss import BatchLoss
from lrfinder.training.loss_queue import LossQueue
from lrfinder.training.moving import move
from lrfinder.training.optimizer_guard import forbid_other_optimizers
from lrfinder.training.setup import TrainingSetup
from lrfinder.training.short_training import train_short
from lrfinder.training.step import Step, TrainingStep, UserStep
from lrfinder.training.validation import VAL_MODES, Validation

__all__ = [
    "VAL_MODES",
    "BatchLoss",
    "Batches",
    "GradNormRecorder",
    "LossQueue",
    "OnPoint",
    "Remaining",
    "Step",
    "TrainingSetup",
    "TrainingStep",
    "UserStep",
    "Validation",
    "check_loader",
    "clone",
    "epoch_length",
    "forbid_other_optimizers",
    "full_norm",
    "held_out_count",
    "is_one_shot",
    "is_ordered",
    "move",
    "run_steps",
    "run_sweep",
    "shut_down",
    "total_grad_norm",
    "train_short",
    "use_exclusively",
]
