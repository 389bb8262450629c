"""Lightning: a range test with the trainer's own step, before a fit or in the middle of one.

A point of the curve is one step of Lightning's own training loop, with hooks, precision, accumulation and clipping; the
sweep is `LRFinder.find`. It needs the package `lightning`; objects of the separate package `pytorch_lightning`, whose
classes are different, are refused.
"""

import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from math import isclose, isfinite
from typing import Any
from warnings import warn

from lrfinder.integrations.base import needs

with needs("lightning"):
    import lightning.pytorch as pl

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import BaseFinetuning, GradientAccumulationScheduler
from lightning.pytorch.utilities.exceptions import _TunerExitException
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from lrfinder.errors import ArgumentError, LRFinderWarning
from lrfinder.integrations.lightning_checks import check_trainer
from lrfinder.integrations.lightning_log import diagnose
from lrfinder.integrations.lightning_lr import (
    adopt,
    attribute_of,
    attribute_set,
    needed_value,
    selected,
    set_attribute,
    top_lr,
    with_next_step,
)
from lrfinder.integrations.lightning_state import CAPTURED, Attributes, captured, count_from_zero, data_of, make_quiet
from lrfinder.integrations.lightning_step import LightningStep, lightning_finder, only_step_listens, train_batches
from lrfinder.result import RangeTestResult
from lrfinder.snapshot import Snapshot

__all__ = ["CAPTURED", "LearningRateFinder", "diagnose", "find_lr"]

# Callbacks that decide what a training step is; all others are silent during a find.
_STEP_CALLBACKS = (BaseFinetuning, GradientAccumulationScheduler)


def find_lr(
    trainer: pl.Trainer,
    module: pl.LightningModule,
    train_dataloaders: Any = None,
    datamodule: pl.LightningDataModule | None = None,
    *,
    optimizer: int | str | None = None,
    apply: bool = False,
    attribute: str | None = None,
    extra_state: Iterable[Any] = (),
    snapshot_device: torch.device | str | None = None,
    snapshot_frozen: bool = True,
    **find_options: Any,
) -> RangeTestResult:
    """Run a range test on what `trainer.fit(module, ...)` would train, and leave everything as it was, bit for bit.

    The trainer's own loop sets everything up and takes every step: `training_step` with its hooks,
    `configure_optimizers` in all its forms, several parameter groups, precision, `accumulate_grad_batches`, clipping,
    DDP. Callbacks that freeze layers or change the accumulation take part. Loggers, checkpoints, schedulers, validation
    and all other callbacks do not run, and no file is written.

    Args:
        trainer: The trainer of the fit.
        module: What will be fitted.
        train_dataloaders: As for `trainer.fit`.
        datamodule: As for `trainer.fit`.
        optimizer: Which one to sweep, where `configure_optimizers` returns several (manual optimization, where
            `training_step` must return the loss): its index, or its class's name (`"Adam"`, `"Adam-1"` for the second).
        apply: Set the module's attribute to the suggestion, so that the next fit trains with it.
        attribute: Name of the attribute, in the module, the data module or their `hparams`; by default `lr` or
            `learning_rate`. Dots lead further: `"optimizer.lr"` is `hparams["optimizer"]["lr"]`, for example.
        extra_state: As for `LRFinder`: what a training step changes outside of module and trainer.
        snapshot_device: As for `LRFinder`.
        snapshot_frozen: As for `LRFinder`; False saves the copy of frozen layers.
        **find_options: For `LRFinder.find`; `total_steps` is taken from the trainer where it is not given.

    Returns:
        The curve, the suggestions, and the way to a scheduler.

    Raises:
        ArgumentError: The trainer, the module or an option breaks a rule.
        NoSuggestionError: `apply` was asked for, and the curve has no suggestion.

    Example:
        >>> import warnings, torch
        >>> warnings.simplefilter("ignore")  # Lightning's own, about workers
        >>> class Line(pl.LightningModule):
        ...     def __init__(self, lr=1e-3):
        ...         super().__init__()
        ...         self.lr, self.layer = lr, torch.nn.Linear(2, 1)
        ...     def training_step(self, batch, batch_idx):
        ...         return torch.nn.functional.mse_loss(self.layer(batch), batch.sum(1, keepdim=True))
        ...     def configure_optimizers(self):
        ...         return torch.optim.SGD(self.parameters(), lr=self.lr)
        >>> trainer = pl.Trainer(max_epochs=10, accelerator="cpu", logger=False, enable_progress_bar=False)
        >>> module = Line()
        >>> loader = torch.utils.data.DataLoader(torch.randn(256, 2), batch_size=32)
        >>> result = find_lr(trainer, module, loader, apply=True)
        >>> module.lr == result.suggestion.lr, trainer.global_step
        (True, 0)
    """  # noqa: DOC502 - raised by the parts
    if isinstance(train_dataloaders, pl.LightningDataModule):
        train_dataloaders, datamodule = None, train_dataloaders
    original = getattr(module, "_orig_mod", module)  # within torch.compile's
    check_trainer(trainer, original)
    if apply:
        attribute = attribute_of(original, datamodule, attribute)
    find_options.setdefault("progress", _shows_bars(trainer))
    options: dict[str, Any] = {
        "snapshot_device": snapshot_device,
        "snapshot_frozen": snapshot_frozen,
        "extra_state": tuple(extra_state),
    }
    visit = _Visit(optimizer, attribute if apply else None, options, find_options)
    sources = [*tree_leaves(train_dataloaders), *([] if datamodule is None else [datamodule])]
    attributes = [Attributes(each) for each in [datamodule] if each]
    active = [callback for callback in trainer.callbacks if isinstance(callback, _STEP_CALLBACKS)]  # type: ignore[attr-defined]
    objects: list[Any] = [original, *captured(trainer), *active]
    skip = [train_dataloaders, *data_of(trainer)]
    snapshot = Snapshot(objects, loaders=sources, parts=attributes, skip=skip, **options)
    with snapshot, _interruptible():
        visit.setup_options["outer_snapshot"] = snapshot
        trainer.callbacks = [*active, visit]  # type: ignore[attr-defined]  # the trainer sets it in a connector
        make_quiet(trainer)
        count_from_zero(trainer)
        trainer.limit_val_batches = trainer.num_sanity_val_steps = 0
        validated = datamodule is None and is_overridden("validation_step", original)
        trainer.fit(module, train_dataloaders, [] if validated else None, datamodule)  # else Lightning would miss some
    visit.raise_error()
    if visit.result is None:
        raise ArgumentError(
            "find_lr(trainer=...) must train on at least one batch, got a fit that ended before its first; check the "
            "data's length, limit_train_batches, max_epochs and max_steps."
        )
    if not apply:
        return with_next_step(visit.result, original)
    if attribute is not None and visit.value is not None:
        set_attribute(original, datamodule, attribute, visit.value)
    return replace(visit.result, next_step=f"trainer.fit(module), whose {attribute} is {visit.value:.2g} now")


class LearningRateFinder(pl.Callback):
    """Runs a range test at the start of a fit, or of given epochs, and trains on with its suggestion.

    It runs before the first batch of an epoch, when everything is set up and a checkpoint is restored. It changes
    nothing but the learning rate: the optimizer's, its schedulers', and the module's `lr` or `learning_rate` and
    hyperparameters. A schedule is scaled as a whole: at the start of a fit its highest learning rate becomes the
    suggestion, later its present one. Checkpoints hold the results; a fit that resumes from one keeps its learning
    rate.

    Args:
        epochs: Before which epochs to run.
        optimizer: Which one to sweep, as for `find_lr`.
        apply: Continue with the suggestion; a curve without one raises `NoSuggestionError`. With False the fit goes on
            as it was, and the result is kept.
        attribute: As for `find_lr`; by default `lr` or `learning_rate`, if there is one.
        extra_state: As for `LRFinder`.
        snapshot_device: As for `LRFinder`.
        snapshot_frozen: As for `LRFinder`.
        **find_options: For `LRFinder.find`.

    Attributes:
        results: What was found, by epoch.

    Example:
        >>> finder = LearningRateFinder(epochs=(0, 5), num_iter=60)
        >>> trainer = pl.Trainer(callbacks=[finder], accelerator="cpu", logger=False, enable_checkpointing=False)
        >>> finder.results
        {}
    """

    def __init__(
        self,
        epochs: Iterable[int] = (0,),
        *,
        optimizer: int | str | None = None,
        apply: bool = True,
        attribute: str | None = None,
        extra_state: Iterable[Any] = (),
        snapshot_device: torch.device | str | None = None,
        snapshot_frozen: bool = True,
        **find_options: Any,
    ) -> None:
        self._setup_options = {
            "extra_state": tuple(extra_state),
            "snapshot_device": snapshot_device,
            "snapshot_frozen": snapshot_frozen,
        }
        self.results: dict[int, RangeTestResult] = {}
        self._epochs = frozenset(epochs)
        self._optimizer = optimizer
        self._apply = apply
        self._attribute = attribute
        self._options = find_options
        self._due = False
        self._value: tuple[str, Any] | None = None

    @property
    def result(self) -> RangeTestResult | None:
        """What was found last, or None."""
        return self.results[max(self.results)] if self.results else None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002 - Lightning passes them
        """Note whether this epoch begins with a range test; one that is resumed in its middle does not."""
        self._due = trainer.current_epoch in self._epochs and trainer.current_epoch not in self.results

    def on_train_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,  # noqa: ARG002 - Lightning passes it
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Run the range test, if one is due."""
        if not self._due:
            return
        self._due = False
        if trainer.fast_dev_run:  # type: ignore[attr-defined]  # the trainer sets it in a connector
            warn("LearningRateFinder does nothing under Trainer(fast_dev_run=...).", LRFinderWarning, stacklevel=2)
            return
        check_trainer(trainer, pl_module, standalone=False)
        data = trainer.datamodule  # type: ignore[attr-defined]  # the trainer sets it in a connector
        name = attribute_of(pl_module, data, self._attribute, required=self._attribute is not None)
        options = {"progress": _shows_bars(trainer), **self._options}
        swept, result = _find(trainer, self._optimizer, self._setup_options, options)
        self.results[trainer.current_epoch] = with_next_step(result, pl_module)
        if not self._apply:
            return
        self.results[trainer.current_epoch] = replace(result, next_step="nothing to do, the fit goes on with it")
        lr = result.suggestion.lr
        if name is not None:
            self._value = (name, needed_value(pl_module, data, name, top_lr(trainer, swept), lr))
            set_attribute(pl_module, data, *self._value)
        adopt(trainer, swept, result)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint stores: the results, and the learning rate of the module."""
        return {"results": {epoch: each.to_dict() for epoch, each in self.results.items()}, "value": self._value}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what a checkpoint stored.

        Args:
            state_dict: What `state_dict` returned.
        """
        self.results = {epoch: RangeTestResult.from_dict(each) for epoch, each in state_dict["results"].items()}
        self._value = state_dict["value"]

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Set the stored learning rate in the module, before its optimizers are configured."""
        kept = checkpoint.get("callbacks", {}).get(self.state_key, {}).get("value")
        if kept is not None:
            set_attribute(pl_module, trainer.datamodule, *kept)  # type: ignore[attr-defined]  # as above


class _Visit(pl.Callback):
    """Runs the range test at the first batch of a fit, and ends the fit."""

    def __init__(
        self,
        optimizer: int | str | None,
        attribute: str | None,
        setup_options: Mapping[str, Any],
        find_options: Mapping[str, Any],
    ) -> None:
        self.result: RangeTestResult | None = None
        self.value: Any = None
        self.error: BaseException | None = None
        self.setup_options = dict(setup_options)
        self._optimizer = optimizer
        self._attribute = attribute
        self._options = dict(find_options)

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        try:
            swept, self.result = _find(trainer, self._optimizer, self.setup_options, self._options)
            if self._attribute is not None:
                self._apply(trainer, swept, self._attribute, self.result.suggestion.lr)
        except BaseException as error:  # noqa: BLE001 - raised again outside: here Lightning would exit on Ctrl-C
            self.error = error
        raise _TunerExitException

    def raise_error(self) -> None:
        """Raise what ended the range test, and forget it: its traceback would keep the model alive."""
        error, self.error = self.error, None
        try:
            if error is not None:
                raise error
        finally:
            del error

    def _apply(self, trainer: pl.Trainer, swept: Optimizer, name: str, lr: float) -> None:
        """Find the value that the attribute needs, and check that the optimizers of the next fit follow it."""
        module, data = trainer.lightning_module, trainer.datamodule  # type: ignore[attr-defined]  # as above
        index = trainer.optimizers.index(swept)
        self.value = needed_value(module, data, name, top_lr(trainer, swept), lr)
        with attribute_set(module, data, name, self.value):
            trainer.strategy.setup_optimizers(trainer)
        used = top_lr(trainer, trainer.optimizers[index])
        if not isclose(used, lr, rel_tol=1e-6):
            warn(
                f"find_lr sets {name}={self.value:.3g}, but configure_optimizers does not follow it: the learning rate "
                f"would be {used:.3g}, not {lr:.3g}. Use self.{name} there, or pass apply=False.",
                LRFinderWarning,
                stacklevel=2,
            )


def _find(
    trainer: pl.Trainer, which: int | str | None, setup_options: Mapping[str, Any], options: dict[str, Any]
) -> tuple[Optimizer, RangeTestResult]:
    # Within a fit that is about to train on a batch.
    swept = selected(trainer.optimizers, which)
    options.setdefault("total_steps", _steps_left(trainer))
    step = LightningStep(trainer, swept)
    finder = lightning_finder(trainer, step, swept, **setup_options)
    with only_step_listens(trainer, step):
        return swept, finder.find(train_batches(trainer), **options)


def _steps_left(trainer: pl.Trainer) -> int | None:
    with suppress(MisconfigurationException):  # where accumulation changes from epoch to epoch
        steps = trainer.estimated_stepping_batches - trainer.global_step
        return int(steps) if isfinite(steps) and steps > 0 else None
    return None


def _shows_bars(trainer: pl.Trainer) -> bool:
    bar = trainer.progress_bar_callback
    return bar is not None and bool(getattr(bar, "is_enabled", True))


@contextmanager
def _interruptible() -> Iterator[None]:
    # Ctrl-C arrives as itself: Lightning would exit the process, and leave it deaf to the next one.
    ours = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if ours else None
    try:
        yield
    except SystemExit as leaving:
        if isinstance(leaving.__context__, KeyboardInterrupt):
            raise leaving.__context__ from None
        raise
    finally:
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
