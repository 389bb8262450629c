"""Tensors of every dtype, layout and subclass are restored bit for bit."""

import numpy as np
import pytest
import torch
from torch import nn

from lrfinder import ArgumentError, Snapshot
from tests.fingerprint import bits
from tests.snapshot.promise import mlp


def inference_column():
    with torch.inference_mode():
        return torch.randn(50, 3)[:, 1]


KINDS = {
    "bf16": lambda: torch.randn(5).to(torch.bfloat16),
    "float8": lambda: torch.randn(5).to(torch.float8_e4m3fn),
    "complex": lambda: torch.randn(3, dtype=torch.complex64),
    "conjugate": lambda: torch.randn(3, dtype=torch.complex64).conj(),
    "bool": lambda: torch.tensor([True, False]),
    "int8": lambda: torch.arange(7, dtype=torch.int8),
    "empty": lambda: torch.empty(0, 3),
    "no_dimension": lambda: torch.tensor(1.0),
    "transposed": lambda: torch.randn(3, 4).t(),
    "channels_last": lambda: torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "expanded": lambda: torch.randn(1, 3).expand(4, 3),
    "column": lambda: torch.randn(50, 3)[:, 1],
    "inference_column": inference_column,
    "offset": lambda: torch.randn(11)[3:8],
    "from_numpy": lambda: torch.from_numpy(np.arange(5.0)),
    "odd_bytes": lambda: torch.randint(255, (13,), dtype=torch.uint8)[1:],
    "nan_payload": lambda: torch.tensor([0x7FC00001, 0x7F800001, -(2**31), 1], dtype=torch.int32).view(torch.float32),
    "large": lambda: torch.randn(600_000),
    "sparse": lambda: torch.randn(4, 3).relu().to_sparse(),
    "meta": lambda: torch.empty(3, device="meta"),
}


def write(tensor):
    """Change every bit of a tensor's memory."""
    for part in (tensor._indices(), tensor._values()) if tensor.is_sparse else (tensor,):
        storage = part.untyped_storage()
        if part.device.type != "meta":
            torch.empty(0, dtype=torch.uint8).set_(storage, 0, (storage.nbytes(),), (1,)).bitwise_not_()


def look(tensor):
    return tensor.shape if tensor.device.type == "meta" else bits(tensor.resolve_conj())


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_tensors(kind):
    model = nn.Module()
    model.register_buffer("tensor", KINDS[kind]())
    tensor, before = model.tensor, look(model.tensor)
    place, strides = (0, ()) if tensor.is_sparse else (tensor.data_ptr(), tensor.stride())
    with Snapshot([model]) as snapshot:
        for _ in range(2):
            write(model.tensor)
            assert look(model.tensor) != before or tensor.numel() == 0 or kind == "meta"
            snapshot.rewind()
            assert look(tensor) == before
        write(tensor)
        tensor.data = torch.zeros(2).to_sparse() if tensor.is_sparse else torch.zeros(2, device=tensor.device)
    assert model.tensor is tensor
    assert look(tensor) == before
    if not tensor.is_sparse:
        assert (tensor.data_ptr(), tensor.stride()) == (place, strides)


@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta")
@pytest.mark.parametrize("layout", ["csr", "csc", "bsr", "bsc"])
def test_compressed_sparse_tensors(layout):
    dense = torch.randn(4, 4)
    model = nn.Module()
    model.matrix = getattr(dense, f"to_sparse_{layout}")(*(((2, 2),) if layout[0] == "b" else ()))
    matrix = model.matrix
    with Snapshot([model]):
        matrix.values().zero_()
    assert model.matrix is matrix
    assert bits(matrix.to_dense()) == bits(dense)


class Wrapped(torch.Tensor):
    """A tensor that holds its data in another, as a DTensor does its shard."""

    @staticmethod
    def __new__(cls, local):
        return torch.Tensor._make_wrapper_subclass(cls, local.shape, dtype=local.dtype, requires_grad=False)

    def __init__(self, local):
        self.local = local

    def __tensor_flatten__(self):
        return ["local"], None

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.detach.default:
            return cls(args[0].local.detach())
        raise AssertionError(f"a snapshot does not compute with wrappers: {function}")


def test_wrapper_subclasses_are_captured_by_what_they_hold():
    model = nn.Module()
    local = torch.randn(5)
    model.weight = nn.Parameter(Wrapped(local), requires_grad=False)
    weight, inner = model.weight, model.weight.local
    optimizer = torch.optim.SGD([weight], lr=0.1)
    before = bits(inner)
    with Snapshot([model], [optimizer]):
        weight.local.zero_()
        weight.local = torch.ones(5)
    assert model.weight is weight
    assert weight.local is inner
    assert bits(inner) == before


def test_a_subclass_with_torch_function():
    class Loud(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            raise AssertionError("a snapshot must not call it")

    model = nn.Module()
    with torch._C.DisableTorchFunctionSubclass():
        model.loud = torch.randn(3).as_subclass(Loud)
        before = model.loud.detach().tolist()
    with Snapshot([model]), torch._C.DisableTorchFunctionSubclass():
        model.loud.zero_()
    with torch._C.DisableTorchFunctionSubclass():
        assert model.loud.detach().tolist() == before
        assert type(model.loud) is Loud


def test_a_freed_storage_is_allocated_again():
    model = mlp()
    # bits of a clone, since a storage that NumPy has seen cannot be resized
    before, size = bits(model[0].weight.clone()), model[0].weight.untyped_storage().nbytes()
    with Snapshot([model]):
        model[0].weight.untyped_storage().resize_(0)
    assert model[0].weight.untyped_storage().nbytes() == size
    assert bits(model[0].weight) == before


def test_lazy_modules_are_refused_before_anything_is_touched():
    model = nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(3))
    model[0].weight.grad = torch.ones(2, 2)
    grad = model[0].weight.grad
    with pytest.raises(ArgumentError, match=r"`model` must be initialised, got the lazy .*Run one batch"):
        Snapshot([model])
    assert model[0].weight.grad is grad
