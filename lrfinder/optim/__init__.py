"""Read and write the learning rates of a torch optimizer, and build its schedulers."""

from lrfinder.optim.param_groups import RateWriter, group_lrs, ratios, reference_index, set_group_lrs
from lrfinder.optim.preview import Preview, preview_schedule
from lrfinder.optim.schedulers import SCHEDULES, make_scheduler
from lrfinder.optim.wrappers import needs_closure, unwrap_optimizer

__all__ = [
    "SCHEDULES",
    "Preview",
    "RateWriter",
    "group_lrs",
    "make_scheduler",
    "needs_closure",
    "preview_schedule",
    "ratios",
    "reference_index",
    "set_group_lrs",
    "unwrap_optimizer",
]
