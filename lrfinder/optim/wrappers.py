"""Optimizers inside wrappers, and optimizers that need a closure."""

import inspect
from typing import Any

__all__ = ["needs_closure", "optimizer_layers", "unwrap_optimizer"]

MOST_LAYERS = 20  # a chain of wrappers that is longer makes a new wrapper at each access


def optimizer_layers(optimizer: Any) -> list[Any]:
    """Return a wrapper, the optimizer in its `.optimizer`, the one inside that, and so on.

    The walk ends at an object that has no `.optimizer`, at one whose `.optimizer` is no optimizer, and where it comes
    back to an object that it has met. An attribute that a `__getattr__` makes up, as `unittest.mock.Mock` does, does
    not count.

    Args:
        optimizer: An optimizer, or a wrapper such as Accelerate's.

    Returns:
        The layers, outermost first; only the object itself where it wraps nothing.
    """
    layers = [optimizer]
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


def _requires_closure(optimizer: Any) -> bool:
    step = getattr(type(optimizer), "step", None)
    closure = None if step is None else inspect.signature(step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty
