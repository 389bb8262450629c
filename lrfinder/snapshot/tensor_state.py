"""What a tensor object is beside its bits: the storage it points to, the tensors it wraps, its flags and gradient."""

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from lrfinder.errors import ArgumentError

__all__ = ["TensorState"]

_COMPONENTS = {
    torch.sparse_csr: ("crow_indices", "col_indices", "values"),
    torch.sparse_bsr: ("crow_indices", "col_indices", "values"),
    torch.sparse_csc: ("ccol_indices", "row_indices", "values"),
    torch.sparse_bsc: ("ccol_indices", "row_indices", "values"),
    torch.sparse_coo: ("_indices", "_values"),
}


class TensorState:
    """A tensor object with what it pointed to.

    The bits are not kept here: `parts` are the plain tensors whose memory holds them.

    Args:
        name: What messages call the tensor.
        tensor: Any tensor: plain, sparse, or a subclass that wraps others (a DTensor's local shard).

    Raises:
        ArgumentError: The tensor is an uninitialised lazy parameter or buffer.
    """

    __slots__ = ("_alias", "_inner", "_is_leaf", "_requires_grad", "grad", "name", "parts", "tensor")

    def __init__(self, name: str, tensor: Tensor) -> None:
        """Note what the tensor points to."""  # noqa: DOC501 - the class says it
        if is_lazy(tensor):
            raise ArgumentError(
                f"`model` must be initialised, got the lazy tensor {name} without a shape. Run one batch through the "
                "model first."
            )
        self.name = name
        self.tensor = tensor
        self.grad: Tensor | None = None
        self._requires_grad = tensor.requires_grad
        self._is_leaf = tensor.is_leaf
        self._alias: Tensor | None = None
        self._inner = {key: TensorState(name, inner) for key, inner in _wrapped(tensor).items()}
        self.parts: list[Tensor] = []
        if self._inner:
            self.parts = [part for state in self._inner.values() for part in state.parts]
        else:
            self._alias = tensor.detach()
            self.parts = _plain_parts(self._alias)

    def set_grad_aside(self) -> None:
        """Keep the gradient by reference and leave the tensor without one."""
        if self._is_leaf:
            self.grad = self.tensor.grad
            self.clear_grad()

    def clear_grad(self) -> None:
        """Leave the tensor without a gradient."""
        if self._is_leaf and self.tensor.grad is not None:
            self.tensor.grad = None

    def put_grad_back(self) -> None:
        """Give the tensor the gradient back that was set aside."""
        if self._is_leaf and self.tensor.grad is not self.grad:
            self.tensor.grad = self.grad

    def restore(self) -> None:
        """Point the tensor to the memory that it had, and put its flag back."""
        tensor = self.tensor
        for key, state in self._inner.items():
            if getattr(tensor, key) is not state.tensor:
                setattr(tensor, key, state.tensor)
            state.restore()
        if self._is_leaf and not tensor.is_leaf:
            tensor.detach_()  # a buffer that was updated in place with gradients
        if self._alias is not None and _has_moved(tensor, self._alias):
            tensor.data = self._alias
        if self._is_leaf and tensor.requires_grad != self._requires_grad:
            tensor.requires_grad_(self._requires_grad)


def _wrapped(tensor: Tensor) -> dict[str, Tensor]:
    """Return the tensors in a wrapper subclass, by attribute; its protocol names them, so no class is imported."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    held = {key: getattr(tensor, key) for key in flatten()[0]} if flatten else {}
    return {key: value for key, value in held.items() if isinstance(value, Tensor)}  # a DTensor lists its mesh too


def _plain_parts(tensor: Tensor) -> list[Tensor]:
    """Return the strided tensors that hold a tensor's bits."""
    return [getattr(tensor, key)() for key in _COMPONENTS.get(tensor.layout, ())] or [tensor]


def _has_moved(tensor: Tensor, alias: Tensor) -> bool:
    """Return whether a tensor no longer points to the memory, or has no longer the shape, that it had."""
    if tensor.layout != torch.strided or alias.layout != torch.strided:
        return tensor.layout in _COMPONENTS
    return (
        tensor.dtype != alias.dtype
        or tensor.device != alias.device
        or tensor.shape != alias.shape
        or tensor.stride() != alias.stride()
        or tensor.data_ptr() != alias.data_ptr()
    )
