import pytest
import torch

from lrfinder.errors import ArgumentError
from lrfinder.optim.lr_writer import LRWriter
from tests.optim.groups import Wrapper, parameters, sgd


def test_the_writer_keeps_the_ratios_that_it_found():
    optimizer = sgd((3, 0.1), (5, 0.2))
    writer = LRWriter(optimizer)
    for lr in (1e-6, 1.0, 0.0, 0.5):
        writer.write(lr)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([lr / 2, lr])


def test_wrappers_work():
    inner = sgd((3, 0.1), (5, 0.2))
    LRWriter(Wrapper(inner)).write(1.0)
    assert [group["lr"] for group in inner.param_groups] == [0.5, 1.0]


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("tensor", [False, True])
@pytest.mark.parametrize("wrap", [lambda optimizer: optimizer, Wrapper], ids=["plain", "wrapped"])
def test_asgd_steps_at_the_lr_just_written(foreach, tensor, wrap):
    [parameter] = parameters(4)
    lr = torch.tensor(0.1) if tensor else 0.1
    optimizer = torch.optim.ASGD([parameter], lr=lr, lambd=0.0, foreach=foreach)
    writer = LRWriter(wrap(optimizer))
    for lr in (0.5, 0.001, 0.25):
        parameter.grad = torch.tensor([1.0, -2.0, 3.0, 0.5])
        before = parameter.detach().clone()
        writer.write(lr)
        optimizer.step()
        torch.testing.assert_close(parameter.detach(), before - lr * parameter.grad)


def test_writing_inserts_no_state_for_asgd():
    optimizer = torch.optim.ASGD(parameters(4), lr=0.1)
    LRWriter(optimizer).write(0.2)
    assert len(optimizer.state) == 0


def test_two_hundred_groups_cost_no_torch_operation():
    optimizer = sgd(*[(1, 0.1 * (index + 1)) for index in range(200)])
    writer = LRWriter(optimizer)

    class Refuse(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            raise AssertionError(f"{func} was called")

    with Refuse():
        writer.write(0.7)
    lrs = [group["lr"] for group in optimizer.param_groups]
    assert lrs == pytest.approx([0.7 * (index + 1) for index in range(200)])


class Copying(Wrapper):
    """Shows copies of the groups, as fastai's OptimWrapper."""

    @property
    def param_groups(self):
        return [dict(group) for group in self.optimizer.param_groups]


def test_groups_that_are_new_at_each_access_are_refused():
    inner = sgd((3, 0.1), (5, 0.2))
    with pytest.raises(ArgumentError, match=r"keep what is written .* Copying, which makes new .*find_lr\(learn"):
        LRWriter(Copying(inner))
    assert [group["lr"] for group in inner.param_groups] == [0.1, 0.2]


@pytest.mark.parametrize("lr", [0.0, 0.1, 2.0, torch.tensor(0.1)])
def test_finding_out_whether_writes_last_changes_nothing(lr):
    optimizer = torch.optim.SGD(parameters(3), lr=0.1)
    optimizer.param_groups[0]["lr"] = lr
    LRWriter(optimizer)
    assert optimizer.param_groups[0]["lr"] is lr


def test_the_users_lr_is_the_peak_where_one_cycle_is_attached():
    optimizer = sgd((3, 0.01))
    assert LRWriter(optimizer).peak_lrs == [0.01]
    torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.5, total_steps=10)
    writer = LRWriter(optimizer)
    assert (writer.initial_lrs, writer.peak_lrs) == ([0.02], [0.5])
