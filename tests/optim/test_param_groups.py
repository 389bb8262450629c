import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lrfinder.errors import ArgumentError
from lrfinder.optim.param_groups import (
    base_lrs,
    group_lrs,
    group_momentum,
    group_ratios,
    largest_group,
    separate_lrs,
    set_group_lrs,
)
from lrfinder.optim.schedulers import make_scheduler
from tests.optim.groups import parameters, sgd


def test_the_largest_group_has_the_most_elements_not_the_most_parameters():
    groups = [{"params": parameters(2, 2, 2, 2)}, {"params": parameters(9)}, {"params": parameters(8)}]
    assert largest_group(torch.optim.SGD(groups, lr=0.1)) == 1


def test_the_first_of_equally_large_groups_is_the_largest():
    assert largest_group(sgd((3, 0.1), (5, 0.2), (5, 0.3))) == 1


def test_ratios_come_from_the_lrs():
    assert group_ratios(sgd((3, 0.1), (5, 0.2), (1, 0.05))) == pytest.approx([0.5, 1.0, 0.25])


def test_ratios_come_from_initial_lr_where_a_scheduler_left_one():
    optimizer = sgd((3, 0.1), (5, 0.2))
    torch.optim.lr_scheduler.LambdaLR(optimizer, [lambda k: 1.0, lambda k: 0.01])
    assert optimizer.param_groups[1]["lr"] == pytest.approx(0.002)
    assert group_ratios(optimizer) == pytest.approx([0.5, 1.0])


def test_a_warmup_from_zero_keeps_the_group_ratios():
    optimizer = sgd((3, 0.1), (5, 0.2))
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: k / 10)
    assert [group["lr"] for group in optimizer.param_groups] == [0.0, 0.0]
    assert group_ratios(optimizer) == pytest.approx([0.5, 1.0])


def test_a_largest_group_with_lr_zero_passes_the_role_to_the_next():
    optimizer = sgd((9, 0.0), (2, 0.1), (4, 0.4))
    assert largest_group(optimizer) == 2
    assert group_ratios(optimizer) == pytest.approx([0.0, 0.25, 1.0])


def test_groups_whose_lrs_are_all_zero_are_equal():
    optimizer = sgd((9, 0.0), (2, 0.0))
    assert largest_group(optimizer) == 0
    assert group_ratios(optimizer) == [1.0, 1.0]


def test_tensor_lrs_are_read():
    optimizer = torch.optim.Adam(
        [{"params": parameters(9), "lr": torch.tensor(0.5)}, {"params": parameters(2), "lr": torch.tensor(0.25)}]
    )
    assert group_ratios(optimizer) == [1.0, 0.5]


def with_frozen(body_lr, head_lr):
    """Return an optimizer of a large, frozen body and a small head."""
    optimizer = sgd((90, body_lr), (4, head_lr))
    optimizer.param_groups[0]["params"][0].requires_grad_(False)
    return optimizer


def test_frozen_parameters_do_not_count():
    optimizer = with_frozen(1e-5, 1e-3)
    assert largest_group(optimizer) == 1
    assert group_ratios(optimizer) == pytest.approx([1e-2, 1.0])


def test_a_frozen_group_does_not_lead_where_the_trainable_ones_have_lr_zero():
    optimizer = with_frozen(1e-5, 0.0)
    assert largest_group(optimizer) == 1
    assert group_ratios(optimizer) == [1.0, 1.0]


def test_frozen_groups_count_where_all_are_frozen():
    optimizer = with_frozen(1e-5, 1e-3)
    optimizer.param_groups[1]["params"][0].requires_grad_(False)
    assert largest_group(optimizer) == 0


@pytest.mark.parametrize("group", [{"lr": None}, {}, {"lr": None, "initial_lr": 0.1}, {"initial_lr": 0.1}], ids=str)
def test_an_lr_that_is_missing_is_refused_with_the_remedy(group):
    optimizer = sgd((9, 0.1), (2, 0.1))
    optimizer.param_groups[1] = {"params": optimizer.param_groups[1]["params"], **group}
    with pytest.raises(ArgumentError, match=r"groups\[1\] must hold a learning rate, got lr=None; .*relative_step"):
        group_ratios(optimizer)


def test_an_initial_lr_of_none_is_passed_over():
    optimizer = sgd((9, 0.1), (2, 0.2))
    optimizer.param_groups[1]["initial_lr"] = None
    assert base_lrs(optimizer) == [0.1, 0.2]


# `lr_scale`, a factor that schedulers of timm and others multiply the lr by


def scaled(*lrs):
    optimizer = sgd(*((size, lr) for size, lr in zip((9, 2, 4), lrs, strict=True)))
    for group, scale in zip(optimizer.param_groups, (0.25, 1.0, 0.5), strict=True):
        group["lr_scale"] = scale
    return optimizer


def test_lr_scale_multiplies_the_swept_lr():
    optimizer = scaled(0.1, 0.1, 0.1)
    assert base_lrs(optimizer) == [0.1, 0.1, 0.1]
    set_group_lrs(optimizer, group_lrs(optimizer, 0.8))
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.2, 0.8, 0.4])


def test_lrs_that_lr_scale_has_multiplied_already_are_not_multiplied_twice():
    optimizer = scaled(0.025, 0.1, 0.05)
    assert base_lrs(optimizer) == pytest.approx([0.1, 0.1, 0.1])
    assert group_ratios(optimizer) == pytest.approx([0.25, 1.0, 0.5])


def test_initial_lr_is_the_lr_before_lr_scale():
    """timm's schedulers keep it so."""
    optimizer = scaled(0.025, 0.1, 0.05)
    for group in optimizer.param_groups:
        group["initial_lr"] = 0.1
    assert group_ratios(optimizer) == pytest.approx([0.25, 1.0, 0.5])


def test_a_scheduler_at_the_swept_lrs_does_not_scale_the_next_sweep_twice():
    optimizer = scaled(0.1, 0.1, 0.1)
    make_scheduler(optimizer, "constant", 0.8)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.2, 0.8, 0.4])
    assert base_lrs(optimizer) == pytest.approx([0.8, 0.8, 0.8])


def test_lr_scale_comes_on_top_of_different_lrs():
    assert group_ratios(scaled(0.2, 0.1, 0.1)) == pytest.approx([0.25, 0.5, 0.25])


@pytest.mark.parametrize("lr", [math.nan, math.inf, -0.1])
def test_a_base_lr_that_is_negative_or_not_finite_is_refused(lr):
    optimizer = sgd((9, 0.1), (2, 0.1))
    optimizer.param_groups[1]["lr"] = lr
    with pytest.raises(ArgumentError, match=rf"param_groups\[1\] must have a finite, non-negative .* got lr={lr}; set"):
        group_ratios(optimizer)


@settings(max_examples=50, deadline=None)
@given(
    lrs=st.lists(st.floats(1e-8, 1e3), min_size=1, max_size=6),
    sizes=st.lists(st.integers(1, 20), min_size=6, max_size=6),
    lr=st.floats(1e-8, 1e3),
)
def test_the_largest_group_gets_the_lr_and_every_pair_of_groups_keeps_its_quotient(lrs, sizes, lr):
    optimizer = sgd(*zip(sizes, lrs, strict=False))
    new = group_lrs(optimizer, lr)
    assert new[largest_group(optimizer)] == pytest.approx(lr)
    for old_a, new_a in zip(lrs, new, strict=True):
        for old_b, new_b in zip(lrs, new, strict=True):
            assert new_a * old_b == pytest.approx(new_b * old_a, rel=1e-9)


def test_group_lrs_takes_ratios_as_well():
    assert group_lrs([1.0, 0.5], 0.2) == [0.2, 0.1]


def test_floats_are_replaced_and_nothing_else_changes():
    optimizer = sgd((3, 0.1), (5, 0.2), momentum=0.9)
    before = [dict(group) for group in optimizer.param_groups]
    set_group_lrs(optimizer, [0.3, 0.4])
    for group, old, lr in zip(optimizer.param_groups, before, [0.3, 0.4], strict=True):
        assert group == {**old, "lr": lr}
    assert optimizer.defaults["lr"] == 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_tensor_is_filled_in_place(dtype, shape, device):
    lr = torch.full(shape, 0.1, dtype=dtype, device=device)
    optimizer = torch.optim.Adam([{"params": parameters(3, device=device), "lr": lr}])
    set_group_lrs(optimizer, [0.3])
    assert optimizer.param_groups[0]["lr"] is lr
    assert (lr.dtype, lr.shape, lr.device.type) == (dtype, shape, device.type)
    assert lr.item() == pytest.approx(0.3)


def test_a_tensor_lr_that_requires_grad_can_be_written():
    lr = torch.tensor(0.1, requires_grad=True)
    optimizer = torch.optim.SGD(parameters(3), lr=0.1)
    optimizer.param_groups[0]["lr"] = lr
    set_group_lrs(optimizer, [0.3])
    assert lr.item() == pytest.approx(0.3)
    assert lr.requires_grad


def shared_lr_optimizer():
    lr = torch.tensor(0.1)
    return torch.optim.Adam([{"params": parameters(3)}, {"params": parameters(5)}], lr=lr), lr


def test_groups_that_share_a_tensor_get_one_each_when_their_lrs_differ():
    optimizer, lr = shared_lr_optimizer()
    assert optimizer.param_groups[0]["lr"] is optimizer.param_groups[1]["lr"] is optimizer.defaults["lr"] is lr
    set_group_lrs(optimizer, [0.3, 0.4])
    assert [group["lr"].item() for group in optimizer.param_groups] == pytest.approx([0.3, 0.4])
    assert lr.item() == pytest.approx(0.1)


def test_putting_the_shared_tensor_back_undoes_the_separation():
    optimizer, lr = shared_lr_optimizer()
    before = [dict(group) for group in optimizer.param_groups]
    separate_lrs(optimizer)
    assert optimizer.param_groups[0]["lr"] is not optimizer.param_groups[1]["lr"]
    for group, entries in zip(optimizer.param_groups, before, strict=True):
        group.update(entries)
    assert optimizer.param_groups[0]["lr"] is optimizer.param_groups[1]["lr"] is lr


def test_groups_that_share_a_tensor_go_on_sharing_it_when_their_lrs_are_equal():
    optimizer, lr = shared_lr_optimizer()
    set_group_lrs(optimizer, [0.3, 0.3])
    assert optimizer.param_groups[0]["lr"] is optimizer.param_groups[1]["lr"] is lr
    assert lr.item() == pytest.approx(0.3)


def test_writing_reads_nothing_from_tensors():
    """A meta tensor has no value: any read of it raises."""
    lr = torch.tensor(0.1, device="meta")
    optimizer = torch.optim.SGD([{"params": parameters(3)}, {"params": parameters(3)}], lr=0.1)
    for group in optimizer.param_groups:
        group["lr"] = lr
    set_group_lrs(optimizer, [0.3, 0.4])
    assert [group["lr"].device.type for group in optimizer.param_groups] == ["meta", "meta"]


@pytest.mark.parametrize("lrs", [[], [0.1], [0.1, 0.2, 0.3]])
def test_the_wrong_number_of_lrs_is_refused_and_changes_nothing(lrs):
    optimizer = sgd((3, 0.1), (5, 0.2))
    with pytest.raises(ArgumentError, match=rf"lrs=.* one lr per .* group, 2 here, got {len(lrs)}; `group_lrs"):
        set_group_lrs(optimizer, lrs)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.2]


def test_copies_of_an_optimizer_are_independent():
    optimizer, lr = shared_lr_optimizer()
    twin = copy.deepcopy(optimizer)
    set_group_lrs(twin, [0.3, 0.4])
    assert optimizer.param_groups[0]["lr"] is lr
    assert lr.item() == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("group", "momentum"),
    [
        ({}, 0.0),
        ({"momentum": 0.9}, 0.9),
        ({"momentum": torch.tensor(0.5)}, 0.5),
        ({"betas": (0.8, 0.99)}, 0.8),
        ({"momentum": None, "betas": [0.8, 0.99, 0.9]}, 0.8),
        ({"betas": None}, 0.0),
        ({"betas": (None, 0.99)}, 0.0),
        ({"betas": ()}, 0.0),
    ],
    ids=str,
)
def test_momentum_is_read_from_any_group(group, momentum):
    assert group_momentum(group) == momentum
