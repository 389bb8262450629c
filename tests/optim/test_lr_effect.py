import pytest
import torch
from torch import nn

from lrfinder.optim.lr_effect import MOST_ELEMENTS, MOST_GROUPS, MOST_TENSORS, LREffect

LRS = [10 ** (exponent / 4) for exponent in range(-24, 1)]  # 1e-6 to 1


class Descent:
    """Plain gradient descent whose step size is any function of the written lr and the number of steps taken."""

    def __init__(self, size_of, *sizes, **options):
        parameters = [nn.Parameter(torch.ones(size, **options)) for size in sizes or (5,)]
        self.param_groups = [{"params": [parameter], "lr": 0.0} for parameter in parameters]
        self._size_of, self._steps = size_of, 0

    @torch.no_grad()
    def step(self):
        for index, group in enumerate(self.param_groups):
            for parameter in group["params"]:
                size = self._size_of(group["lr"], self._steps, index)
                parameter -= size * (1 + 0.5 * torch.rand_like(parameter))
        self._steps += 1


def sweep(optimizer, lrs=LRS, effect=None):
    effect = LREffect(optimizer) if effect is None else effect
    for lr in lrs:
        for group in optimizer.param_groups:
            group["lr"] = lr
        effect.before_step(lr)
        optimizer.step()
    return effect


def test_steps_in_proportion_to_the_lr_have_an_effect():
    effect = sweep(Descent(lambda lr, step, group: lr))
    assert effect.suspects() == []
    assert effect.any_moved()


def test_steps_of_a_constant_size_have_none():
    assert sweep(Descent(lambda lr, step, group: 0.01)).suspects() == [0]


def test_a_step_size_that_falls_by_itself_does_not_hide_the_effect():
    """Adagrad's falls with the square root of the number of steps."""
    assert sweep(Descent(lambda lr, step, group: lr / (1 + step) ** 0.5)).suspects() == []


def test_a_step_size_that_rises_by_itself_is_not_taken_for_an_effect():
    assert sweep(Descent(lambda lr, step, group: 1e-3 * (1 + step) ** 0.5)).suspects() == [0]


def test_an_effect_that_ends_at_a_cap_is_one():
    assert sweep(Descent(lambda lr, step, group: min(lr, 1e-4))).suspects() == []


def test_an_effect_that_begins_late_is_one():
    assert sweep(Descent(lambda lr, step, group: max(lr, 1e-3))).suspects() == []


def test_first_steps_that_move_nothing_prove_nothing():
    assert sweep(Descent(lambda lr, step, group: lr if step > 10 else 0.0)).suspects() == []


def test_a_loss_that_explodes_at_the_end_does_not_hide_that_there_is_none():
    optimizer = Descent(lambda lr, step, group: float("nan") if step > 20 else 0.01)
    assert sweep(optimizer).suspects() == [0]


def test_each_group_is_judged():
    optimizer = Descent(lambda lr, step, group: lr if group == 0 else 0.01, 5, 5, 7)
    assert sweep(optimizer).suspects() == [1, 2]


def test_half_precision_rounds_small_steps_away():
    assert sweep(Descent(lambda lr, step, group: lr, dtype=torch.bfloat16)).suspects() == []


@pytest.mark.parametrize("lrs", [LRS[:3], [0.1], [1e-3, 0.02], []])
def test_a_short_range_proves_nothing(lrs):
    effect = sweep(Descent(lambda lr, step, group: 0.01), lrs)
    assert effect.suspects() == []
    assert effect.any_moved()


def test_nothing_moved():
    assert not sweep(Descent(lambda lr, step, group: 0.0)).any_moved()


def test_restoring_between_two_sweeps_does_not_count_as_a_step():
    """The last step of the first sweep is measured by nothing: the parameters have been put back since."""
    optimizer = Descent(lambda lr, step, group: lr)
    parameter = optimizer.param_groups[0]["params"][0]
    effect = LREffect(optimizer)
    for _ in range(2):
        with torch.no_grad():
            parameter.fill_(1.0)
        sweep(optimizer, [1e-4, 1e-2, 1.0], effect)
    sizes = [float(moves.norm()) / lr for lr, moves in effect._steps]
    assert len(sizes) == 2
    assert sizes == pytest.approx([3.0, 3.0], rel=0.3)  # about 1.25 times the root of five


def test_frozen_and_unusual_parameters_are_passed_over():
    parameters = [
        nn.Parameter(torch.ones(3), requires_grad=False),
        nn.Parameter(torch.ones(0)),
        nn.Parameter(torch.ones(4, 3).t()),
        nn.Parameter(torch.ones(3, device="meta")),
    ]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    effect = sweep(optimizer)
    assert effect.suspects() == []
    assert effect.any_moved()


def test_the_sample_of_a_large_model_is_small():
    groups = [{"params": [nn.Parameter(torch.ones(300, 100)) for _ in range(9)]} for _ in range(20)]
    effect = LREffect(torch.optim.SGD(groups, lr=0.1))
    assert len(effect._counts) <= MOST_GROUPS
    assert max(effect._counts) <= MOST_TENSORS
    assert max(tensor.numel() for tensor in effect._sample) <= MOST_ELEMENTS
    parameters = {p.untyped_storage().data_ptr() for group in groups for p in group["params"]}
    assert {tensor.untyped_storage().data_ptr() for tensor in effect._sample} <= parameters, "a copy"


def test_nothing_is_read_from_the_device_during_the_sweep():
    class Refuse(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            assert "_local_scalar_dense" not in str(func)
            return func(*args, **(kwargs or {}))

    optimizer = Descent(lambda lr, step, group: lr)
    with Refuse():
        sweep(optimizer)


def test_an_optimizer_that_needs_a_closure_is_not_judged():
    class Searching(Descent):
        def step(self, closure):
            super().step()

    optimizer = Searching(lambda lr, step, group: 0.01)
    effect = LREffect(optimizer)
    for lr in LRS:
        effect.before_step(lr)
        optimizer.step(None)
    assert effect.suspects() == []
    assert effect.any_moved()
