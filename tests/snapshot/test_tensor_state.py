"""Tensor objects point again to what they pointed to, and have their gradients again."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from lrfinder import ArgumentError, Snapshot
from lrfinder.snapshot.error_collector import ErrorCollector
from lrfinder.snapshot.gradients import Gradients
from lrfinder.snapshot.tensor_state import TensorState
from tests.fingerprint import bits


def test_moved_data_flags_and_gradients():
    parameter = nn.Parameter(torch.randn(3))
    parameter.grad = grad = torch.ones(3)
    place = parameter.data_ptr()
    state, gradients = TensorState("parameter", parameter), Gradients([("parameter", parameter)])
    gradients.set_aside()
    assert parameter.grad is None
    for data in (torch.zeros(3), torch.zeros(5), torch.zeros(3, dtype=torch.float64), torch.zeros(6)[::2]):
        parameter.data = data
        parameter.grad = torch.zeros_like(parameter)
        parameter.requires_grad_(False)
        state.restore()
        gradients.clear(ErrorCollector())
        assert (parameter.data_ptr(), parameter.shape, parameter.dtype) == (place, (3,), torch.float32)
        assert parameter.stride() == (1,)
        assert parameter.requires_grad
        assert parameter.grad is None
    gradients.restore(ErrorCollector())
    assert parameter.grad is grad


def test_gradients_come_back_only_where_nothing_was_trained():
    first, second, third = parameters = [nn.Parameter(torch.ones(2)) for _ in range(3)]
    grads = [torch.full((2,), float(n)) for n in range(3)]
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = grad
    gradients = Gradients(("parameter", parameter) for parameter in parameters)
    gradients.set_aside()
    second.grad = new = torch.ones(2)
    with torch.no_grad():
        third.add_(1)
    gradients.restore_if_untouched()
    assert first.grad is grads[0]
    assert second.grad is new
    assert third.grad is None


@pytest.mark.parametrize("spoil", [torch.Tensor.t_, lambda t: t.resize_(1), lambda t: t.unsqueeze_(0)])
def test_shapes_changed_in_place(spoil):
    tensor = torch.arange(6.0).view(2, 3)
    state = TensorState("tensor", tensor)
    spoil(tensor)
    state.restore()
    assert tensor.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_tensor_with_a_history_keeps_it():
    leaf = nn.Parameter(torch.ones(2))
    tensor = leaf * 2
    state = TensorState("tensor", tensor)
    Gradients([("tensor", tensor)]).set_aside()
    state.restore()
    tensor.sum().backward()
    assert leaf.grad.tolist() == [2, 2]


def test_parts_of_sparse_tensors():
    state = TensorState("tensor", torch.eye(3).to_sparse())
    assert [part.shape for part in state.parts] == [(2, 3), (3,)]


def test_lazy_tensors_are_refused():
    with pytest.raises(ArgumentError, match=r"got the lazy tensor LazyLinear\.weight without a shape"):
        TensorState("LazyLinear.weight", nn.LazyLinear(2).weight)


def test_shards():
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard, distribute_tensor

    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    try:
        model = nn.Linear(4, 4, bias=False)
        model.weight = nn.Parameter(distribute_tensor(model.weight.data, init_device_mesh("cpu", (1,)), [Shard(0)]))
        optimizer = torch.optim.Adam(model.parameters(), foreach=False)
        weight, local = model.weight, model.weight._local_tensor
        before = bits(local)
        with Snapshot([model], [optimizer]):
            weight.grad = DTensor.from_local(torch.ones(4, 4), weight.device_mesh, weight.placements)
            optimizer.step()
            assert bits(local) != before
            weight._local_tensor = torch.zeros(4, 4)
        assert model.weight is weight
        assert weight._local_tensor is local
        assert bits(local) == before
        assert weight.grad is None
        assert not optimizer.state
    finally:
        dist.destroy_process_group()
