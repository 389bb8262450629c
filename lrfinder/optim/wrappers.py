"""Optimizers inside wrappers, and optimizers whose `step` needs a closure."""

import inspect
import traceback
from typing import Any

from torch.optim import Optimizer

__all__ = [
    "as_torch_optimizer",
    "asks_for_closure",
    "has_two_passes",
    "needs_closure",
    "optimizer_layers",
    "unwrap_optimizer",
]

MOST_LAYERS = 20  # a chain of wrappers that is longer makes a new wrapper at each access


def optimizer_layers(optimizer: Any) -> list[Any]:
    """Return a wrapper, the optimizer in its `.optimizer`, the one inside that, and so on.

    The walk ends at an object that has no `.optimizer`, at one whose `.optimizer` is no optimizer, and where it comes
    back to an object that it has met. A scheduler is no wrapper, because it has no `param_groups`. An attribute that a
    `__getattr__` makes up, as that of `unittest.mock.Mock`, does not count.

    Args:
        optimizer: An optimizer, or a wrapper such as Accelerate's.

    Returns:
        The layers, outermost first; only the object itself where it wraps nothing.
    """
    layers = [optimizer]
    if not hasattr(optimizer, "param_groups"):
        return layers
    while len(layers) < MOST_LAYERS and inspect.getattr_static(layers[-1], "optimizer", None) is not None:
        inner = layers[-1].optimizer
        if not hasattr(inner, "param_groups") or any(inner is layer for layer in layers):
            break
        layers.append(inner)
    return layers


def unwrap_optimizer(optimizer: Any) -> Any:
    """Return the innermost optimizer of a wrapper such as Accelerate's, or the optimizer itself.

    Args:
        optimizer: An optimizer, or something that holds one in `.optimizer`.

    Returns:
        The last of its `optimizer_layers`.
    """
    return optimizer_layers(optimizer)[-1]


class _Groups(Optimizer):
    """The parameter groups of a wrapper that is no `torch.optim.Optimizer`, for schedulers, which need one."""

    def __init__(self, wrapper: Any) -> None:
        # Not Optimizer.__init__, which would make new groups.
        self.param_groups = wrapper.param_groups
        self.defaults = getattr(wrapper, "defaults", {})
        self._opt_called = True  # torch warns of schedulers that step before their optimizer; this one never steps


def as_torch_optimizer(optimizer: Any) -> Optimizer:
    """Return an optimizer that a scheduler of torch accepts.

    Args:
        optimizer: An optimizer, or a wrapper around one with the same `param_groups`.

    Returns:
        The optimizer itself, or an object that shares the wrapper's groups.
    """
    return optimizer if isinstance(optimizer, Optimizer) else _Groups(optimizer)


def needs_closure(optimizer: Any) -> bool:
    """Return whether the optimizer's `step` cannot be called without a closure, as that of LBFGS.

    Args:
        optimizer: Any optimizer or wrapper, also one whose `step` a scheduler has wrapped.

    Returns:
        True where `step` of one of its `optimizer_layers` has a required argument `closure`.

    Example:
        >>> import torch
        >>> parameter = [torch.zeros(1, requires_grad=True)]
        >>> needs_closure(torch.optim.LBFGS(parameter)), needs_closure(torch.optim.SGD(parameter))
        (True, False)
    """
    return any(_requires_closure(layer) for layer in optimizer_layers(optimizer))


def has_two_passes(optimizer: Any) -> bool:
    """Return whether the optimizer makes two passes over each batch, as SAM and its relatives.

    Their `step(closure)` expects the gradients of the first pass, and calls the closure for the second one.

    Args:
        optimizer: Any optimizer or wrapper.

    Returns:
        True where one of its `optimizer_layers` has the methods `first_step` and `second_step`.
    """
    names = ("first_step", "second_step")
    return any(all(hasattr(type(layer), name) for name in names) for layer in optimizer_layers(optimizer))


def asks_for_closure(error: Exception) -> bool:
    """Return whether `step()` has raised an error because it got no closure.

    Args:
        error: What `step()` has raised, such as the bare AssertionError of `assert closure is not None`.

    Returns:
        True where the error's name, its message or the line that raised it contains "closure".
    """
    frames = traceback.extract_tb(error.__traceback__)
    line = frames[-1].line if frames else ""
    return "closure" in f"{type(error).__name__} {error} {line}".lower()


def _requires_closure(optimizer: Any) -> bool:
    step = getattr(type(optimizer), "step", None)
    closure = None if step is None else inspect.signature(step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty
