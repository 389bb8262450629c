"""DDP's reducers in a group of one rank; `tests/distributed` has those of several."""

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lrfinder.distributed.forward_hooks import before_forward
from lrfinder.snapshot.ddp import DDPReducers
from lrfinder.snapshot.error_collector import ErrorCollector


def model_of(**options):
    torch.manual_seed(0)
    layers = [nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1)]
    return DistributedDataParallel(nn.Sequential(*layers), bucket_cap_mb=0.0001, **options)


def train(model, steps=1):
    for _ in range(steps):
        model(torch.ones(2, 8)).sum().backward()


def fail_backward(model):
    def refuse(_gradient):
        raise ValueError("no")

    hook = model.module[2].weight.register_hook(refuse)
    with pytest.raises(ValueError, match="no"):
        train(model)
    hook.remove()


@pytest.mark.parametrize("options", [{}, {"static_graph": True}, {"gradient_as_bucket_view": True}])
@pytest.mark.parametrize("before", [0, 3])
def test_a_backward_pass_that_was_broken_off(group_of_one, options, before):
    model = model_of(**options)
    train(model, before)
    reducers = DDPReducers(model.modules())
    train(model, 2)
    fail_backward(model)
    with pytest.raises(RuntimeError, match="Expected to have finished reduction"):
        model(torch.ones(2, 8))
    reducers.restore(ErrorCollector())
    model.zero_grad()
    train(model, 3)
    gradients = [p.grad.clone() for p in model.parameters()]
    plain = model_of().module
    for _ in range(3):
        plain(torch.ones(2, 8)).sum().backward()
    for gradient, parameter in zip(gradients, plain.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=0, atol=0)


def test_an_unused_reducer_is_built_again_and_a_used_one_is_kept(group_of_one):
    unused, used = model_of(), model_of()
    train(used, 2)
    reducers = DDPReducers([nn.Linear(1, 1), unused, used])
    before = unused.reducer, used.reducer
    train(unused, 2)
    train(used)
    reducers.restore(ErrorCollector())
    assert unused.reducer is not before[0]
    assert not any(unused.reducer.get_backward_stats())
    assert used.reducer is before[1]


def test_the_old_reducer_reduces_no_more(group_of_one):
    calls = []

    def count(state, bucket):
        state.append(bucket.index())
        future = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    model = model_of()
    model.register_comm_hook(calls, count)
    reducers = DDPReducers([model])
    old = model.reducer
    train(model)
    once = len(calls)
    reducers.restore(ErrorCollector())
    train(model)
    assert len(calls) == 2 * once > 0
    assert old is not model.reducer


def test_other_attributes_keep_their_identity(group_of_one):
    model = model_of()
    before = {name: id(value) for name, value in vars(model).items() if name not in {"reducer", "logger"}}
    DDPReducers([model]).restore(ErrorCollector())
    assert {name: id(value) for name, value in vars(model).items() if name not in {"reducer", "logger"}} == before


def test_before_a_forward_pass_that_communicates(group_of_one):
    model, met = model_of(), []
    with before_forward(model, lambda: met.append(1)):
        train(model, 4)  # buckets are rebuilt in the second forward pass, and there are no buffers
    train(model)
    assert len(met) == 2
    assert not model._forward_pre_hooks


def test_a_compiled_model_gets_no_hook(group_of_one):
    model = model_of()
    with before_forward(torch.compile(model, backend="eager"), lambda: None):
        assert not model._forward_pre_hooks
