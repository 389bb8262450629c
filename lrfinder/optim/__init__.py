"""Read and write the learning rates of a torch optimizer, and build its schedulers."""

from lrfinder.optim.lr_effect import LREffect, estimates_step_size
from lrfinder.optim.lr_writer import LRWriter
from lrfinder.optim.param_groups import (
    base_lrs,
    group_index,
    group_lrs,
    group_momentum,
    group_names,
    group_ratios,
    largest_group,
    set_group_lrs,
)
from lrfinder.optim.preview import Preview, preview_schedule
from lrfinder.optim.schedulers import SCHEDULES, make_scheduler, stand_in
from lrfinder.optim.wrappers import (
    asks_for_closure,
    has_two_passes,
    needs_closure,
    optimizer_layers,
    unwrap_optimizer,
)

__all__ = [
    "SCHEDULES",
    "LREffect",
    "LRWriter",
    "Preview",
    "asks_for_closure",
    "base_lrs",
    "estimates_step_size",
    "group_index",
    "group_lrs",
    "group_momentum",
    "group_names",
    "group_ratios",
    "has_two_passes",
    "largest_group",
    "make_scheduler",
    "needs_closure",
    "optimizer_layers",
    "preview_schedule",
    "set_group_lrs",
    "stand_in",
    "unwrap_optimizer",
]
