"""Gradients are set aside by reference; frozen parameters are copied or watched."""

import pytest
import torch
from torch import nn

from lrfinder import RestoreError, Snapshot
from tests.fingerprint import bits, bytes_copied
from tests.snapshot.promise import Fault, Watch, check, mlp, trainer


def test_gradients_are_set_aside_by_reference():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer(model, optimizer)()
    model[0].bias.grad = None
    grads = [p.grad for p in model.parameters()]
    before = [None if grad is None else bits(grad) for grad in grads]
    snapshot = Snapshot([model], [optimizer])
    assert all(p.grad is None for p in model.parameters())
    assert bytes_copied(snapshot) <= 8 * sum(t.numel() for t in (*model.parameters(), *model.buffers()))
    trainer(model, optimizer)()
    snapshot.rewind()
    assert all(p.grad is None for p in model.parameters())
    trainer(model, optimizer)()
    snapshot.restore()
    assert all(p.grad is grad for p, grad in zip(model.parameters(), grads, strict=True))
    assert [None if grad is None else bits(grad) for grad in grads] == before


def test_gradients_in_a_shared_buffer_are_copied():
    model = mlp()
    bucket = torch.randn(sum(p.numel() for p in model.parameters()))
    views = bucket.split([p.numel() for p in model.parameters()])
    for p, view in zip(model.parameters(), views, strict=True):
        p.grad = view.view_as(p)
    grads, before = [p.grad for p in model.parameters()], bits(bucket)
    with Snapshot([model]):
        bucket.zero_()
    assert bits(bucket) == before
    assert all(p.grad is grad for p, grad in zip(model.parameters(), grads, strict=True))


def test_gradients_of_a_module_with_bucket_views_are_copied():
    model = nn.Linear(3, 1, bias=False)
    model.gradient_as_bucket_view = True  # as DistributedDataParallel keeps it
    model.weight.grad = torch.ones(1, 3)
    grad = model.weight.grad
    with Snapshot([model]):
        grad.zero_()
    assert model.weight.grad is grad
    assert grad.tolist() == [[1, 1, 1]]


def test_gradients_stay_when_taking_fails():
    class Unkept:
        def state_dict(self):
            raise Fault

        def load_state_dict(self, state):
            raise AssertionError

    model = mlp()
    model[0].bias.grad = grad = torch.ones(8)
    with pytest.raises(Fault):
        Snapshot([model], extra_state=[Unkept()])
    assert model[0].bias.grad is grad


# Frozen parameters


def frozen_model():
    model = nn.Module()
    model.teacher = nn.Linear(4, 4).requires_grad_(False)
    model.student = nn.Linear(4, 4)
    return model


@pytest.mark.parametrize("copied", [True, False])
def test_a_momentum_teacher_is_put_back_or_found_out(copied):
    model = frozen_model()
    optimizer = torch.optim.SGD(model.student.parameters(), lr=0.1)
    before = Watch(model=model)
    snapshot = Snapshot([model], [optimizer], snapshot_frozen=copied)
    snapshot.verify()
    model.teacher.weight.data.mul_(0.9).add_(model.student.weight.data, alpha=0.1)
    model.student.weight.data.zero_()
    if copied:
        snapshot.verify()
        snapshot.restore()
        before.assert_as_before()
    else:
        with pytest.raises(RestoreError, match=r"written to.*: Module\.teacher\.weight\. With .*snapshot_frozen=True"):
            snapshot.verify()
        student = bits(model.student.weight)
        with pytest.raises(RestoreError, match=r"Module\.teacher\.weight\."):
            snapshot.restore()
        assert bits(model.student.weight) != student


@pytest.mark.parametrize("copied", [True, False])
def test_a_frozen_parameter_that_is_stepped(copied):
    model = frozen_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    model.teacher.weight.grad = torch.ones(4, 4)
    grad = model.teacher.weight.grad

    def train():
        model.teacher.weight.grad = grad
        optimizer.step()
        return bits(model.teacher.weight)

    check(model, train, optimizers=[optimizer], snapshot_frozen=copied)


def test_uncopied_frozen_parameters_take_no_memory():
    model = frozen_model()
    optimizer = torch.optim.SGD(model.student.parameters(), lr=0.1)
    with Snapshot([model], [optimizer], snapshot_frozen=False) as snapshot:
        assert bytes_copied(snapshot) == 4 * 20
        model.student.weight.data.zero_()
        model.student.weight.requires_grad_(False)
    assert model.student.weight.requires_grad
    assert model.student.weight.abs().sum() > 0


def test_a_hidden_copy_of_a_trained_parameter_is_not_frozen():
    model = frozen_model()
    model.teacher.weight = nn.Parameter(model.student.weight.detach(), requires_grad=False)
    with Snapshot([model], snapshot_frozen=False):
        model.student.weight.data.zero_()
    assert model.student.weight.abs().sum() > 0
