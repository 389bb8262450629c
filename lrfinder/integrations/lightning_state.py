"""What a range test changes in Lightning's objects, and what does not run meanwhile."""

from operator import attrgetter
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.profilers import PassThroughProfiler

from lrfinder.snapshot import ErrorCollector

__all__ = ["CAPTURED", "Attributes", "captured", "count_from_zero", "data_of", "make_quiet"]

CAPTURED = {
    "": "the trainer: callbacks, loggers, profiler, limits, should_stop, state",
    "strategy": "optimizers, schedulers, the wrapped model",
    "precision_plugin": "the gradient scaler",
    "fit_loop": "epoch counters, the data's source and iterator",
    "fit_loop.epoch_loop": "batch and scheduler counters, logged results",
    "fit_loop.epoch_loop.automatic_optimization": "global_step",
    "fit_loop.epoch_loop.manual_optimization": "global_step under manual optimization",
    "fit_loop.epoch_loop.val_loop": "validation's counters and source",
    "validate_loop": "its source of data, which a fit attaches too",
    "test_loop": "its source of data",
    "predict_loop": "its source of data",
    "_logger_connector": "metrics for callbacks, loggers and the progress bar",
    "_data_connector": "where data comes from",
    "_callback_connector": "callbacks that the module brings",
    "_checkpoint_connector": "a checkpoint that is being restored",
    "_signal_connector": "signal handlers",
}
"""The framework's state that a find changes and puts back: attributes of the trainer, by path. Beside it the module,
its optimizers and schedulers, the data module's attributes, the loaders, and the random streams are put back."""


class Attributes:
    """The attributes of an object, and nothing within them: a data module may hold much data.

    Args:
        owner: The object.
    """

    def __init__(self, owner: Any) -> None:
        """Capture the attributes as they are now."""
        self._owner, self._saved = owner, dict(vars(owner))

    def restore(self, errors: ErrorCollector) -> None:  # noqa: ARG002 - nothing here can fail
        """Put the attributes back.

        Args:
            errors: Collects what could not be put back.
        """
        vars(self._owner).clear()
        vars(self._owner).update(self._saved)


def captured(trainer: pl.Trainer) -> list[Any]:
    """Return the objects behind `CAPTURED`, and the schedulers of the present fit.

    Args:
        trainer: The trainer.

    Returns:
        Objects whose attributes a snapshot keeps.
    """
    schedulers = [config.scheduler for config in trainer.strategy.lr_scheduler_configs]
    return [attrgetter(path)(trainer) if path else trainer for path in CAPTURED] + schedulers


def data_of(trainer: pl.Trainer) -> list[Any]:
    """Return the loaders of a trainer, which the snapshot does not enter.

    Args:
        trainer: The trainer.

    Returns:
        The loaders as they were passed.
    """
    sources = trainer.fit_loop._data_source, trainer.fit_loop.epoch_loop.val_loop._data_source
    return [source.instance for source in sources if not isinstance(source.instance, pl.LightningModule)]


def make_quiet(trainer: pl.Trainer) -> None:
    """Replace loggers and profiler by silent ones.

    Args:
        trainer: The trainer.
    """
    trainer.loggers = [DummyLogger() for _ in trainer.loggers]
    trainer.profiler = PassThroughProfiler()  # type: ignore[attr-defined]  # the trainer sets it in a connector


def count_from_zero(trainer: pl.Trainer) -> None:
    """Reset the counters of a trainer that has finished a fit, so that it can begin another.

    Args:
        trainer: The trainer.
    """
    loop = trainer.fit_loop.epoch_loop
    for progress in (
        trainer.fit_loop.epoch_progress,
        loop.batch_progress,
        loop.automatic_optimization.optim_progress.optimizer.step,
        loop.manual_optimization.optim_step_progress,
    ):
        progress.total.reset()
        progress.current.reset()
