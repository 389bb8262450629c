"""What a tensor object is besides its bits: the storage it points to, the tensors it wraps, and its flags."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from lrfinder.errors import ArgumentError
from lrfinder.snapshot.error_collector import ErrorCollector

__all__ = ["TensorState", "TensorStates", "version_of"]

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

    __slots__ = ("_alias", "_inner", "_is_leaf", "_requires_grad", "name", "parts", "tensor")

    def __init__(self, name: str, tensor: Tensor) -> None:
        if is_lazy(tensor):
            raise ArgumentError(
                f"`model` must be initialised, got the lazy tensor {name} without a shape. Run one batch through the "
                "model first."
            )
        self.name = name
        self.tensor = tensor
        self._requires_grad = tensor.requires_grad
        self._is_leaf = tensor.is_leaf
        self._alias: Tensor | None = None
        self.parts: list[Tensor] = []
        self._inner = {key: TensorState(name, inner) for key, inner in _wrapped(tensor).items()}
        if self._inner:
            self.parts = [part for state in self._inner.values() for part in state.parts]
        else:
            self._alias = tensor.detach()
            self.parts = _plain_parts(self._alias)

    def restore(self) -> None:
        """Let the tensor point to the memory that it had, and put `requires_grad` back."""
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


class TensorStates(list[TensorState]):
    """The states of many tensor objects.

    Args:
        tensors: Pairs of a name and a tensor.
    """

    def __init__(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        super().__init__(TensorState(name, tensor) for name, tensor in tensors)

    def restore(self, errors: ErrorCollector) -> None:
        """Put every tensor object back; their bits are not written.

        Args:
            errors: Collects what could not be put back.
        """
        for state in self:
            errors.attempt(state.name, state.restore)


def version_of(tensor: Tensor) -> int:
    """Return a number that grows with most writes to a tensor, not with those through `.data` or fused steps.

    Args:
        tensor: Any tensor; an inference tensor has no such number.
    """
    return 0 if tensor.is_inference() else tensor._version


def _wrapped(tensor: Tensor) -> dict[str, Tensor]:
    """Return the tensors in a wrapper subclass by attribute name, as its `__tensor_flatten__` names them."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    held = {key: getattr(tensor, key) for key in flatten()[0]} if flatten else {}
    return {key: value for key, value in held.items() if isinstance(value, Tensor)}  # a DTensor also lists its mesh


def _plain_parts(tensor: Tensor) -> list[Tensor]:
    """Return the strided tensors that hold a tensor's bits."""
    return [getattr(tensor, key)() for key in _COMPONENTS.get(tensor.layout, ())] or [tensor]


def _has_moved(tensor: Tensor, alias: Tensor) -> bool:
    """Return whether a tensor no longer points to its memory, or no longer has its shape."""
    if tensor.layout != torch.strided or alias.layout != torch.strided:
        return tensor.layout in _COMPONENTS
    return (
        tensor.dtype != alias.dtype
        or tensor.device != alias.device
        or tensor.shape != alias.shape
        or tensor.stride() != alias.stride()
        or tensor.data_ptr() != alias.data_ptr()
    )
