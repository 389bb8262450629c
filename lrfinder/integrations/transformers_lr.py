"""The learning rate of a `Trainer`: where it is kept, and how to replace it."""

from math import isclose
from typing import Any

from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer

from lrfinder.checks import check_positive
from lrfinder.curve import Suggestion
from lrfinder.errors import ArgumentError
from lrfinder.integrations import accelerate
from lrfinder.integrations.base import restored
from lrfinder.integrations.transformers_resume import warn_if_replaced
from lrfinder.optim import base_lrs, group_lrs, group_ratios, largest_group, set_group_lrs
from lrfinder.result import RangeTestResult

__all__ = ["captured", "check_scheduler", "check_trainer", "data_sets", "set_lr"]


def captured(trainer: Trainer) -> tuple[Any, ...]:
    """Return the framework objects that a range test changes: all that is captured and restored.

    Args:
        trainer: The trainer.

    Returns:
        The trainer, whose model, optimizer, scheduler, callbacks, state, control and arguments are its attributes; the
        model's configuration, to which a forward pass may write; and what Accelerate adds.
    """
    config = getattr(trainer.model, "config", None)
    return trainer, *([] if config is None else [config]), *accelerate.captured(trainer.accelerator)


def data_sets(trainer: Trainer) -> tuple[Any, ...]:
    """Return the data sets, which can be reached from the trainer but do not change.

    Args:
        trainer: The trainer.

    Returns:
        The training set and the evaluation set, or None.
    """
    return trainer.train_dataset, trainer.eval_dataset


def check_trainer(trainer: Any, caller: str) -> None:
    """Check that a trainer can be swept.

    Args:
        trainer: What was given as one.
        caller: The function that was called, for the message.

    Raises:
        ArgumentError: It is no `Trainer`, it is training, or what its training changes cannot be restored.
    """
    if not isinstance(trainer, Trainer):
        raise ArgumentError(f"{caller}(trainer=...) must be a transformers.Trainer, got {type(trainer).__name__}.")
    if trainer.is_in_train:
        raise ArgumentError(
            f"{caller} must be called before or after trainer.train(), got a trainer in the middle of it; after a "
            "training that an exception has broken off, set trainer.is_in_train = False."
        )
    accelerate.check_strategy(trainer.accelerator, caller)
    shards = trainer.is_fsdp_enabled and not getattr(trainer.accelerator, "is_fsdp2", False)
    if shards or trainer.is_fsdp_xla_enabled or trainer.is_deepspeed_enabled:
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
    """Check that the learning rates of the scheduler follow from those of the parameter groups.

    Args:
        trainer: The trainer.
        caller: The function that was called, for the message.

    Raises:
        ArgumentError: The trainer was given a scheduler of another kind.
    """
    scheduler = _own_scheduler(trainer)
    if scheduler is not None and not isinstance(scheduler, LambdaLR):
        raise ArgumentError(
            f"{caller} can rescale the schedulers of transformers.get_scheduler, got a trainer with a "
            f"{type(scheduler).__name__} of yours; build it with the learning rate of the result and pass it to a new "
            "trainer."
        )


def set_lr(trainer: Trainer, lr: RangeTestResult | Suggestion | float) -> None:
    """Set the peak learning rate of the trainer's next `train()`.

    `trainer.args.learning_rate` alone has no effect once the trainer has an optimizer, one that was passed to it or one
    of an earlier `train()`. Then the parameter groups are written, and the learning rates that a scheduler has stored.
    `train(resume_from_checkpoint=...)` loads the checkpoint's learning rate instead, and warns of it.

    Args:
        trainer: The trainer.
        lr: The learning rate of the largest parameter group, or what holds one; the other groups keep their ratios.

    Raises:
        ArgumentError: `lr` is no positive number, or it would not be used: the scheduler cannot be rescaled, or the
            learning rates of the optimizer do not follow from the arguments. Nothing was changed.
        NoSuggestionError: The result has no suggestion.

    Example:
        >>> from torch import nn
        >>> from transformers import TrainingArguments
        >>> trainer = Trainer(nn.Linear(2, 1), TrainingArguments("out", use_cpu=True, report_to="none"))
        >>> set_lr(trainer, 3e-4)
        >>> trainer.create_optimizer().param_groups[0]["lr"]
        0.0003
    """  # noqa: DOC502 - raised by the parts
    check_trainer(trainer, "set_lr")
    check_scheduler(trainer, "set_lr")
    chosen = lr.suggestion if isinstance(lr, RangeTestResult) else lr
    new_lr = check_positive("set_lr(lr=...)", chosen.lr if isinstance(chosen, Suggestion) else chosen)
    base, ratios = _as_created(trainer)
    lrs = group_lrs(ratios, new_lr)
    before = trainer.args.learning_rate, trainer.optimizer_cls_and_kwargs
    _write_arguments(trainer, base, new_lr)
    if trainer.optimizer is not None:
        _write_optimizer(trainer, lrs, base, new_lr)
    else:
        _check_optimizer(trainer, lrs, new_lr, before)
    warn_if_replaced(trainer, new_lr)


def _check_optimizer(trainer: Trainer, lrs: list[float], new_lr: float, before: tuple[Any, Any]) -> None:
    # The arguments are set back where the optimizer that the trainer will make does not follow them.
    top, found_ratios = _as_created(trainer)
    found = group_lrs(found_ratios, top)
    if not all(isclose(a, b, rel_tol=1e-6) for a, b in zip(found, lrs, strict=True)):
        trainer.args.learning_rate, trainer.optimizer_cls_and_kwargs = before
        raise ArgumentError(
            f"set_lr(lr={new_lr}) needs an optimizer that follows trainer.args.learning_rate, got the learning rates "
            f"{found} instead of {lrs}; let your create_optimizer use args.learning_rate."
        )


def _own_scheduler(trainer: Trainer) -> Any:
    """Return the scheduler that was passed to the trainer; every training makes a new one of the trainer's."""
    return None if trainer._created_lr_scheduler else trainer.lr_scheduler


def _as_created(trainer: Trainer) -> tuple[float, list[float]]:
    """Return the lr of the largest group, and all groups' ratios to it, in the optimizer that would be trained."""
    with restored(captured(trainer), data_sets(trainer), [trainer.args.device]):
        trainer.create_optimizer()
        optimizer = trainer.optimizer
        return base_lrs(optimizer)[largest_group(optimizer)], group_ratios(optimizer)


def _write_arguments(trainer: Trainer, base: float, lr: float) -> None:
    args, kind_and_options = trainer.args, trainer.optimizer_cls_and_kwargs
    args.learning_rate = _rescaled(args.learning_rate, base, lr)
    if kind_and_options is not None and "lr" in kind_and_options[1]:
        kind, options = kind_and_options
        trainer.optimizer_cls_and_kwargs = kind, {**options, "lr": _rescaled(options["lr"], base, lr)}


def _rescaled(old: float, base: float, lr: float) -> float:
    return lr if base in {0.0, old} else old * lr / base  # no rounding in the usual case


def _write_optimizer(trainer: Trainer, lrs: list[float], base: float, new_lr: float) -> None:
    optimizer, scheduler = trainer.optimizer, _own_scheduler(trainer)
    default = optimizer.defaults.get("lr")
    if default is not None:  # get_scheduler computes the floors of its schedules from it
        optimizer.defaults["lr"] = _rescaled(float(default), base, new_lr)
    set_group_lrs(optimizer, lrs)
    for group, lr in zip(optimizer.param_groups, lrs, strict=True):
        if "initial_lr" in group:  # left by a scheduler: the next one would start from it
            group["initial_lr"] = lr
    if scheduler is not None:
        factors = [factor(scheduler.last_epoch) for factor in scheduler.lr_lambdas]
        scheduler.base_lrs = list(lrs)
        scheduler._last_lr = [lr * factor for lr, factor in zip(lrs, factors, strict=True)]
        set_group_lrs(optimizer, scheduler._last_lr)
