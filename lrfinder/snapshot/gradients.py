"""Gradients: kept by reference, so that they take no memory twice."""

from collections.abc import Iterable
from functools import partial

from torch import Tensor

from lrfinder.snapshot.error_collector import ErrorCollector
from lrfinder.snapshot.tensor_state import version_of

__all__ = ["Gradients", "NoGradients"]


class Gradients:
    """The gradients of tensors at one moment, by reference.

    Training adds to a gradient in place. `set_aside` therefore removes the gradients from their tensors until they are
    put back: each `.grad` is None, and the memory of the old gradients is not written to.

    Args:
        tensors: Pairs of a name and a tensor.

    Example:
        >>> import torch
        >>> parameter = torch.nn.Parameter(torch.ones(2))
        >>> parameter.grad = torch.ones(2)
        >>> gradients = Gradients([("parameter", parameter)])
        >>> gradients.set_aside()
        >>> parameter.grad is None
        True
        >>> gradients.restore(ErrorCollector())
        >>> parameter.grad
        tensor([1., 1.])
    """

    def __init__(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        self._saved = [(f"{name}.grad", tensor, tensor.grad) for name, tensor in tensors if tensor.is_leaf]
        self._versions: list[int] = []

    def set_aside(self) -> None:
        """Remove the gradients from their tensors."""
        self._versions = [version_of(tensor) for _, tensor, _ in self._saved]
        for _, tensor, _ in self._saved:
            _set(tensor, None)

    def restore(self, errors: ErrorCollector) -> None:
        """Give every tensor the gradient that it had.

        Args:
            errors: Collects what could not be put back.
        """
        for name, tensor, grad in self._saved:
            errors.attempt(name, partial(_set, tensor, grad))

    def clear(self, errors: ErrorCollector) -> None:
        """Leave every tensor without a gradient.

        Args:
            errors: Collects which gradients could not be removed.
        """
        for name, tensor, _ in self._saved:
            errors.attempt(name, partial(_set, tensor, None))

    def restore_if_untouched(self) -> None:
        """Put gradients back that were set aside, but only where the tensor was not written to and has no new one."""
        for (_, tensor, grad), version in zip(self._saved, self._versions, strict=False):
            if grad is not None and tensor.grad is None and version_of(tensor) == version:
                tensor.grad = grad


class NoGradients:
    """The state between two trainings from one snapshot: the gradients are still set aside.

    Args:
        gradients: Those that were set aside.
    """

    def __init__(self, gradients: Gradients) -> None:
        self._gradients = gradients

    def restore(self, errors: ErrorCollector) -> None:
        """Leave every tensor without a gradient.

        Args:
            errors: Collects which gradients could not be removed.
        """
        self._gradients.clear(errors)


def _set(tensor: Tensor, grad: Tensor | None) -> None:
    if tensor.grad is not grad:
        tensor.grad = grad
