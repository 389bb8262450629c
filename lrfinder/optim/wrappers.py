"""Optimizers inside wrappers, and optimizers that need a closure."""

import inspect
from typing import Any

__all__ = ["needs_closure", "unwrap_optimizer"]


def unwrap_optimizer(optimizer: Any) -> Any:
    """Return the optimizer inside of a wrapper such as Accelerate's, or the optimizer itself.

    Args:
        optimizer: An optimizer, or something that holds one in `.optimizer`.

    Returns:
        The innermost optimizer.
    """
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


def needs_closure(optimizer: Any) -> bool:
    """Tell whether the optimizer's `step` insists on a closure, as LBFGS does.

    Args:
        optimizer: Any optimizer, also one whose `step` a scheduler has wrapped.

    Returns:
        True where `step` cannot be called without an argument.

    Example:
        >>> import torch
        >>> parameter = [torch.zeros(1, requires_grad=True)]
        >>> needs_closure(torch.optim.LBFGS(parameter)), needs_closure(torch.optim.SGD(parameter))
        (True, False)
    """
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty
