"""Diagnose the learning rate of a training from what Lightning's `CSVLogger` has written."""

from pathlib import Path
from typing import Any

from lightning.fabric.loggers.csv_logs import CSVLogger as FabricCSVLogger
from lightning.pytorch.loggers import CSVLogger

from lrfinder.curve import Diagnosis
from lrfinder.curve import diagnose as diagnose_losses
from lrfinder.display import log_of_rows, log_rows
from lrfinder.errors import ArgumentError

__all__ = ["diagnose"]


def diagnose(logs: Any, *, loss_column: str | None = None, lr_column: str | None = None) -> Diagnosis:
    """Diagnose a training from its `metrics.csv`, while it runs or afterwards.

    `LearningRateMonitor` logs the learning rate; without it much less can be told.

    Args:
        logs: A folder with `metrics.csv`, such as `lightning_logs/version_0`; that file; a `CSVLogger`; or a trainer
            that has one.
        loss_column: The name under which the training loss was logged, where it is not a usual one.
        lr_column: The same of the learning rate.

    Returns:
        The diagnosis, see `lrfinder.diagnose`.

    Raises:
        ArgumentError: There is no such file, or it has no training loss; the message lists its columns.
    """
    path = _metrics_file(logs)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ArgumentError(
            f"diagnose(logs=...) must name a folder with metrics.csv, which CSVLogger writes; cannot read "
            f"{str(path)!r}: {error.strerror}."
        ) from error
    rows = log_rows(text, repr(str(path)))
    log = log_of_rows(rows, repr(str(path)), loss_column=loss_column, lr_column=lr_column)
    return diagnose_losses(log.losses, log.lrs, val_losses=log.val_losses)


def _metrics_file(logs: Any) -> Path:
    loggers = [logs, *(getattr(logs, "loggers", None) or ())]
    folder = next((logger.log_dir for logger in loggers if isinstance(logger, (CSVLogger, FabricCSVLogger))), logs)
    if not isinstance(folder, (str, Path)):
        raise ArgumentError(
            "diagnose(logs=...) must be a folder, a file, a CSVLogger or a trainer with a CSVLogger, got "
            f"{type(logs).__name__}."
        )
    path = Path(folder)
    return path / "metrics.csv" if path.is_dir() else path
