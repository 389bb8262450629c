"""Warnings about a training setup, found while or after it was measured."""

from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import nn

from lrfinder.curve import Curve, norms_explode, norms_overflow
from lrfinder.optim import (
    estimates_step_size,
    group_names,
    needs_closure,
    unwrap_optimizer,
)
from lrfinder.options import FindOptions
from lrfinder.search import SearchOutcome
from lrfinder.training import is_one_shot

__all__ = ["setup_warnings", "unused_lr_warnings", "validation_warnings"]


def setup_warnings(outcome: SearchOutcome, options: FindOptions, optimizer: Any) -> list[str]:
    """Return what of the user's setup was consumed, was not used, or failed.

    Args:
        outcome: What was measured.
        options: What `find` was asked for.
        optimizer: The optimizer whose learning rate was swept.

    Returns:
        Sentences with the remedy; mostly none.
    """
    found = []
    held = outcome.held_iterators
    if outcome.consumed:
        found.append(_consumed("loader", held["loader"], f"the {outcome.consumed} batches"))
    if is_one_shot(options.val_loader) or held["val_loader"]:
        found.append(_consumed("val_loader", held["val_loader"], "the batches"))
    found += _capped_lrs(outcome.curve, unwrap_optimizer(optimizer))
    found += _multiplied_lrs(optimizer)
    found += _batches_of_lbfgs(outcome, optimizer)
    if outcome.error is not None:
        found.append(
            f"Your code raised {type(outcome.error).__name__} ({outcome.error}) on a loss that was not finite; "
            "the sweep ended there."
        )
    if norms_explode(outcome.curve, float("inf"), outcome.context):
        found.append(
            "Gradients explode: a gradient norm below divergence is more than 100 times the median. Clip them: "
            "result.clip_norm() suggests a threshold for LRFinder(max_grad_norm=...)."
        )
    if norms_overflow(outcome.curve, outcome.context):
        found.append(
            "A gradient was NaN or infinite although its loss was finite. Clipping cannot mend that: look for the "
            "square root, norm or logarithm of 0 in the loss, or for an overflow of the precision."
        )
    return found


def unused_lr_warnings(outcome: SearchOutcome, optimizer: Any) -> list[str]:
    """Return what shows that the optimizer's steps did not depend on the learning rate.

    Args:
        outcome: What was measured.
        optimizer: The optimizer whose learning rate was swept.

    Returns:
        At most one sentence, with the remedy.
    """
    if not outcome.any_moved and not outcome.curve.has_clear_descent:
        remedy = (
            "A step of your own must call optimizer.step() of the swept optimizer. Otherwise the gradients may be 0."
        )
        if needs_closure(optimizer):  # LBFGS
            remedy = "It ends a step whose change is below its tolerance: pass a larger start_lr."
        return [f"No step changed the parameters. {remedy}"]
    if outcome.groups_without_effect:
        names = group_names(optimizer)
        found = ", ".join(repr(names[index]) for index in outcome.groups_without_effect)
        kind = type(unwrap_optimizer(optimizer)).__name__
        sentence = (
            f"The steps do not depend on the learning rate in the parameter groups {found}: {kind} may not use the lr "
            "of its groups, and the suggestion means nothing then. Turn off what sets another lr, such as Adafactor's "
            "relative_step or a warm-up inside the optimizer; of a wrapper that copies the groups, pass the optimizer "
            "inside."
        )
        return [sentence]
    return []


def validation_warnings(outcome: SearchOutcome, options: FindOptions, model: nn.Module) -> list[str]:
    """Return what makes the validation losses of a sweep differ from those of a training.

    Args:
        outcome: What was measured.
        options: What `find` was asked for.
        model: The model that was swept.

    Returns:
        At most one sentence, with the remedy.
    """
    running = (each.training and each.running_mean is not None for each in model.modules() if _is_batch_norm(each))
    if options.val_loader is None or options.val_mode != "eval" or not any(running) or _is_refined(outcome):
        return []
    sentence = (
        "The running statistics of batch normalization lag behind the weights at high learning rates, so that in eval "
        "mode the validation loss rises too early, and the suggestion may be up to ten times too low. Pass "
        "val_mode='train' or refine=True, or leave val_loader out."
    )
    return [sentence]


def _is_batch_norm(module: nn.Module) -> TypeGuard[nn.BatchNorm1d]:
    return isinstance(module, nn.modules.batchnorm._BatchNorm)  # the base of all of them


def _is_refined(outcome: SearchOutcome) -> bool:
    return outcome.refined is not None and outcome.refined.suggestion is not None


def _batches_of_lbfgs(outcome: SearchOutcome, optimizer: Any) -> list[str]:
    if not isinstance(unwrap_optimizer(optimizer), torch.optim.LBFGS) or outcome.context.epoch_points == 1:
        return []
    sentence = (
        "LBFGS takes the curvature from differences of gradients, which are mostly noise where the batches differ: the "
        "sweep says little then. Give it the same data in each step, one batch with all of it."
    )
    return [sentence]


def _multiplied_lrs(optimizer: Any) -> list[str]:
    found = []
    if estimates_step_size(optimizer):
        found.append(
            f"{type(unwrap_optimizer(optimizer)).__name__} estimates its step size during the training, and lr only "
            "multiplies it: the curve shows the start of that estimate. Train with lr=1.0, as its authors advise."
        )
    if any(group.get("lr_scale", 1.0) != 1.0 for group in optimizer.param_groups):
        found.append(
            "The parameter groups have an lr_scale: learning rates are those before it, and each group was swept at "
            "its own multiple, as timm's schedulers do. For a scheduler that does not multiply, use "
            "result.group_lrs() or result.scheduler(...)."
        )
    return found


def _consumed(name: str, held: str, what: str) -> str:
    if held:
        return (
            f"The {name} reads from one iterator, {held}, in every epoch: {what} that it gave are consumed. Make that "
            "iterator in __iter__ of the data set, or a new one for the training."
        )
    return (
        f"The {name} is an iterator: {what} that it gave are consumed. "
        "Pass a DataLoader, a list, or a fresh iterator for the training."
    )


def _capped_lrs(curve: Curve, optimizer: Any) -> list[str]:
    if not isinstance(optimizer, torch.optim.Adafactor):
        return []
    steps_before = max((_steps_taken(state) for state in optimizer.state.values()), default=0)
    capped = curve.lrs * np.sqrt(steps_before + 1 + curve.indices) > 1
    if not capped.any():
        return []
    lowest = curve.lrs[capped].min()
    return [f"Adafactor caps its learning rate at 1/sqrt(step): above {lowest:.1e} none was used. Pass a lower end_lr."]


def _steps_taken(state: Any) -> int:
    return int(state.get("step", 0)) if isinstance(state, Mapping) else 0
