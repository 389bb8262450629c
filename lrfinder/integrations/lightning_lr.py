"""Where a Lightning module keeps its learning rate, and how the suggestion is applied."""

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import isclose
from numbers import Real
from typing import Any

import lightning.pytorch as pl
from torch.optim import Optimizer

from lrfinder.errors import ArgumentError, NoSuggestionError
from lrfinder.optim import largest_group, set_group_lrs
from lrfinder.result import RangeTestResult

__all__ = [
    "adopt",
    "attribute_of",
    "attribute_set",
    "needed_value",
    "selected",
    "set_attribute",
    "top_lr",
    "with_next_step",
]

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


def _holders(module: pl.LightningModule, datamodule: Any, name: str) -> Iterator[tuple[Any, str]]:
    """Yield the object or mapping that holds the attribute, and its name there, for each place."""
    for owner in (module, datamodule):
        for root in () if owner is None else (owner, owner.hparams):
            if isinstance(root, Mapping) and name in root:  # a key that has dots itself
                yield root, name
                continue
            *path, last = name.split(".")
            holder = root
            for part in path:
                holder = holder.get(part) if isinstance(holder, Mapping) else getattr(holder, part, None)
            if last in holder if isinstance(holder, Mapping) else hasattr(holder, last):
                yield holder, last


def _value_at(holder: Any, name: str) -> Any:
    return holder[name] if isinstance(holder, Mapping) else getattr(holder, name)


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


def with_next_step(result: RangeTestResult, module: pl.LightningModule) -> RangeTestResult:
    """Return a result whose block ends with what to do in Lightning, where no optimizer is at hand.

    Args:
        result: What was found.
        module: The module that will be fitted.

    Returns:
        The same result; without a suggestion its block ends with the reason.
    """
    try:
        lr = result.suggestion.lr
    except NoSuggestionError:
        return result
    return replace(result, next_step=f"lr={lr:.2g} in {type(module).__name__}.configure_optimizers")


def set_attribute(module: pl.LightningModule, datamodule: Any, name: str, value: Any) -> None:
    """Set the attribute wherever it is: in the module, its `hparams`, the data module, its `hparams`.

    Args:
        module: The module.
        datamodule: The data module, or None.
        name: The attribute's name.
        value: Its value.
    """
    for holder, last in list(_holders(module, datamodule, name)):
        if isinstance(holder, MutableMapping):
            holder[last] = value
        else:
            setattr(holder, last, value)


@contextmanager
def attribute_set(module: pl.LightningModule, datamodule: Any, name: str, value: Any) -> Iterator[None]:
    """Within this context the attribute has another value.

    Args:
        module: The module.
        datamodule: The data module, or None.
        name: The attribute's name.
        value: Its value.
    """
    before = [(holder, last, _value_at(holder, last)) for holder, last in _holders(module, datamodule, name)]
    set_attribute(module, datamodule, name, value)
    try:
        yield
    finally:
        for holder, last, old in before:
            if isinstance(holder, MutableMapping):
                holder[last] = old
            else:
                setattr(holder, last, old)


def needed_value(module: pl.LightningModule, datamodule: Any, name: str, top: float, lr: float) -> float:
    """Return the value of the attribute with which the optimizer's learning rate is `lr`.

    The attribute may be the learning rate of another group, or be multiplied first: it counts as proportional to the
    learning rate.

    Args:
        module: The module.
        datamodule: The data module, or None.
        name: The attribute's name.
        top: The optimizer's learning rate with the current value of the attribute.
        lr: The learning rate that the optimizer should have.

    Returns:
        `lr` itself if the attribute is the learning rate.
    """
    value = _value_at(*next(_holders(module, datamodule, name)))
    value = float(value) if isinstance(value, Real) else 0.0
    return lr if value <= 0 or not top or isclose(value, top, rel_tol=1e-9) else value * lr / top


def _attached(trainer: pl.Trainer, optimizer: Optimizer) -> list[Any]:
    schedulers = [config.scheduler for config in trainer.strategy.lr_scheduler_configs]
    return [scheduler for scheduler in schedulers if getattr(scheduler, "optimizer", optimizer) is optimizer]


def top_lr(trainer: pl.Trainer, optimizer: Optimizer) -> float:
    """Return the learning rate that the suggestion replaces.

    Args:
        trainer: The trainer.
        optimizer: One of its optimizers.

    Returns:
        That of the swept group: before the first step the highest one that its scheduler reaches, as far as is known;
        later the current one.
    """
    index = largest_group(optimizer)
    group = optimizer.param_groups[index]
    if trainer.global_step and float(group["lr"]):
        return float(group["lr"])
    cyclic = [scheduler.max_lrs[index] for scheduler in _attached(trainer, optimizer) if hasattr(scheduler, "max_lrs")]
    return max(float(lr) for lr in [group["lr"], group.get("initial_lr", 0), group.get("max_lr", 0), *cyclic])


def adopt(trainer: pl.Trainer, optimizer: Optimizer, result: RangeTestResult) -> None:
    """Continue the training with the suggestion.

    All learning rates that the schedulers hold are scaled by one factor, so their next ones follow.

    Args:
        trainer: The trainer, within a fit.
        optimizer: The optimizer that was swept.
        result: What was found.
    """
    schedulers, top = _attached(trainer, optimizer), top_lr(trainer, optimizer)
    if not schedulers or not top:
        result.apply(optimizer)
        return
    lr = result.suggestion.lr

    def scaled(value: Any) -> float:
        return lr * (float(value) / top)  # exactly the suggestion where the value is the top

    for group in optimizer.param_groups:
        group.update({key: scaled(group[key]) for key in ("initial_lr", "max_lr", "min_lr") if key in group})
    set_group_lrs(optimizer, [scaled(group["lr"]) for group in optimizer.param_groups])
    for scheduler in schedulers:
        _scale(scheduler, scaled)


def _scale(scheduler: Any, scaled: Callable[[Any], float]) -> None:
    for name in ("base_lrs", "max_lrs", "_last_lr"):
        if hasattr(scheduler, name):
            setattr(scheduler, name, [scaled(lr) for lr in getattr(scheduler, name)])
    for part in getattr(scheduler, "_schedulers", ()):  # of a chain or a sequence
        _scale(part, scaled)
