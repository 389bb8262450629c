"""Which trainers of Lightning a range test works with."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

from lrfinder.errors import ArgumentError

__all__ = ["check_trainer"]

_REFUSED = {
    "DeepSpeedStrategy": "which keeps parameters and optimizers elsewhere",
    "FSDPStrategy": "which keeps parameters and optimizers elsewhere",
    "ModelParallelStrategy": (
        "which could not be tested: on the CPU with gloo even a fit without find_lr waits forever; models that are "
        "sharded with fully_shard work with LRFinder itself and through Accelerate"
    ),
    "XLAStrategy": "which keeps parameters and optimizers elsewhere",
    "XLAFSDPStrategy": "which keeps parameters and optimizers elsewhere",
}  # strategies, and why


def check_trainer(trainer: Any, module: Any, *, standalone: bool = True) -> None:
    """Check that a range test can be run with a trainer.

    Args:
        trainer: The trainer.
        module: The module that it trains.
        standalone: Whether the test starts a fit of its own; a callback is called within one.

    Raises:
        ArgumentError: One is of another kind, or the trainer's strategy or options stand in the way.
    """
    for name, value, kind in (("trainer", trainer, pl.Trainer), ("module", module, pl.LightningModule)):
        if not isinstance(value, kind):
            hint = ""
            if any(cls.__module__.startswith("pytorch_lightning") for cls in type(value).__mro__):
                hint = " of the package pytorch_lightning; import lightning.pytorch in its place"
            raise ArgumentError(
                f"find_lr({name}=...) must be a lightning.pytorch.{kind.__name__}, got {type(value).__name__}{hint}."
            )
    strategy = type(trainer.strategy).__name__
    if strategy in _REFUSED:
        raise ArgumentError(
            f"find_lr works on one device and under DDP, got Trainer(strategy={strategy}), {_REFUSED[strategy]}; find "
            "the learning rate on one device, at the same batch size."
        )
    if standalone and trainer.fast_dev_run:
        raise ArgumentError(
            f"find_lr needs more than the few batches of Trainer(fast_dev_run={trainer.fast_dev_run}); leave it out."
        )
    if standalone and isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        raise ArgumentError(
            "find_lr cannot see what the processes find that a trainer spawns or forks, got "
            f"{type(trainer.strategy.launcher).__name__}; put LearningRateFinder() into the trainer's callbacks."
        )
