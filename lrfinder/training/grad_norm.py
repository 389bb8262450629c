"""The norm of all gradients together."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

__all__ = ["full_norm", "total_grad_norm"]


def total_grad_norm(parameters: Iterable[Tensor]) -> Tensor:
    """Return the 2-norm of the gradients of all parameters, seen as one vector.

    Nothing is read by the host. Sparse gradients count with their summed values.

    Args:
        parameters: The parameters; those without a gradient count as zero.

    Returns:
        A scalar on the device of the first gradient; under FSDP2 the norm over all shards.

    Example:
        >>> weight = torch.zeros(2, requires_grad=True)
        >>> (3 * weight[0] + 4 * weight[1]).backward()
        >>> total_grad_norm([weight])
        tensor(5.)
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    dense = [grad.coalesce().values() if grad.is_sparse else grad for grad in gradients]
    return full_norm(get_total_norm(dense))


def full_norm(norm: Tensor) -> Tensor:
    """Return a norm as a plain tensor, over all shards where it is a DTensor.

    Args:
        norm: What torch's norm functions return.

    Returns:
        A scalar, detached.
    """
    full = getattr(norm, "full_tensor", None)  # of a DTensor, whose class takes most of a second to import
    norm = norm if full is None else full()
    return norm.detach() if isinstance(norm, Tensor) else torch.tensor(norm)
