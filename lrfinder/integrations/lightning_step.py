"""One optimizer step as Lightning's own loop takes it, and the finder that takes such steps."""

import copy
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.data import sized_len
from lightning.pytorch.trainer.call import _call_strategy_hook
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor
from torch.optim import Optimizer

from lrfinder.distributed import ALONE, Ranks
from lrfinder.errors import ArgumentError
from lrfinder.finder import LRFinder
from lrfinder.integrations.lightning_state import captured, data_of, make_quiet
from lrfinder.optim import needs_closure
from lrfinder.snapshot import Snapshot
from lrfinder.training import total_grad_norm

__all__ = ["LightningStep", "lightning_finder", "only_step_listens", "train_batches"]


class LightningStep(pl.Callback):
    """Lets Lightning's epoch loop take one optimizer step, and listens to the losses.

    Args:
        trainer: A trainer within a fit.
        optimizer: The one that is swept.

    Attributes:
        accumulation_steps: Micro-batches per optimizer step, at most the batches of an epoch.
        skipped: Whether the last call stepped nothing: the scaler skipped it, or `training_step` returned None.
        ranks: The ranks that take the same step.
        record_grad_norm: Whether `grad_norm` is wanted.
        grad_norm: The norm of the last step's gradients, unscaled and before clipping.
    """

    def __init__(self, trainer: pl.Trainer, optimizer: Optimizer) -> None:
        """Look at the trainer; nothing is run."""
        self.accumulation_steps = int(min(trainer.accumulate_grad_batches, trainer.num_training_batches))
        self.skipped = False
        self.record_grad_norm: bool | None = False
        self.grad_norm: Tensor | None = None
        self.ranks: Ranks = ALONE
        self._trainer = trainer
        self._closure = needs_closure(optimizer)
        self._first: Tensor | None = None
        self._losses: list[Tensor] = []

    def __call__(self, micro_batches: Sequence[Any]) -> Tensor:
        """Take one optimizer step on these micro-batches.

        Args:
            micro_batches: As the loader gave them; Lightning moves them.

        Returns:
            Their mean loss, detached.
        """
        loop = self._trainer.fit_loop.epoch_loop
        if loop.batch_progress.current.ready + len(micro_batches) > self._trainer.num_training_batches:
            loop.batch_progress.current.reset()  # the next epoch; a last, incomplete step is left out
        self._losses = []
        scale = self._scale()
        for batch in micro_batches:
            self._first = None
            try:
                loop.advance(_Fetched(batch))  # type: ignore[arg-type]  # of a fetcher it asks no more
            except StopIteration:
                break  # on_train_batch_start returned -1
        overflowed = scale is not None and self._scale() < scale  # type: ignore[operator]  # a scaler stays
        if scale is not None:
            overflowed = self.ranks.any_skipped(overflowed)
        self.skipped = overflowed or not self._losses
        return torch.stack(self._losses).mean() if self._losses else torch.zeros(())

    def _scale(self) -> float | None:
        scaler = getattr(self._trainer.precision_plugin, "scaler", None)
        return None if scaler is None else scaler.get_scale()

    def on_before_backward(
        self,
        trainer: pl.Trainer,  # noqa: ARG002 - Lightning passes it
        pl_module: pl.LightningModule,  # noqa: ARG002
        loss: Tensor,
    ) -> None:
        """Keep a closure's first loss, and wait for the other ranks to have theirs."""
        if self._closure and self._first is None:
            self._first = loss.detach().clone()
        self.ranks.before_backward()

    def on_after_backward(
        self,
        trainer: pl.Trainer,  # noqa: ARG002 - Lightning passes it
        pl_module: pl.LightningModule,  # noqa: ARG002
    ) -> None:
        """Note that the backward pass is over."""
        self.ranks.after_backward()

    def on_before_optimizer_step(
        self,
        trainer: pl.Trainer,  # noqa: ARG002 - Lightning passes it
        pl_module: pl.LightningModule,
        optimizer: Optimizer,  # noqa: ARG002 - Lightning passes it
    ) -> None:
        """Record the norm of the gradients, which are unscaled and not clipped yet."""
        if self.record_grad_norm:
            self.grad_norm = total_grad_norm(pl_module.parameters())

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,  # noqa: ARG002 - Lightning passes it
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Record the loss of a micro-batch, which Lightning has divided by its accumulation.

        Args:
            trainer: The trainer.
            pl_module: The module.
            outputs: What became of `training_step`'s output.
            batch: The micro-batch.
            batch_idx: Its index in the epoch.

        Raises:
            ArgumentError: Under manual optimization there is no loss.
        """
        loss = outputs.get("loss") if outputs and self._first is None else self._first
        if loss is not None:
            self._losses.append(loss.detach().reshape(()) * trainer.accumulate_grad_batches)
        elif not pl_module.automatic_optimization:
            raise ArgumentError(
                "find_lr(module=...) under manual optimization needs a training_step that returns the loss to look at, "
                f"got {type(pl_module).__name__}.training_step without one; return it, or a dict with the key 'loss'."
            )


class _Fetched:
    """One batch, as Lightning's loop fetches it from an epoch that goes on."""

    done = False

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def __next__(self) -> tuple[Any, int, int]:
        return self._batch, 0, 0


def lightning_finder(
    trainer: pl.Trainer,
    step: LightningStep,
    optimizer: Optimizer,
    *,
    extra_state: Sequence[Any] = (),
    outer_snapshot: Snapshot | None = None,
    **options: Any,
) -> LRFinder:
    """Return a finder whose steps are Lightning's.

    Args:
        trainer: A trainer within a fit, set up as for its next step.
        step: Takes the steps.
        optimizer: The optimizer to sweep.
        extra_state: As for `LRFinder`.
        outer_snapshot: A snapshot from before the fit.
        **options: `snapshot_device` and `snapshot_frozen`, as for `LRFinder`.

    Returns:
        The finder.
    """
    model = trainer.strategy.model
    assert model is not None  # within a fit

    def make_step(ranks: Ranks) -> LightningStep:
        step.ranks = ranks
        return step

    plain = LRFinder(
        model,
        optimizer,
        loss_fn=lambda _, batch: _held_out_loss(trainer, batch),
        device=trainer.strategy.root_device,
        grad_scaler=getattr(trainer.precision_plugin, "scaler", None),
        accumulation_steps=step.accumulation_steps,
        extra_state=[*(each for each in trainer.optimizers if each is not optimizer), *extra_state],
        **options,
    ).setup
    setup = replace(
        plain,
        make_step=make_step,
        captured=tuple(captured(trainer)),
        skipped=tuple(data_of(trainer)),
        outer_snapshot=outer_snapshot,
    )
    return LRFinder.from_setup(setup)


@contextmanager
def only_step_listens(trainer: pl.Trainer, step: LightningStep) -> Iterator[None]:
    """Within this context only the step listens to the trainer, and no scheduler steps.

    Args:
        trainer: A trainer within a fit.
        step: The callback that takes the steps.
    """
    loop = trainer.fit_loop.epoch_loop
    bar = trainer.progress_bar_callback
    shown = bar if getattr(bar, "is_enabled", False) else None
    own: list[tuple[Any, str, Any]] = [
        (trainer, "callbacks", [step] if bar is None else [bar, step]),  # its thread may look for it
        (trainer, "loggers", trainer.loggers),
        (trainer, "profiler", trainer.profiler),  # type: ignore[attr-defined]  # the trainer sets it in a connector
        (loop, "_results", type(loop._results)(training=True)),
        (loop, "batch_progress", type(loop.batch_progress)()),
    ]
    if trainer.lightning_module.automatic_optimization:  # else training_step may ask for its schedulers
        own.append((trainer.strategy, "lr_scheduler_configs", []))
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in own]
    try:
        for owner, name, value in own:
            setattr(owner, name, value)
        make_quiet(trainer)
        if shown is not None:
            shown.disable()
        yield
    finally:
        if shown is not None:
            shown.enable()
        for owner, name, value in before:
            setattr(owner, name, value)


def _held_out_loss(trainer: pl.Trainer, batch: Any) -> Tensor:
    """Return the training loss of a validation batch, without a step.

    Raises:
        ArgumentError: The module steps by itself.
    """
    module = trainer.lightning_module
    if not module.automatic_optimization:
        raise ArgumentError(
            "find_lr(val_loader=...) and refine need a training_step that does not step by itself, got a module "
            "with manual optimization; leave them out."
        )
    batch = module._on_before_batch_transfer(trainer.precision_plugin.convert_input(batch), dataloader_idx=0)
    batch = _call_strategy_hook(trainer, "batch_to_device", batch, dataloader_idx=0)
    arguments = trainer.fit_loop.epoch_loop._build_kwargs(OrderedDict(), batch, 0)
    output = _call_strategy_hook(trainer, "training_step", *arguments.values())
    return output if isinstance(output, Tensor) else output["loss"]


def train_batches(trainer: pl.Trainer) -> Any:
    """Return what the fit trains on.

    Args:
        trainer: A trainer within a fit.

    Returns:
        The one loader that there is; or an iterable of the batches of an epoch, where the trainer combines several
        loaders or limits their batches.
    """
    combined = trainer.fit_loop._combined_loader
    assert combined is not None  # within a fit
    length = sized_len(combined.iterables)
    limit = float("inf") if combined.limits is None else combined.limits[0]
    whole = limit == float("inf") or (length is not None and length <= limit)
    return combined.iterables if combined.iterables is combined.flattened[0] and whole else _Epoch(combined)


class _Epoch:
    """The batches of one epoch, from a copy of the combined loader: the fit's own may be in use."""

    def __init__(self, combined: CombinedLoader) -> None:
        self._combined = combined
        # As attributes of their own, where the capture of a loader's state, and its clone, look for them.
        vars(self).update({f"loader_{index}": each for index, each in enumerate(combined.flattened)})

    def __iter__(self) -> Iterator[Any]:
        combined = copy.copy(self._combined)
        combined.flattened = [getattr(self, f"loader_{index}") for index in range(len(combined.flattened))]
        for batch, _, _ in iter(combined):
            yield batch
