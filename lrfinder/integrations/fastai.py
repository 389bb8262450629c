"""fastai: a range test of what a `Learner` is about to train.

The steps are the learner's own: `Learner.one_batch` with its optimizer, loss, data loaders, parameter groups, and the
callbacks that belong to a training step. Afterwards `fit_one_cycle` trains as if the range test had not been run.
"""

import inspect
import math
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from lrfinder.integrations.base import needs

with needs("fastai"):
    import fastai

import torch
import torch.distributed as dist
from fastai.basics import CastToTensor, L, Learner
from fastai.callback.core import Callback, TrainEvalCallback
from fastai.callback.fp16 import MixedPrecision, NonNativeMixedPrecision
from fastai.callback.mixup import MixHandler
from fastai.callback.rnn import ModelResetter, RNNRegularizer
from fastai.callback.schedule import ParamScheduler
from fastai.callback.training import BnFreeze, GradientAccumulation, GradientClip

from lrfinder.errors import ArgumentError
from lrfinder.finder import LRFinder
from lrfinder.integrations.base import restored
from lrfinder.integrations.fastai_step import LearnerStep, SweptOptimizer
from lrfinder.result import RangeTestResult
from lrfinder.training import BatchLoss, TrainingSetup

__all__ = ["STEP_CALLBACKS", "captured", "find_lr"]

STEP_CALLBACKS: tuple[type[Callback], ...] = (
    TrainEvalCallback,
    CastToTensor,
    MixedPrecision,
    GradientAccumulation,
    GradientClip,
    MixHandler,
    BnFreeze,
    ModelResetter,
    RNNRegularizer,
)  # those of fastai's callbacks that belong to a training step

_STEP_EVENTS = ("before_batch", "after_pred", "after_loss", "before_backward", "after_backward", "before_step")


def find_lr(
    learner: Learner,
    *,
    apply: bool = False,
    n_epoch: int | None = None,
    callbacks: Iterable[type[Callback] | Callback] = (),
    extra_state: Iterable[Any] = (),
    snapshot_device: torch.device | str | None = None,
    snapshot_frozen: bool = True,
    **find_options: Any,
) -> RangeTestResult:
    """Run a range test on what `learner.fit` would train, and leave the learner as it was, bit for bit.

    Optimizer, loss, data loaders, parameter groups and weight decay are the learner's. Of its callbacks those take part
    that belong to a training step: fastai's in `STEP_CALLBACKS` (mixed precision, gradient clipping and accumulation,
    MixUp, frozen batch normalization), and your own if they define an event between `before_batch` and `before_step`.
    The others (recorder, progress bars, loggers, schedulers) are not called.

    Args:
        learner: The learner, before a fit or between two.
        apply: Make the suggestion the learner's own learning rate, `learner.lr`, which `fit_one_cycle` uses when it is
            called without one.
        n_epoch: How many epochs the training will have; `total_steps` follows from it.
        callbacks: More callbacks of the learner, or classes of them, that take part.
        extra_state: As for `LRFinder`: what a custom callback or loss changes outside of the learner.
        snapshot_device: As for `LRFinder`.
        snapshot_frozen: As for `LRFinder`; False saves the copy of a frozen body.
        **find_options: As for `LRFinder.find`. A `val_loader` is `learner.dls.valid`, for example.

    Returns:
        The result. `result.slice()` is for discriminative fitting.

    Raises:
        ArgumentError: The learner cannot be swept, or an option breaks a rule; nothing has been changed.
        NoSuggestionError: `apply` was asked for, and the curve has no suggestion.

    Example:
        >>> import numpy as np, torch
        >>> from fastai.basics import DataLoaders, Learner, MSELossFlat
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(256, 4)
        >>> data = [(row, row.sum(0, keepdim=True)) for row in x]
        >>> dls = DataLoaders.from_dsets(data, data, bs=16, num_workers=0)
        >>> learner = Learner(dls, torch.nn.Linear(4, 1), MSELossFlat())
        >>> result = find_lr(learner, n_epoch=5, apply=True, progress=False)
        >>> result.total_steps, learner.lr == result.suggestion.lr, learner.opt is None
        (80, True, True)
    """  # noqa: DOC502 - raised by the parts
    _check(learner, callbacks)
    loader, device = learner.dls.train, next(learner.model.parameters()).device
    taking_part = [each for each in learner.cbs if _belongs(each, tuple(callbacks))]
    accumulation_steps = _accumulation_steps(taking_part, loader)
    if n_epoch is not None:
        find_options.setdefault("total_steps", max(n_epoch * len(loader) // accumulation_steps, 1))
    with restored(captured(learner), skipped(learner), [device]):
        try:
            swept = _prepare(learner)
            step = LearnerStep(learner, swept, accumulation_steps, n_epoch or 1)
            learner.cbs = L([*taking_part, step.watch])
            setup = TrainingSetup(
                model=learner.model,
                optimizer=swept,
                make_step=lambda _: step,
                batch_loss=BatchLoss(learner.model, loss_fn=step.validation_loss),
                accumulation_steps=accumulation_steps,
                extra_state=(*extra_state, *_torch_optimizers(swept)),
                captured=captured(learner),
                skipped=skipped(learner),
                snapshot_device=snapshot_device,
                snapshot_frozen=snapshot_frozen,
            )
            result = LRFinder.from_setup(setup).find(loader, **find_options)
        finally:
            learner.model.to(device)  # a first fit moves the model to the device of the data loaders
    optimizer = next(map(weakref.ref, _torch_optimizers(learner.opt)), None)
    argument = "result.slice()" if len(set(result.group_ratios)) > 1 else "result.suggestion.lr"
    versions = {**result.meta["versions"], "fastai": fastai.__version__}
    result = replace(
        result,
        meta={**result.meta, "versions": versions},
        next_step=f"learner.fit_one_cycle(n_epoch, {argument})",
        optimizer=optimizer,
    )
    if apply:
        lrs = result.group_lrs()
        learner.lr = lrs[0] if len(set(lrs)) == 1 else lrs
    return result


def captured(learner: Learner) -> tuple[Any, ...]:
    """Return the objects of fastai's that a range test changes: the one list of what is captured and restored.

    Args:
        learner: The learner.

    Returns:
        The learner, its callbacks, its loss, the loaders' random state, and the optimizer with its groups.
    """
    optimizers = [*_layers(learner.opt), *_layers(learner.opt_func)]
    lists = [each for optimizer in optimizers for value in vars(optimizer).values() for each in _lists(value)]
    return learner, learner.cbs, *learner.cbs, learner.loss_func, *learner.dls.loaders, *optimizers, *lists


def _lists(value: Any) -> list[Any]:
    """Return fastai's lists in an attribute, nested ones too, and what they hold: they are no lists of Python."""
    if not isinstance(value, L):
        return []
    return [value, *(part for item in value for part in (_lists(item) or [item]))]


def _layers(optimizer: Any) -> list[Any]:
    """Return fastai's optimizer, the one that it wraps, and so on."""
    layers: list[Any] = []
    while hasattr(optimizer, "param_lists") and not any(optimizer is each for each in layers):
        layers.append(optimizer)
        optimizer = vars(optimizer).get("inner", vars(optimizer).get("opt"))
    return layers


def skipped(learner: Learner) -> tuple[Any, ...]:
    """Return what these objects lead to and must not be entered: data.

    Args:
        learner: The learner.

    Returns:
        The data sets.
    """
    return tuple(getattr(loader, "dataset", None) for loader in learner.dls.loaders)


def _check(learner: Any, callbacks: Iterable[Any]) -> None:
    if not isinstance(learner, Learner):
        raise ArgumentError(f"find_lr(learner=...) must be a fastai Learner, got {type(learner).__name__}.")
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        raise ArgumentError(
            f"find_lr(learner=...) works in one process, got a process group of {dist.get_world_size()}; run it before "
            "the distributed training, with the batch size of all processes together."
        )
    for each in learner.cbs:
        if isinstance(each, NonNativeMixedPrecision):
            raise ArgumentError(
                "find_lr(learner=...) cannot restore a model that NonNativeMixedPrecision converts; use to_fp16()."
            )
    for each in callbacks:
        if not any(each is held or (isinstance(each, type) and isinstance(held, each)) for held in learner.cbs):
            raise ArgumentError(
                f"find_lr(callbacks=...) must name callbacks of the learner, got {each!r}; add it with learner.add_cb."
            )


def _belongs(callback: Callback, chosen: Sequence[Any]) -> bool:
    classes = STEP_CALLBACKS + tuple(each for each in chosen if isinstance(each, type))
    if isinstance(callback, classes) or any(callback is each for each in chosen):
        return True
    kind = type(callback)
    own = kind is Callback or not kind.__module__.startswith("fastai.")  # `before_batch_cb` makes a plain Callback
    changes = any(inspect.getattr_static(callback, event, None) is not None for event in _STEP_EVENTS)
    return own and changes and not isinstance(callback, ParamScheduler)


def _accumulation_steps(callbacks: Iterable[Callback], loader: Any) -> int:
    sizes = [each.n_acc for each in callbacks if isinstance(each, GradientAccumulation)]
    return max(1, math.ceil(sizes[0] / (loader.bs or 1))) if sizes else 1


def _prepare(learner: Learner) -> "SweptOptimizer":
    """Do what `fit` does before its first event.

    Returns:
        The optimizer with groups in the form of torch's, which is the learner's now.
    """
    device = getattr(learner.dls, "device", None)
    if device is not None:
        learner.model.to(device)
    if learner.opt is None:
        learner.create_opt()
    if learner.wd is not None:
        learner.opt.set_hypers(wd=learner.wd)
    learner.opt.set_hypers(lr=learner.lr)
    learner.opt = optimizer = SweptOptimizer(learner.opt)
    return optimizer


def _torch_optimizers(optimizer: Any) -> list[torch.optim.Optimizer]:
    """Return the optimizer of torch inside fastai's `OptimWrapper`; none for other optimizers."""
    inner = getattr(optimizer, "opt", None)
    return [inner] if isinstance(inner, torch.optim.Optimizer) else []
