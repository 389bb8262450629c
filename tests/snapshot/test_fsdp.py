"""FSDP2's state in a group of one rank; `tests/distributed` has those of several."""

import pytest
import torch
from torch import nn

from lrfinder import ArgumentError, LRFinder, RestoreError
from lrfinder.snapshot.error_collector import ErrorCollector
from lrfinder.snapshot.fsdp import FSDPPasses, _groups, is_sharded, reshard

pytestmark = pytest.mark.skipif(torch.__version__ < "2.7", reason="FSDP2 of torch 2.6 does not run on the CPU")


@pytest.fixture
def model(group_of_one):
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
    fully_shard(net[0])
    return fully_shard(net)


def end_passes(model):
    errors = ErrorCollector()
    FSDPPasses(model.modules()).restore(errors)
    errors.raise_if_any()


def test_sharded_or_not(model):
    assert is_sharded(model.modules())
    assert not is_sharded(nn.Linear(1, 1).modules())


def test_full_weights_are_freed(model):
    shards = list(model.parameters())
    with torch.no_grad():
        model(torch.ones(2, 4))
    assert any(now is not shard for now, shard in zip(model.parameters(), shards, strict=True))
    reshard(model.modules())
    assert all(now is shard for now, shard in zip(model.parameters(), shards, strict=True))


def test_a_pass_that_was_broken_off_leaves_no_gradient(model):
    def refuse(_gradient):
        raise ValueError("no")

    model(torch.ones(2, 4)).sum().backward()
    wanted = [p.grad.to_local().clone() for p in model.parameters()]
    model.zero_grad()
    outputs = model[1].register_forward_hook(lambda module, inputs, output: output.register_hook(refuse) and None)
    with pytest.raises(ValueError, match="no"):
        model(torch.ones(2, 4)).sum().backward()
    outputs.remove()
    end_passes(model)
    model(torch.ones(2, 4)).sum().backward()
    for parameter, gradient in zip(model.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad.to_local(), gradient, rtol=0, atol=0)


def test_a_model_that_has_not_run_is_left_alone(model):
    end_passes(model)
    assert model._get_fsdp_state()._is_root is None


def test_gradients_under_way_are_refused(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.set_requires_gradient_sync(False)
    model(torch.ones(2, 4)).sum().backward()
    with pytest.raises(ArgumentError, match="finish the accumulation first"):
        LRFinder(model, optimizer, nn.MSELoss())


def test_a_torch_that_keeps_its_state_elsewhere(model):
    model(torch.ones(2, 4)).sum().backward()
    del _groups(model._get_fsdp_state())[0]._post_forward_indices
    with pytest.raises(RestoreError, match=r"FSDP2 of torch .* keeps the state of a pass where LRFinder does not know"):
        end_passes(model)
