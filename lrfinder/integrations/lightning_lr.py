"""Where Lightning's users keep the learning rate, and how a found one comes into use."""

from collections.abc import Iterator, Sequence
from math import isclose
from numbers import Real
from typing import Any
from warnings import warn

import lightning.pytorch as pl
from torch.optim import Optimizer

from lrfinder.errors import ArgumentError, LRFinderWarning, NoSuggestionError
from lrfinder.optim import largest_group, set_group_lrs
from lrfinder.result import RangeTestResult

__all__ = ["adopt", "attribute_of", "needed_value", "selected", "set_attribute", "suggested", "top_rate"]

_NAMES = ("lr", "learning_rate")


def selected(optimizers: Sequence[Optimizer], which: int | str | None) -> Optimizer:
    """Return the optimizer to sweep.

    Args:
        optimizers: The trainer's.
        which: Its index, or its class's name as Lightning's `LearningRateMonitor` counts them; None for the only one.

    Returns:
        The optimizer.

    Raises:
        ArgumentError: There is no such optimizer, or several and none is named.
    """
    names: list[str] = []
    for optimizer in optimizers:
        name = type(optimizer).__name__
        count = sum(each == name or each.startswith(f"{name}-") for each in names)
        names.append(f"{name}-{count}" if count else name)
    known = ", ".join(f"{index}: {name!r}" for index, name in enumerate(names))
    if which is None and len(names) == 1:
        return optimizers[0]
    if which is None:
        raise ArgumentError(
            f"find_lr(optimizer=...) must say which optimizer to sweep, got None and {len(names)} optimizers ({known})."
        )
    if isinstance(which, str) and which in names:
        return optimizers[names.index(which)]
    if isinstance(which, int) and 0 <= which < len(names):
        return optimizers[which]
    raise ArgumentError(f"find_lr(optimizer=...) must be an index or a name of these ({known}), got {which!r}.")


def suggested(result: RangeTestResult) -> float | None:
    """Return the suggested rate; where there is none, say so in a warning.

    Args:
        result: What was found.

    Returns:
        The rate, or None.
    """
    try:
        return result.suggestion.lr
    except NoSuggestionError as error:
        warn(f"The learning rate stays as it was: {error}", LRFinderWarning, stacklevel=2)
        return None


def _holders(module: pl.LightningModule, datamodule: Any, name: str) -> Iterator[Any]:
    for owner in (module, datamodule):
        if owner is not None and hasattr(owner, name):
            yield owner
        if name in getattr(owner, "hparams", ()):
            yield owner.hparams


def attribute_of(module: pl.LightningModule, datamodule: Any, name: str | None, *, required: bool = True) -> str | None:
    """Return the name of the attribute that holds the learning rate.

    Args:
        module: The module; it, its `hparams`, and the data module's are looked at.
        datamodule: The data module, or None.
        name: What the user calls it; by default one of `lr` and `learning_rate`.
        required: Whether there must be one.

    Returns:
        The name, or None.

    Raises:
        ArgumentError: There is none.
    """
    names = _NAMES if name is None else (name,)
    for each in names:
        if any(True for _ in _holders(module, datamodule, each)):
            return each
    if not required:
        return None
    raise ArgumentError(
        f"find_lr(apply=True) needs an attribute {' or '.join(map(repr, names))} that configure_optimizers takes its "
        f"rate from, got none in {type(module).__name__} or its hparams; name yours with attribute=..., or pass "
        "apply=False and use the result."
    )


def set_attribute(module: pl.LightningModule, datamodule: Any, name: str, value: Any) -> None:
    """Set the attribute wherever it is: in the module, its `hparams`, the data module, its `hparams`.

    Args:
        module: The module.
        datamodule: The data module, or None.
        name: The attribute's name.
        value: Its value.
    """
    for holder in list(_holders(module, datamodule, name)):
        if isinstance(holder, dict):
            holder[name] = value
        else:
            setattr(holder, name, value)


def needed_value(module: pl.LightningModule, datamodule: Any, name: str, top: float, lr: float) -> float:
    """Return the value at which the optimizer's rate is `lr`.

    The attribute may stand for another group's rate, or be multiplied before it becomes one: it is taken to be
    proportional to the rate.

    Args:
        module: The module.
        datamodule: The data module, or None.
        name: The attribute's name.
        top: The optimizer's rate at the attribute's present value.
        lr: The rate wanted.

    Returns:
        `lr` itself where the attribute is the rate.
    """
    holder = next(_holders(module, datamodule, name))
    value = holder[name] if isinstance(holder, dict) else getattr(holder, name)
    value = float(value) if isinstance(value, Real) else 0.0
    return lr if value <= 0 or not top or isclose(value, top, rel_tol=1e-9) else value * lr / top


def _attached(trainer: pl.Trainer, optimizer: Optimizer) -> list[Any]:
    schedulers = [config.scheduler for config in trainer.strategy.lr_scheduler_configs]
    return [scheduler for scheduler in schedulers if getattr(scheduler, "optimizer", optimizer) is optimizer]


def top_rate(trainer: pl.Trainer, optimizer: Optimizer) -> float:
    """Return the rate that the suggestion takes the place of.

    Args:
        trainer: The trainer.
        optimizer: One of its optimizers.

    Returns:
        The reference group's rate: before the first step the highest that its scheduler is known to reach, later the
        present one.
    """
    index = largest_group(optimizer)
    group = optimizer.param_groups[index]
    if trainer.global_step and float(group["lr"]):
        return float(group["lr"])
    cyclic = [scheduler.max_lrs[index] for scheduler in _attached(trainer, optimizer) if hasattr(scheduler, "max_lrs")]
    return max(float(rate) for rate in [group["lr"], group.get("initial_lr", 0), group.get("max_lr", 0), *cyclic])


def adopt(trainer: pl.Trainer, optimizer: Optimizer, result: RangeTestResult) -> None:
    """Train on with the suggestion.

    With schedulers everything that they hold is scaled by one factor: their next rates follow.

    Args:
        trainer: The trainer, within a fit.
        optimizer: The optimizer that was swept.
        result: What was found.
    """
    schedulers, top = _attached(trainer, optimizer), top_rate(trainer, optimizer)
    if not schedulers or not top:
        result.apply(optimizer)
        return
    factor = result.suggestion.lr / top
    for group in optimizer.param_groups:
        group.update({key: group[key] * factor for key in ("initial_lr", "max_lr", "min_lr") if key in group})
    set_group_lrs(optimizer, [float(group["lr"]) * factor for group in optimizer.param_groups])
    for scheduler in schedulers:
        _scale(scheduler, factor)


def _scale(scheduler: Any, factor: float) -> None:
    for name in ("base_lrs", "max_lrs", "_last_lr"):
        if hasattr(scheduler, name):
            setattr(scheduler, name, [rate * factor for rate in getattr(scheduler, name)])
    for part in getattr(scheduler, "_schedulers", ()):  # of a chain or a sequence
        _scale(part, factor)
