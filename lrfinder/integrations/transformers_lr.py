"""The rate at which a `Trainer` trains: where it is kept, and how another one takes its place."""

from math import isclose
from typing import Any

from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer

from lrfinder.checks import check_positive
from lrfinder.curve import Suggestion
from lrfinder.errors import ArgumentError
from lrfinder.integrations import accelerate
from lrfinder.integrations.base import kept
from lrfinder.optim import base_lrs, group_lrs, group_ratios, largest_group, set_group_lrs
from lrfinder.result import RangeTestResult

__all__ = ["captured", "check_scheduler", "check_trainer", "data_sets", "set_lr"]


def captured(trainer: Trainer) -> tuple[Any, ...]:
    """Return the objects of the frameworks' that a range test changes: the one list of what is captured and put back.

    Args:
        trainer: The trainer.

    Returns:
        The trainer, whose model, optimizer, scheduler, callbacks, state, control and arguments are its attributes; the
        model's configuration, to which a forward pass may write; and what Accelerate adds.
    """
    config = getattr(trainer.model, "config", None)
    return trainer, *([] if config is None else [config]), *accelerate.captured(trainer.accelerator)


def data_sets(trainer: Trainer) -> tuple[Any, ...]:
    """Return what the trainer's attributes lead to and nobody changes: perhaps long lists.

    Args:
        trainer: The trainer.

    Returns:
        Its data sets.
    """
    return trainer.train_dataset, trainer.eval_dataset


def check_trainer(trainer: Any, caller: str) -> None:
    """Insist on a trainer that can be swept.

    Args:
        trainer: What was given as one.
        caller: The function that was called, for the message.

    Raises:
        ArgumentError: It is none, is training, or trains in a way that cannot be put back.
    """
    if not isinstance(trainer, Trainer):
        raise ArgumentError(f"{caller}(trainer=...) must be a transformers.Trainer, got {type(trainer).__name__}.")
    if trainer.is_in_train:
        raise ArgumentError(
            f"{caller} must be called before or after trainer.train(), got a trainer in the middle of it; after a "
            "training that an exception has broken off, set trainer.is_in_train = False."
        )
    accelerate.check_strategy(trainer.accelerator, caller)
    if trainer.is_fsdp_enabled or trainer.is_fsdp_xla_enabled or trainer.is_deepspeed_enabled:
        name = "DeepSpeed" if trainer.is_deepspeed_enabled else "FSDP"
        raise ArgumentError(f"{caller} cannot put back what {name} keeps, got a trainer that uses it; leave it out.")
    if trainer.args.n_gpu > 1:
        raise ArgumentError(
            f"{caller} works on one device and with DistributedDataParallel, got DataParallel on {trainer.args.n_gpu} "
            "GPUs; launch with torchrun, or show one GPU with CUDA_VISIBLE_DEVICES=0."
        )
    optimizer = getattr(trainer.args.optim, "value", trainer.args.optim)
    if "layerwise" in optimizer or "lomo" in optimizer:
        raise ArgumentError(
            f"{caller} needs an optimizer that steps after the backward pass, got TrainingArguments(optim="
            f"{optimizer!r}), which steps within it; choose another."
        )


def check_scheduler(trainer: Trainer, caller: str) -> None:
    """Insist on a scheduler whose rates follow from those of the parameter groups at its start.

    Args:
        trainer: The trainer.
        caller: The function that was called, for the message.

    Raises:
        ArgumentError: Another kind was handed to the trainer.
    """
    scheduler = _own_scheduler(trainer)
    if scheduler is not None and not isinstance(scheduler, LambdaLR):
        raise ArgumentError(
            f"{caller} can rescale the schedulers of transformers.get_scheduler, got a trainer with a "
            f"{type(scheduler).__name__} of yours; build it at the rate of the result, and the trainer with it."
        )


def set_lr(trainer: Trainer, lr: RangeTestResult | Suggestion | float) -> None:
    """Make a rate the top rate of the trainer's next `train()`.

    `trainer.args.learning_rate` alone does nothing once the trainer has an optimizer: one that was handed to it, or
    that an earlier `train()` made. Then the parameter groups are written, and what a scheduler has noted of them.

    Args:
        trainer: The trainer.
        lr: The rate of the largest parameter group, or what holds one; the other groups keep their ratios to it.

    Raises:
        ArgumentError: The rate is no positive number, or something in the trainer keeps it from being used: a scheduler
            that cannot be rescaled, an optimizer whose rates do not follow from the arguments. Nothing was changed.
        NoSuggestionError: The result has no suggestion.

    Example:
        >>> from torch import nn
        >>> from transformers import TrainingArguments
        >>> trainer = Trainer(nn.Linear(2, 1), TrainingArguments("/tmp/trainer", use_cpu=True, report_to="none"))
        >>> set_lr(trainer, 3e-4)
        >>> trainer.create_optimizer().param_groups[0]["lr"]
        0.0003
    """  # noqa: DOC502 - raised by the parts
    check_trainer(trainer, "set_lr")
    check_scheduler(trainer, "set_lr")
    chosen = lr.suggestion if isinstance(lr, RangeTestResult) else lr
    rate = check_positive("set_lr(lr=...)", chosen.lr if isinstance(chosen, Suggestion) else chosen)
    base, ratios = _as_created(trainer)
    rates = group_lrs(ratios, rate)
    before = trainer.args.learning_rate, trainer.optimizer_cls_and_kwargs
    _write_arguments(trainer, base, rate)
    if trainer.optimizer is not None:
        _write_optimizer(trainer, rates, base, rate)
        return
    top, found_ratios = _as_created(trainer)
    found = group_lrs(found_ratios, top)
    if not all(isclose(a, b, rel_tol=1e-6) for a, b in zip(found, rates, strict=True)):
        trainer.args.learning_rate, trainer.optimizer_cls_and_kwargs = before
        raise ArgumentError(
            f"set_lr(lr={rate}) must find an optimizer whose rates follow from trainer.args.learning_rate, got rates "
            f"{found} where {rates} were to be; have your create_optimizer use args.learning_rate."
        )


def _own_scheduler(trainer: Trainer) -> Any:
    """Return the scheduler that was handed to the trainer; its own is made anew by every training."""
    return None if trainer._created_lr_scheduler else trainer.lr_scheduler


def _as_created(trainer: Trainer) -> tuple[float, list[float]]:
    """Return the lr of the largest group, and all groups' ratios to it, in the optimizer that would be trained."""
    with kept(captured(trainer), data_sets(trainer), [trainer.args.device]):
        trainer.create_optimizer()
        optimizer = trainer.optimizer
        return base_lrs(optimizer)[largest_group(optimizer)], group_ratios(optimizer)


def _write_arguments(trainer: Trainer, base: float, rate: float) -> None:
    args, kind_and_options = trainer.args, trainer.optimizer_cls_and_kwargs
    args.learning_rate = _rescaled(args.learning_rate, base, rate)
    if kind_and_options is not None and "lr" in kind_and_options[1]:
        kind, options = kind_and_options
        trainer.optimizer_cls_and_kwargs = kind, {**options, "lr": _rescaled(options["lr"], base, rate)}


def _rescaled(old: float, base: float, rate: float) -> float:
    return rate if base in {0.0, old} else old * rate / base  # no rounding in the usual case


def _write_optimizer(trainer: Trainer, rates: list[float], base: float, rate: float) -> None:
    optimizer, scheduler = trainer.optimizer, _own_scheduler(trainer)
    default = optimizer.defaults.get("lr")
    if default is not None:  # get_scheduler computes the floors of its schedules from it
        optimizer.defaults["lr"] = _rescaled(float(default), base, rate)
    set_group_lrs(optimizer, rates)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        if "initial_lr" in group:  # left by a scheduler: the next one would start from it
            group["initial_lr"] = rate
    if scheduler is not None:
        factors = [factor(scheduler.last_epoch) for factor in scheduler.lr_lambdas]
        scheduler.base_lrs = list(rates)
        scheduler._last_lr = [rate * factor for rate, factor in zip(rates, factors, strict=True)]
        set_group_lrs(optimizer, scheduler._last_lr)
