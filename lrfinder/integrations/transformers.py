"""transformers: a range test of what a `Trainer` is about to train."""

import math
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from lrfinder.integrations.base import needs

with needs("transformers"):
    import transformers

import torch
from torch import Tensor, nn
from transformers import Trainer
from transformers.trainer_callback import CallbackHandler, DefaultFlowCallback

from lrfinder.distributed import Ranks
from lrfinder.errors import ArgumentError
from lrfinder.finder import LRFinder
from lrfinder.integrations.base import restored
from lrfinder.integrations.transformers_log import diagnose
from lrfinder.integrations.transformers_lr import captured, check_scheduler, check_trainer, data_sets, set_lr
from lrfinder.result import RangeTestResult
from lrfinder.snapshot import is_sharded
from lrfinder.training import full_norm, total_grad_norm

__all__ = ["captured", "diagnose", "find_lr", "set_lr"]

_SCHEDULES = {
    "linear": "linear",
    "cosine": "cosine",
    "cosine_with_min_lr": "cosine",
    "cosine_warmup_with_min_lr": "cosine",
    "cosine_with_restarts": "cosine_warm_restarts",
    "polynomial": "polynomial",
    "constant": "constant",
    "constant_with_warmup": "constant",
    "reduce_lr_on_plateau": "plateau",
    "greedy": "plateau",
}
"""By `TrainingArguments.lr_scheduler_type`, the name of the schedule in `lrfinder.SCHEDULES`; others are a "lambda"."""


def find_lr(
    trainer: Trainer,
    *,
    apply: bool = False,
    extra_state: Iterable[Any] = (),
    snapshot_device: torch.device | str | None = None,
    snapshot_frozen: bool = True,
    **find_options: Any,
) -> RangeTestResult:
    """Run a range test on what `trainer.train()` would train, and leave the trainer as it was, bit for bit.

    Data loader, collator, `training_step`, `compute_loss`, label smoothing, accumulation, clipping, mixed precision and
    parameter groups are the trainer's. A point of the curve is the loss of a whole optimizer step, as the trainer would
    log it, without rounding. Callbacks are not called, and nothing is logged or saved. Call it before a `train()` or
    between two.

    Args:
        trainer: A `Trainer`, of transformers or of a library that builds on it.
        apply: Make the suggestion the peak learning rate of the next `train()`, as `set_lr(trainer, result)` does.
        extra_state: As for `LRFinder`: what a custom `compute_loss` changes outside of trainer and model.
        snapshot_device: As for `LRFinder`.
        snapshot_frozen: As for `LRFinder`; False saves the copy of a frozen base model under adapters.
        **find_options: As for `LRFinder.find`, which takes `total_steps` and `schedule` from `trainer.args` here. A
            `val_loader` can be `trainer.get_eval_dataloader()`.

    Returns:
        The result; `result.meta["warmup_steps"]` is the warm-up that `trainer.args` ask for.

    Raises:
        ArgumentError: The trainer cannot be swept (DeepSpeed, FSDP version 1, DataParallel, in the middle of its
            `train()`), or an option breaks a rule; nothing has been changed.
        NoSuggestionError: `apply=True`, and the curve gives no suggestion.

    Example:
        >>> from transformers import BertConfig, BertForSequenceClassification, TrainingArguments
        >>> _ = torch.manual_seed(0)
        >>> tokens = torch.randint(40, (64, 6))
        >>> config = BertConfig(
        ...     vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
        ... )
        >>> trainer = Trainer(
        ...     BertForSequenceClassification(config),
        ...     TrainingArguments("out", use_cpu=True, num_train_epochs=10, report_to="none"),
        ...     train_dataset=[{"input_ids": row, "labels": int(row[0] < 20)} for row in tokens],
        ... )
        >>> result = find_lr(trainer, start_lr=1e-4, end_lr=100.0, num_iter=40, apply=True, progress=False)
        >>> result.total_steps, trainer.args.learning_rate == result.suggestion.lr
        (80, True)
    """  # noqa: DOC502 - raised by the parts
    check_trainer(trainer, "find_lr")
    if apply:
        check_scheduler(trainer, "find_lr(apply=True)")
    if trainer.is_fsdp_enabled:
        _shard(trainer)
    with restored(captured(trainer), data_sets(trainer), [trainer.args.device]):
        loader = _prepare(trainer)
        finder = _finder(
            trainer, extra_state=extra_state, snapshot_device=snapshot_device, snapshot_frozen=snapshot_frozen
        )
        result = finder.find(loader, **{**_length_and_schedule(trainer, loader), **find_options})
    # What was swept is a wrapper that has gone; the optimizer inside is the trainer's, if it has one yet.
    optimizer = None if trainer.optimizer is None else weakref.ref(trainer.optimizer)
    result = replace(result, meta=_meta(trainer, result), next_step="set_lr(trainer, result)", optimizer=optimizer)
    if apply:
        set_lr(trainer, result)
    return result


def _prepare(trainer: Trainer) -> Any:
    """Do what `train()` does before its first step.

    Returns:
        The training loader.
    """
    accelerator = trainer.accelerator
    accelerator.free_memory()  # clipping would unscale what an earlier training has prepared, too
    trainer.callback_handler = CallbackHandler(  # a `compute_loss` that logs has no listeners
        [DefaultFlowCallback], trainer.model, trainer.processing_class, None, None
    )
    trainer.is_in_train = True
    loader = trainer.get_train_dataloader()
    _change_forward(trainer)
    trainer.create_optimizer()
    if trainer.model_wrapped is trainer.model:
        trainer.model_wrapped, trainer.optimizer = accelerator.prepare(trainer.model, trainer.optimizer)
    else:  # by an earlier training
        trainer.optimizer = accelerator.prepare(trainer.optimizer)
    return loader


def _shard(trainer: Trainer) -> None:
    """Shard the model as `train()` does before its first step; FSDP2 cannot undo it, so this stays."""
    if is_sharded(trainer.model.modules()):
        return
    own = trainer.optimizer
    trainer.create_optimizer()
    trainer.model, optimizer = trainer.accelerator.prepare(trainer.model, trainer.optimizer)
    trainer.model_wrapped = trainer.model
    trainer.optimizer = None if own is None else optimizer


def _change_forward(trainer: Trainer) -> None:
    """Make the forward pass what `train()` makes it: checkpointed activations, noisy embeddings."""
    model, args = trainer.model, trainer.args
    if getattr(args, "gradient_checkpointing", False) or getattr(args, "activation_checkpointing", False):
        if hasattr(model, "activation_checkpointing_enable"):
            options = dict(args.activation_checkpointing_kwargs or {})
            named = {name: options.pop(name) for name in ("every_n_layers", "offload") if name in options}
            model.activation_checkpointing_enable(activation_checkpointing_kwargs=options or None, **named)
        else:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=args.gradient_checkpointing_kwargs)
    if trainer.neftune_noise_alpha is not None:
        if hasattr(trainer, "_activate_neftune"):
            trainer._activate_neftune(model)
        else:
            from transformers.integrations.neftune import activate_neftune

            activate_neftune(model, trainer.neftune_noise_alpha, trainer.accelerator)


def _length_and_schedule(trainer: Trainer, loader: Any) -> dict[str, Any]:
    kind = trainer.args.lr_scheduler_type
    own = trainer.lr_scheduler is not None and not trainer._created_lr_scheduler
    schedule = "lambda" if own else _SCHEDULES.get(getattr(kind, "value", kind), "lambda")
    return {"total_steps": _total_steps(trainer, loader), "schedule": schedule}


def _total_steps(trainer: Trainer, loader: Any) -> int:
    args = trainer.args
    if args.max_steps > 0:
        return int(args.max_steps)
    try:
        batches = len(loader)
    except (TypeError, NotImplementedError):
        raise ArgumentError(
            f"TrainingArguments(max_steps=...) must be positive where the data set has no length, got {args.max_steps}."
        ) from None
    steps: int = math.ceil(args.num_train_epochs * max(math.ceil(batches / args.gradient_accumulation_steps), 1))
    return steps


def _meta(trainer: Trainer, result: RangeTestResult) -> dict[str, Any]:
    versions = {**result.meta["versions"], "transformers": transformers.__version__}
    warmup = 0 if result.total_steps is None else trainer.args.get_warmup_steps(result.total_steps)
    return {**result.meta, "versions": versions, "warmup_steps": warmup}


def _finder(trainer: Trainer, **options: Any) -> LRFinder:
    """Return a finder whose steps are the trainer's, and whose validation loss is the trainer's `compute_loss`."""

    def loss_fn(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
        with trainer.compute_loss_context_manager():
            return trainer.compute_loss(model, dict(batch))  # type: ignore[no-any-return]  # takes labels out

    plain = LRFinder(
        trainer.model_wrapped,
        trainer.optimizer,
        loss_fn=loss_fn,
        accumulation_steps=trainer.args.gradient_accumulation_steps,
        **options,
    ).setup
    setup = replace(
        plain,
        make_step=lambda ranks: _TrainerStep(trainer, ranks),
        captured=captured(trainer),
        skipped=data_sets(trainer),
    )
    return LRFinder.from_setup(setup)


class _TrainerStep:
    """One optimizer step as in the trainer's own loop.

    Args:
        trainer: A trainer that was prepared.
        ranks: Those that take the same step: no one begins a backward pass before all have a loss.

    Attributes:
        skipped: Whether the scaler kept the last call from stepping.
        accumulation_steps: Micro-batches per step.
    """

    def __init__(self, trainer: Trainer, ranks: Ranks) -> None:
        self.skipped = False
        self.record_grad_norm: bool | None = False
        self.grad_norm: Tensor | None = None
        self.accumulation_steps = trainer.args.gradient_accumulation_steps
        self._trainer = trainer
        self._ranks = ranks

    def __call__(self, micro_batches: Sequence[Any]) -> Tensor:
        """Take one optimizer step.

        Args:
            micro_batches: As many batches as the arguments accumulate.

        Returns:
            The loss of the step as the trainer logs it: the sum of what `training_step` returns, which is each
            micro-batch's share of the mean.
        """
        trainer, accelerator = self._trainer, self._trainer.accelerator
        model, args = trainer.model_wrapped, trainer.args
        batches, items = trainer.get_batch_samples(iter(micro_batches), len(micro_batches), args.device)
        trainer.current_gradient_accumulation_steps = len(batches)
        model.zero_grad()
        shares = [self._share(batch, items, last=batch is batches[-1]) for batch in batches]
        norm = None
        if args.max_grad_norm is not None and args.max_grad_norm > 0:
            norm = accelerator.clip_grad_norm_(model.parameters(), args.max_grad_norm)
        elif self.record_grad_norm:
            accelerator.unscale_gradients()
            norm = total_grad_norm(model.parameters())
        self.grad_norm = full_norm(norm) if self.record_grad_norm and norm is not None else None
        trainer.optimizer.step()
        self.skipped = self._ranks.any_skipped(accelerator.optimizer_step_was_skipped)
        return torch.stack(shares).sum()

    def _share(self, batch: Any, items: Any, *, last: bool) -> Tensor:
        trainer, accelerator = self._trainer, self._trainer.accelerator
        accelerator.sync_gradients = last
        at_once = last or accelerator.gradient_state.plugin_kwargs.get("sync_each_batch", False)
        with nullcontext() if at_once else accelerator.no_sync(trainer.model_wrapped), self._meeting():
            return trainer.training_step(trainer.model_wrapped, batch, items)  # type: ignore[no-any-return]

    @contextmanager
    def _meeting(self) -> Iterator[None]:
        """Let the ranks meet before the backward pass, which is inside of `training_step`."""
        ranks, accelerator = self._ranks, self._trainer.accelerator
        if not ranks.is_distributed:
            yield
            return
        backward = accelerator.backward

        def meet_first(*args: Any, **kwargs: Any) -> None:
            ranks.before_backward()
            backward(*args, **kwargs)
            ranks.after_backward()

        accelerator.backward = meet_first
        try:
            yield
        finally:
            del accelerator.backward  # the method shows again
