import copy
import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler

from lrfinder.curve import Suggestion
from lrfinder.errors import ArgumentError
from lrfinder.optim.scheduler_state import one_cycle_peaks
from lrfinder.optim.schedulers import SCHEDULES, make_scheduler, stand_in

TOP, RATIO, TOTAL, WARMUP = 0.04, 0.1, 20, 4
REFUSES_WARMUP = {"one_cycle", "plateau"}
OPTIMIZERS = {
    "sgd": lambda groups, lr: torch.optim.SGD(groups, lr=lr),
    "sgd_momentum": lambda groups, lr: torch.optim.SGD(groups, lr=lr, momentum=0.9),
    "adam": lambda groups, lr: torch.optim.Adam(groups, lr=lr),
    "rmsprop": lambda groups, lr: torch.optim.RMSprop(groups, lr=lr),
    "rmsprop_momentum": lambda groups, lr: torch.optim.RMSprop(groups, lr=lr, momentum=0.5),
    "adagrad": lambda groups, lr: torch.optim.Adagrad(groups, lr=lr),
}
# Before torch 2.9 or so, these put floats in the place of tensors.
PUTS_FLOATS = () if hasattr(lr_scheduler, "_update_param_group_val") else ("plateau", "cosine_warm_restarts")
CYCLED = {"sgd_momentum": 0.9, "adam": 0.9, "rmsprop_momentum": 0.5}


def two_groups(kind, *, tensor=False, device=None):
    """Return a model and its optimizer; the head, the smaller group, has a tenth of the body's lr."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).to(device)
    lrs = [0.5, 0.5 * RATIO]
    if tensor:
        lrs = [torch.tensor(lr, device=device) for lr in lrs]
    groups = [{"params": model[index].parameters(), "lr": lr} for index, lr in zip((0, 2), lrs, strict=True)]
    return model, OPTIMIZERS[kind](groups, 0.5)


def momenta(optimizer):
    return [group["betas"][0] if "betas" in group else group.get("momentum") for group in optimizer.param_groups]


def lrs_of(optimizer):
    return [float(group["lr"]) for group in optimizer.param_groups]


def train(model, optimizer, scheduler, steps):
    """Return the lrs (steps + 1, groups) and momenta of every step, and those after the last."""
    inputs = torch.randn(8, 3, device=next(model.parameters()).device)
    lrs, cycle = [lrs_of(optimizer)], [momenta(optimizer)]
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(inputs).square().mean()
        loss.backward()
        optimizer.step()
        metric = (1.0,) if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau) else ()
        scheduler.step(*metric)
        lrs.append(lrs_of(optimizer))
        cycle.append(momenta(optimizer))
    return np.array(lrs), cycle


def half_cosine(share, high, low=0.0):
    return low + (high - low) * (1 + math.cos(math.pi * share)) / 2


def expected(name, k, steps):
    """Return the lr of a schedule of `steps` steps with peak 1, k steps after its start."""
    if name == "one_cycle":
        peak, last = 0.3 * steps - 1, steps - 1
        if k <= peak:
            return half_cosine(k / peak, 1 / 25, 1.0)
        return half_cosine((k - peak) / (last - peak), 1.0, 1 / 25e4)
    third = -(-steps // 3)
    return {
        "step": lambda: 0.1 ** (k // third),
        "multi_step": lambda: 0.1 ** ((2 * k >= steps) + (4 * k >= 3 * steps)),
        "exponential": lambda: 0.01 ** (k / steps),
        "cosine": lambda: half_cosine(k / steps, 1.0),
        "plateau": lambda: 0.1 ** max(0, (k - 1) // 11),  # a constant metric: 10 bad epochs are borne, the 11th is not
        "cyclic": lambda: 0.1 + 0.9 * (1 - abs(2 * k / steps - 1)),
        "cosine_warm_restarts": lambda: half_cosine(k % third / third, 1.0),
        "lambda": lambda: 0.9**k,
        "polynomial": lambda: (1 - k / steps) ** 2,
        "linear": lambda: 1 - k / steps,
        "constant": lambda: 1.0,
    }[name]()


KEYWORDS = {"lambda": {"lr_lambda": lambda k: 0.9**k}, "polynomial": {"power": 2.0}}


def reference_curve(name, warmup):
    steps = TOTAL - warmup
    first = expected(name, 0, steps)
    rise = [first * (j + 1) / (warmup + 1) for j in range(warmup)]
    return np.array([*rise, *(expected(name, k, steps) for k in range(steps + 1))])


def leave_an_earlier_scheduler(model, optimizer):
    cycled = all(momenta(optimizer))
    earlier = lr_scheduler.OneCycleLR(optimizer, max_lr=[3.0, 3.0 * RATIO], total_steps=11, cycle_momentum=cycled)
    train(model, optimizer, earlier, 5)
    return earlier


CASES = [
    (name, warmup)
    for name, warmup in itertools.product(SCHEDULES, (0, WARMUP))
    if not (warmup and name in REFUSES_WARMUP)
]


@pytest.mark.parametrize("earlier", [False, True], ids=["fresh", "after_another"])
@pytest.mark.parametrize("tensor", [False, True], ids=["float", "tensor"])
@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize(("name", "warmup"), CASES)
def test_every_schedule_follows_its_formula_in_every_group(name, warmup, kind, tensor, earlier, device):
    model, optimizer = two_groups(kind, tensor=tensor, device=device)
    original = momenta(optimizer)
    if earlier:
        leave_an_earlier_scheduler(model, optimizer)
    holders = [group["lr"] for group in optimizer.param_groups]
    scheduler = make_scheduler(optimizer, name, TOP, total_steps=TOTAL, warmup_steps=warmup, **KEYWORDS.get(name, {}))
    lrs, cycle = train(model, optimizer, scheduler, TOTAL)

    wanted = TOP * reference_curve(name, warmup)
    until = TOTAL if name == "one_cycle" else TOTAL + 1  # OneCycle ends on the last step, the others after it
    tolerance = {"rtol": 1e-4, "atol": 1e-7} if tensor else {"rtol": 1e-9, "atol": 1e-12}
    np.testing.assert_allclose(lrs[:until, 0], wanted[:until], **tolerance)
    np.testing.assert_allclose(lrs[:until, 1], wanted[:until] * RATIO, **tolerance)
    peak = reference_curve(name, warmup).max()
    assert peak == pytest.approx(1.0)
    assert lrs.max(axis=0) == pytest.approx([TOP, TOP * RATIO], rel=1e-6)

    for group, holder in zip(optimizer.param_groups, holders, strict=True):
        kept = tensor and name not in PUTS_FLOATS
        assert isinstance(group["lr"], torch.Tensor) == kept
        assert not kept or group["lr"] is holder
    if name in {"one_cycle", "cyclic"} and kind in CYCLED:
        low, high = (0.85, 0.95) if name == "one_cycle" else (0.8, 0.9)
        assert cycle[0] == [high, high]
        assert min(cycle)[0] == pytest.approx(low)
    else:
        assert all(momentum == original for momentum in cycle)


@pytest.mark.parametrize(("name", "warmup"), CASES)
def test_the_factory_returns_objects_of_torch_itself(name, warmup):
    _, optimizer = two_groups("sgd")
    scheduler = make_scheduler(optimizer, name, TOP, total_steps=TOTAL, warmup_steps=warmup, **KEYWORDS.get(name, {}))
    assert type(scheduler).__module__ == "torch.optim.lr_scheduler"
    assert isinstance(scheduler, lr_scheduler.SequentialLR) == bool(warmup)


def test_the_names():
    assert set(SCHEDULES) == (
        {"one_cycle", "step", "multi_step", "exponential", "cosine", "plateau"}
        | {"cyclic", "cosine_warm_restarts", "lambda", "polynomial", "linear", "constant"}
    )


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_sequence_has_one_lr_per_group(name):
    model, optimizer = two_groups("sgd")
    keywords = KEYWORDS.get(name, {})
    scheduler = make_scheduler(optimizer, name, [0.01, 0.03], total_steps=TOTAL, **keywords)
    lrs, _ = train(model, optimizer, scheduler, TOTAL)
    assert lrs.max(axis=0) == pytest.approx([0.01, 0.03])


@pytest.mark.parametrize("lrs", [(0.01, 0.03), np.array([0.01, 0.03]), torch.tensor([0.01, 0.03])])
def test_sequences_of_several_kinds(lrs):
    _, optimizer = two_groups("sgd")
    make_scheduler(optimizer, "constant", lrs)
    assert lrs_of(optimizer) == pytest.approx([0.01, 0.03])


@pytest.mark.parametrize("lr", [np.float32(0.01), torch.tensor(0.01), np.array(0.01)])
def test_single_numbers_of_several_kinds(lr):
    _, optimizer = two_groups("sgd")
    make_scheduler(optimizer, "constant", lr)
    assert lrs_of(optimizer) == pytest.approx([0.01, 0.001])


@pytest.mark.parametrize("as_sequence", [False, True])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_group_held_at_zero_stays_there(name, as_sequence):
    model, optimizer = two_groups("sgd")
    optimizer.param_groups[1]["lr"] = 0.0
    lr = [TOP, 0.0] if as_sequence else TOP
    scheduler = make_scheduler(optimizer, name, lr, total_steps=TOTAL, **KEYWORDS.get(name, {}))
    lrs, _ = train(model, optimizer, scheduler, TOTAL)
    assert lrs.max(axis=0) == pytest.approx([TOP, 0.0])


@pytest.mark.parametrize("name", SCHEDULES)
def test_one_tensor_shared_by_all_groups_becomes_one_per_group(name):
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    shared = torch.tensor(0.5)
    optimizer = torch.optim.Adam([{"params": layer.parameters()} for layer in model], lr=shared)
    keywords = {"lambda": {"lr_lambda": [lambda k: 1.0, lambda k: 1 / (k + 1)]}}.get(name, KEYWORDS.get(name, {}))
    scheduler = make_scheduler(optimizer, name, [0.01, 0.03], total_steps=TOTAL, **keywords)
    lrs, _ = train(model, optimizer, scheduler, TOTAL)
    assert lrs.max(axis=0) == pytest.approx([0.01, 0.03], rel=1e-5)
    assert shared.item() == 0.5
    assert all(isinstance(group["lr"], torch.Tensor) != (name in PUTS_FLOATS) for group in optimizer.param_groups)
    assert optimizer.param_groups[0]["lr"] is not optimizer.param_groups[1]["lr"]


@pytest.mark.parametrize("name", SCHEDULES)
def test_capturable_adamw(name, device):
    """On the CPU capturable=True needs torch.compile; the rest of that setup, a tensor lr with foreach, runs here."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1)).to(device)
    groups = [{"params": layer.parameters()} for layer in model]
    on_gpu = device.type == "cuda"
    optimizer = torch.optim.AdamW(groups, lr=torch.tensor(0.5, device=device), capturable=on_gpu, foreach=on_gpu)
    scheduler = make_scheduler(optimizer, name, TOP, total_steps=TOTAL, **KEYWORDS.get(name, {}))
    holders = [group["lr"] for group in optimizer.param_groups]
    lrs, _ = train(model, optimizer, scheduler, TOTAL)
    assert lrs.max(axis=0) == pytest.approx([TOP, TOP], rel=1e-5)
    kept = [group["lr"] is holder for group, holder in zip(optimizer.param_groups, holders, strict=True)]
    assert kept == [name not in PUTS_FLOATS] * 2


def test_a_chain_that_replaces_tensors_by_floats_does_not_get_through(monkeypatch):
    class OlderSequentialLR(lr_scheduler.SequentialLR):
        def __init__(self, optimizer, *args, **kwargs):
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"]
            super().__init__(optimizer, *args, **kwargs)

    monkeypatch.setattr(lr_scheduler, "SequentialLR", OlderSequentialLR)
    _, optimizer = two_groups("adam", tensor=True)
    holders = [group["lr"] for group in optimizer.param_groups]
    make_scheduler(optimizer, "cosine", TOP, total_steps=TOTAL, warmup_steps=WARMUP)
    assert all(group["lr"] is holder for group, holder in zip(optimizer.param_groups, holders, strict=True))
    assert lrs_of(optimizer) == pytest.approx([TOP / (WARMUP + 1), TOP * RATIO / (WARMUP + 1)])


# What an earlier scheduler leaves


def test_the_traces_of_an_earlier_scheduler_are_replaced():
    model, optimizer = two_groups("sgd_momentum")
    leave_an_earlier_scheduler(model, optimizer)
    make_scheduler(optimizer, "constant", TOP)
    for group, lr in zip(optimizer.param_groups, [TOP, TOP * RATIO], strict=True):
        assert group["initial_lr"] == pytest.approx(lr)
        assert group["momentum"] == 0.9
        assert not {"max_lr", "min_lr", "base_momentum", "max_momentum"} & group.keys()


def test_a_momentum_that_stock_one_cycle_put_into_rmsprop_is_taken_out_again():
    model, optimizer = two_groups("rmsprop")
    train(model, optimizer, make_scheduler(optimizer, "constant", TOP), 2)  # history without momentum
    lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=10)
    assert momenta(optimizer) == [0.95, 0.95]
    scheduler = make_scheduler(optimizer, "one_cycle", TOP, total_steps=TOTAL)
    _, cycle = train(model, optimizer, scheduler, TOTAL)  # stock: KeyError 'momentum_buffer'
    assert all(momentum == [0, 0] for momentum in cycle)


def test_a_warmup_from_zero_that_was_never_stepped_keeps_the_ratios():
    _, optimizer = two_groups("sgd")
    lr_scheduler.LambdaLR(optimizer, lambda k: k / 10)
    make_scheduler(optimizer, "constant", TOP)
    assert lrs_of(optimizer) == pytest.approx([TOP, TOP * RATIO])


def test_made_again_and_again_on_one_optimizer_step_is_wrapped_once():
    model, optimizer = two_groups("sgd")
    make_scheduler(optimizer, "constant", TOP)
    wrapped = optimizer.step
    for name in ("cosine", "linear", "one_cycle"):
        scheduler = make_scheduler(optimizer, name, TOP, total_steps=TOTAL, warmup_steps=0)
    assert optimizer.step is wrapped
    assert train(model, optimizer, scheduler, TOTAL)[0].max() == pytest.approx(TOP)


# Momentum


@pytest.mark.parametrize("name", ["one_cycle", "cyclic"])
def test_momentum_is_cycled_only_in_the_groups_that_have_one(name):
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    groups = [{"params": model[0].parameters(), "momentum": 0.9}, {"params": model[1].parameters()}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    _, cycle = train(model, optimizer, make_scheduler(optimizer, name, TOP, total_steps=TOTAL), TOTAL)
    assert {momentum for _, momentum in cycle} == {0.0}
    assert len({momentum for momentum, _ in cycle}) > 10


@pytest.mark.parametrize("name", ["one_cycle", "cyclic"])
def test_given_momenta_are_kept_for_the_groups_that_have_one(name):
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    groups = [{"params": model[0].parameters(), "momentum": 0.9}, {"params": model[1].parameters()}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    bounds = {"base_momentum": [0.6, 0.6], "max_momentum": 0.7}
    _, cycle = train(model, optimizer, make_scheduler(optimizer, name, TOP, total_steps=TOTAL, **bounds), TOTAL)
    body = [momentum for momentum, _ in cycle]
    assert (min(body), max(body)) == pytest.approx((0.6, 0.7))
    assert {momentum for _, momentum in cycle} == {0.0}


def test_adam_with_beta1_zero_keeps_it():
    model = nn.Linear(3, 1)
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.0, 0.99))
    _, cycle = train(model, optimizer, make_scheduler(optimizer, lr=TOP, total_steps=TOTAL), TOTAL)
    assert all(momentum == [0.0] for momentum in cycle)


@pytest.mark.parametrize("kind", ["sgd_momentum", "adam"])
def test_cycle_momentum_false_is_obeyed(kind):
    model, optimizer = two_groups(kind)
    scheduler = make_scheduler(optimizer, lr=TOP, total_steps=TOTAL, cycle_momentum=False)
    assert all(momentum == [0.9, 0.9] for momentum in train(model, optimizer, scheduler, TOTAL)[1])


@pytest.mark.parametrize("kind", ["sgd", "rmsprop", "adagrad"])
@pytest.mark.parametrize("name", ["one_cycle", "cyclic"])
def test_cycling_a_momentum_that_is_not_there_is_refused(kind, name):
    _, optimizer = two_groups(kind)
    before = [dict(group) for group in optimizer.param_groups]
    with pytest.raises(ArgumentError, match=r"cycle_momentum=True\) needs .* with a momentum .* leave .* out"):
        make_scheduler(optimizer, name, TOP, total_steps=TOTAL, cycle_momentum=True)
    assert optimizer.param_groups == before


# Keywords


def test_keywords_of_torch_reach_the_schedule():
    model, optimizer = two_groups("sgd")
    lrs, _ = train(model, optimizer, make_scheduler(optimizer, "step", 1.0, step_size=3, gamma=0.5), 6)
    assert lrs[:, 0] == pytest.approx([1, 1, 1, 0.5, 0.5, 0.5, 0.25])
    lrs, _ = train(model, optimizer, make_scheduler(optimizer, "multi_step", 1.0, milestones=[1, 3]), 4)
    assert lrs[:, 0] == pytest.approx([1, 0.1, 0.1, 0.01, 0.01])
    lrs, _ = train(model, optimizer, make_scheduler(optimizer, "exponential", 1.0, gamma=0.5), 2)
    assert lrs[:, 0] == pytest.approx([1, 0.5, 0.25])
    lrs, _ = train(model, optimizer, make_scheduler(optimizer, "cosine", 1.0, total_steps=4, eta_min=0.2), 4)
    assert lrs[-1] == pytest.approx([0.2, 0.2])
    lrs, _ = train(model, optimizer, make_scheduler(optimizer, "plateau", 1.0, patience=0, factor=0.5), 3)
    assert lrs[:, 0] == pytest.approx([1, 1, 0.5, 0.25])
    restarts = make_scheduler(optimizer, "cosine_warm_restarts", 1.0, T_0=2, T_mult=2)
    assert train(model, optimizer, restarts, 7)[0][:, 0] == pytest.approx(
        [1, 0.5, 1, half_cosine(1 / 4, 1.0), 0.5, half_cosine(3 / 4, 1.0), 1, half_cosine(1 / 8, 1.0)]
    )
    lrs, _ = train(model, optimizer, make_scheduler(optimizer, "linear", 1.0, total_steps=4, end_factor=0.5), 4)
    assert lrs[:, 0] == pytest.approx([1, 0.875, 0.75, 0.625, 0.5])


def test_what_torch_counts_it_counts_from_the_end_of_the_warmup():
    model, optimizer = two_groups("sgd")
    scheduler = make_scheduler(optimizer, "multi_step", 1.0, milestones=[2], warmup_steps=3)
    lrs, _ = train(model, optimizer, scheduler, 6)
    assert lrs[:, 0] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 0.1, 0.1])


def test_cyclic_runs_between_the_given_lrs():
    model, optimizer = two_groups("sgd")
    scheduler = make_scheduler(optimizer, "cyclic", 1.0, base_lr=0.2, step_size_up=4, warmup_steps=3)
    lrs, _ = train(model, optimizer, scheduler, 11)
    wanted = np.array([0.05, 0.1, 0.15, 0.2, 0.4, 0.6, 0.8, 1.0, 0.8, 0.6, 0.4, 0.2])
    np.testing.assert_allclose(lrs, np.stack([wanted, wanted * RATIO], axis=1), rtol=1e-12)


def test_cyclic_takes_a_base_per_group():
    _, optimizer = two_groups("sgd")
    make_scheduler(optimizer, "cyclic", [1.0, 0.5], base_lr=[0.2, 0.4], step_size_up=4)
    assert lrs_of(optimizer) == pytest.approx([0.2, 0.4])


@pytest.mark.parametrize("total", [1, 2, 7, 20, 21])
def test_cyclic_ends_at_its_base_whatever_the_length(total):
    model, optimizer = two_groups("sgd")
    lrs, _ = train(model, optimizer, make_scheduler(optimizer, "cyclic", 1.0, total_steps=total), total)
    if total > 1:
        assert lrs[[0, -1], 0] == pytest.approx([0.1, 0.1])
    assert lrs[:, 0].max() == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["plateau", "constant", "cyclic"])
def test_schedules_that_need_no_length(name):
    model, optimizer = two_groups("sgd")
    lrs, _ = train(model, optimizer, make_scheduler(optimizer, name, TOP), 3)
    assert lrs[0, 0] == pytest.approx(TOP / 10 if name == "cyclic" else TOP)


@pytest.mark.parametrize("total", [np.int64(10), torch.tensor(10)])
def test_whole_numbers_of_several_kinds(total):
    _, optimizer = two_groups("sgd")
    assert make_scheduler(optimizer, lr=TOP, total_steps=total).total_steps == 10


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(SCHEDULES), total=st.integers(1, 40), data=st.data())
def test_no_schedule_of_any_length_exceeds_its_peak_or_goes_below_zero(name, total, data):
    warmup = 0 if name in REFUSES_WARMUP else data.draw(st.integers(0, total - 1))
    _, optimizer = two_groups("adam")
    scheduler = make_scheduler(optimizer, name, TOP, total_steps=total, warmup_steps=warmup, **KEYWORDS.get(name, {}))
    optimizer.step()  # without gradients: it only counts as one
    lrs = []
    for _ in range(total):
        lrs.append(lrs_of(optimizer))
        scheduler.step(*[1.0] * (name == "plateau"))
    body, head = np.array([*lrs, lrs_of(optimizer)]).T
    assert body.max() <= TOP * (1 + 1e-9)
    assert body.min() >= -1e-12
    np.testing.assert_allclose(head, body * RATIO, atol=1e-12)
    assert (np.diff(body[: warmup + 1]) > 0).all()


# State


@pytest.mark.parametrize("tensor", [False, True], ids=["float", "tensor"])
@pytest.mark.parametrize(("name", "warmup"), CASES)
def test_a_saved_schedule_goes_on_where_it_was(name, warmup, tensor, tmp_path):
    def setup():
        torch.manual_seed(0)
        model, optimizer = two_groups("adam", tensor=tensor)
        keywords = KEYWORDS.get(name, {})
        return (
            model,
            optimizer,
            make_scheduler(optimizer, name, TOP, total_steps=TOTAL, warmup_steps=warmup, **keywords),
        )

    model, optimizer, scheduler = setup()
    train(model, optimizer, scheduler, 7)
    torch.save([optimizer.state_dict(), scheduler.state_dict()], tmp_path / "checkpoint.pt")
    wanted, _ = train(model, optimizer, scheduler, TOTAL - 7)

    model, optimizer, scheduler = setup()
    states = torch.load(tmp_path / "checkpoint.pt", weights_only=False)
    optimizer.load_state_dict(states[0])
    scheduler.load_state_dict(states[1])
    optimizer._opt_called = True  # a fresh optimizer has not stepped yet, as in any resumed training
    resumed, _ = train(model, optimizer, scheduler, TOTAL - 7)
    np.testing.assert_array_equal(resumed, wanted)


@pytest.mark.parametrize("kind", ["sgd_momentum", "adam"])
@pytest.mark.parametrize(("name", "warmup"), CASES)
def test_a_copy_for_a_preview_leaves_the_original_alone(name, warmup, kind):
    _, optimizer = two_groups(kind, tensor=True)
    scheduler = make_scheduler(optimizer, name, TOP, total_steps=TOTAL, warmup_steps=warmup, **KEYWORDS.get(name, {}))
    before, state = copy.deepcopy(optimizer.param_groups), repr(scheduler.state_dict())
    groups = [copy.deepcopy({**group, "params": []}) for group in optimizer.param_groups]
    stand_in = SimpleNamespace(param_groups=groups, step=optimizer.step, _opt_called=True)
    preview = copy.deepcopy(scheduler, {id(optimizer): stand_in})
    lrs = [lrs_of(stand_in)]
    for _ in range(TOTAL):
        preview.step(*[1.0] * (name == "plateau"))
        lrs.append(lrs_of(stand_in))
    np.testing.assert_allclose(
        np.array(lrs)[:TOTAL, 0], TOP * reference_curve(name, warmup)[:TOTAL], rtol=1e-4, atol=1e-7
    )
    assert repr(optimizer.param_groups) == repr(before)
    assert repr(scheduler.state_dict()) == state
    assert not getattr(optimizer, "_opt_called", False)


def test_asgd_takes_its_next_step_at_the_first_lr():
    parameter = nn.Parameter(torch.ones(4))
    optimizer = torch.optim.ASGD([parameter], lr=0.5, lambd=0.0)
    for lr in (None, 0.01):
        parameter.grad = torch.ones(4)
        if lr is not None:
            make_scheduler(optimizer, lr=0.25, total_steps=TOTAL)
        before = parameter.detach().clone()
        optimizer.step()
    torch.testing.assert_close(parameter.detach(), before - 0.01)


# Bad input, which changes nothing


BAD = [
    ({"lr": 0.0}, r"lr=.*must be positive and finite, got 0\.0; pass"),
    ({"lr": -1.0}, r"lr=.*must be positive and finite, got -1\.0"),
    ({"lr": math.nan}, r"lr=.*must be positive and finite, got nan"),
    ({"lr": [0.1, 0.0]}, r"lr=.*must be positive and finite, got \[0\.1, 0\.0\]"),
    ({"lr": [0.1, math.inf]}, r"lr=.*must be positive and finite, got \[0\.1, inf\]"),
    ({"lr": [0.1]}, r"lr=.*one learning rate per parameter group, 2 here, got \[0\.1\]; pass one number"),
    ({"lr": [0.1] * 3}, r"lr=.*one learning rate per parameter group, 2 here"),
    ({"lr": []}, r"lr=.*one learning rate per parameter group, 2 here, got \[\]"),
    ({"lr": [[0.1, 0.1]]}, r"lr=.*one learning rate per parameter group, 2 here"),
    ({"lr": None}, r"lr=.*got None"),
    ({"lr": object()}, r"lr=.*must be a number, a sequence of numbers, a Suggestion or a RangeTestResult, got <object"),
    ({"name": "one cycle"}, r"name=.*must be one of one_cycle, step, .*constant, got 'one cycle'"),
    ({"total_steps": None}, r"'one_cycle'\) needs total_steps.*pass total_steps=.*scheduler\.step\(\)"),
    ({"name": "cosine", "total_steps": None}, r"'cosine'\) needs total_steps"),
    ({"name": "linear", "total_steps": None}, r"'linear'\) needs total_steps"),
    ({"name": "polynomial", "total_steps": None}, r"'polynomial'\) needs total_steps"),
    ({"name": "step", "total_steps": None}, r"'step'\) needs total_steps or step_size"),
    ({"name": "multi_step", "total_steps": None}, r"'multi_step'\) needs total_steps or milestones"),
    ({"name": "exponential", "total_steps": None}, r"'exponential'\) needs total_steps or gamma"),
    ({"name": "cosine_warm_restarts", "total_steps": None}, r"needs total_steps or T_0"),
    ({"name": "lambda"}, r"'lambda'\) needs lr_lambda=\.\.\., a function .*got none"),
    ({"total_steps": 0}, r"total_steps=.*must be an integer of at least 1, got 0"),
    ({"total_steps": 10.0}, r"total_steps=.*must be an integer of at least 1, got 10\.0"),
    ({"name": "cosine", "warmup_steps": -1}, r"warmup_steps=.*must be an integer of at least 0, got -1"),
    ({"name": "cosine", "warmup_steps": 20}, r"total_steps=.*must exceed warmup_steps=20, .*got 20; shorten"),
    ({"warmup_steps": 2}, r"'one_cycle', warmup_steps=.*must be 0, got 2: .*pct_start"),
    ({"name": "plateau", "warmup_steps": 2}, r"'plateau', warmup_steps=.*must be 0, got 2: .*'constant'"),
    ({"name": "cosine", "T_max": 3}, r"'cosine'\) takes no T_max, got 3; give the schedule's length, .*total_steps"),
    ({"name": "linear", "total_iters": 3}, r"'linear'\) takes no total_iters, got 3; give .*total_steps"),
    ({"epochs": 3}, r"'one_cycle'\) takes no epochs, got 3; give .*total_steps"),
    ({"name": "step", "max_lr": 0.1}, r"takes no max_lr, got 0\.1; give the peak learning rate as lr"),
    ({"max_lr": 0.1}, r"takes no max_lr, got 0\.1; give the peak learning rate as lr"),
    ({"last_epoch": 3}, r"takes no last_epoch, got 3; to resume, .*load_state_dict"),
    ({"gamma": 0.1}, r"'one_cycle'\) takes no gamma, got 0\.1; its keywords are total_steps, .*pct_start"),
    ({"name": "step", "stepsize": 3}, r"'step'\) takes no stepsize, got 3; its keywords are .*step_size, gamma"),
    ({"name": "cyclic", "base_lr": 1.0}, r"base_lr=.*must not exceed the peak learning rates .*got 1\.0; leave it out"),
    ({"name": "cyclic", "base_lr": 0.0}, r"base_lr=.*must be positive and finite, got 0\.0"),
    ({"name": "cyclic", "base_lr": [0.1]}, r"base_lr=.*one learning rate per parameter group"),
    ({"pct_start": 2.0}, r"'one_cycle'\): torch's OneCycleLR refuses .*pct_start"),
    ({"pct_start": 0.05}, r"'one_cycle'\): torch's OneCycleLR refuses"),
    ({"name": "lambda", "lr_lambda": 3}, r"'lambda'\): torch's LambdaLR refuses"),
    ({"name": "lambda", "lr_lambda": [math.sqrt]}, r"'lambda'\): torch's LambdaLR refuses .*2 lr_lambdas"),
    ({"name": "cosine_warm_restarts", "T_0": 0}, r"torch's CosineAnnealingWarmRestarts refuses .*T_0"),
    ({"name": "plateau", "factor": 1.0}, r"torch's ReduceLROnPlateau refuses .*Factor"),
    ({"name": "cyclic", "mode": "square"}, r"torch's CyclicLR refuses .*mode"),
    ({"max_momentum": [0.9]}, r"torch's OneCycleLR refuses .*max_momentum"),
]


@pytest.mark.parametrize("tensor", [False, True], ids=["float", "tensor"])
@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_input_is_named_and_changes_nothing(arguments, message, tensor):
    model, optimizer = two_groups("adam", tensor=tensor)
    leave_an_earlier_scheduler(model, optimizer)
    before = [dict(group) for group in optimizer.param_groups]
    values = lrs_of(optimizer)
    with pytest.raises(ArgumentError, match=message):
        make_scheduler(**{"lr": 0.5, "optimizer": optimizer, "total_steps": 20, **arguments})
    assert lrs_of(optimizer) == values
    for group, entries in zip(optimizer.param_groups, before, strict=True):
        assert group.keys() == entries.keys()
        assert all(group[key] is entries[key] for key in entries)


def test_error_for_anything_but_an_optimizer():
    with pytest.raises(ArgumentError, match=r"optimizer=.*must be a torch\.optim\.Optimizer, got Linear"):
        make_scheduler(nn.Linear(2, 2), "constant", 0.1)


@pytest.mark.parametrize("order", [(2, 0, 1), (1, 0, 2), (0, 2, 1), (2, 1, 0), (1, 2, 0), (0, 2), (2, 0)])
def test_arguments_in_another_order_are_an_error_that_shows_the_right_one(order):
    _, optimizer = two_groups("sgd")
    right = (optimizer, "cosine", 0.1)
    name = "cosine" if 1 in order else "one_cycle"
    with pytest.raises(
        ArgumentError, match=rf"takes the optimizer first, .* write make_scheduler\(optimizer, '{name}', lr"
    ):
        make_scheduler(*(right[index] for index in order), total_steps=5)


def test_a_missing_lr_is_an_error_that_says_what_it_may_be():
    _, optimizer = two_groups("sgd")
    with pytest.raises(ArgumentError, match=r"'cosine', lr=.* got None; pass a number, one per .*LRFinder\.find"):
        make_scheduler(optimizer, "cosine", total_steps=5)


# Suggestions and results


class Result:
    """What `make_scheduler` reads of a `RangeTestResult`."""

    total_steps = 12

    def __init__(self, onset=None):
        self.landmarks = SimpleNamespace(onset=onset)

    def group_lrs(self, suggestion=None):
        lr = 0.04 if suggestion is None else suggestion
        return [lr, lr / 2]


def test_a_suggestion_is_the_lr_of_the_largest_group():
    _, optimizer = two_groups("sgd")
    make_scheduler(optimizer, "constant", Suggestion(lr=0.01, rule="auto", reason="", index=0))
    assert lrs_of(optimizer) == pytest.approx([0.01, 0.001])


def test_a_result_gives_the_lrs_of_all_groups_and_the_length():
    _, optimizer = two_groups("sgd")
    scheduler = make_scheduler(optimizer, "one_cycle", Result())
    assert scheduler.total_steps == 12
    assert [group["max_lr"] for group in optimizer.param_groups] == [0.04, 0.02]
    assert make_scheduler(optimizer, "one_cycle", Result(), total_steps=7).total_steps == 7


@pytest.mark.parametrize(("onset", "base"), [(None, 0.004), (0.01, 0.01), (0.05, 0.004)])
def test_cyclic_rises_from_a_results_onset_if_it_is_below_the_peak(onset, base):
    _, optimizer = two_groups("sgd")
    make_scheduler(optimizer, "cyclic", Result(onset))
    assert lrs_of(optimizer) == pytest.approx([base, base / 2])
    make_scheduler(optimizer, "cyclic", Result(onset), base_lr=0.02)
    assert lrs_of(optimizer) == pytest.approx([0.02, 0.01])


def test_a_result_of_another_number_of_groups_is_an_error():
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    with pytest.raises(ArgumentError, match=r"one learning rate per parameter group, 1 here, got \[0\.04, 0\.02\]"):
        make_scheduler(optimizer, "constant", Result())


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_stand_in_needs_neither_a_metric_nor_a_function(name):
    _, optimizer = two_groups("sgd")
    scheduler = make_scheduler(optimizer, stand_in(name), TOP, total_steps=TOTAL)
    optimizer.step()
    scheduler.step()
    assert stand_in(name) == name or name in {"plateau", "lambda"}


def test_an_exception_of_the_users_function_arrives_unchanged_and_changes_nothing():
    class OwnError(Exception):
        pass

    def lr_lambda(step):
        raise OwnError

    _, optimizer = two_groups("sgd")
    before = [dict(group) for group in optimizer.param_groups]
    with pytest.raises(OwnError):
        make_scheduler(optimizer, "lambda", 0.1, lr_lambda=lr_lambda)
    assert optimizer.param_groups == before


# Keys that belong to the optimizer


class OwnKeys(torch.optim.Optimizer):
    """Plain gradient descent that reads keys of its own at each step, as optimi's AdamW does `max_lr`."""

    def __init__(self, params, lr, **own):
        super().__init__(params, {"lr": lr, **own})
        self.own = own

    def step(self, closure=None):
        for group in self.param_groups:
            assert self.own.keys() <= group.keys()
            for parameter in group["params"]:
                parameter.data.sub_(parameter.grad, alpha=float(group["lr"]))


@pytest.mark.parametrize("earlier", [False, True], ids=["fresh", "after_another"])
@pytest.mark.parametrize("own", [{"max_lr": 1.0}, {"min_lr": 1e-5}, {"max_lr": 1.0, "min_lr": 0.0}], ids=str)
@pytest.mark.parametrize("name", SCHEDULES)
def test_keys_that_belong_to_the_optimizer_are_kept(name, own, earlier):
    model = nn.Linear(3, 1)
    optimizer = OwnKeys(model.parameters(), lr=0.1, **own)
    if earlier:
        lr_scheduler.OneCycleLR(optimizer, 0.3, 9, cycle_momentum=False)
    scheduler = make_scheduler(optimizer, name, TOP, total_steps=TOTAL, **KEYWORDS.get(name, {}))
    lrs, _ = train(model, optimizer, scheduler, TOTAL)
    assert lrs.max() == pytest.approx(TOP)
    assert own.keys() <= optimizer.param_groups[0].keys()


def test_a_key_of_the_user_that_only_looks_like_a_schedulers_is_kept():
    _, optimizer = two_groups("sgd")
    optimizer.param_groups[0]["min_lr"] = 1e-5  # read by a schedule of the user
    make_scheduler(optimizer, "constant", TOP)
    assert optimizer.param_groups[0]["min_lr"] == 1e-5


class GroupMomentum(torch.optim.Optimizer):
    """Momentum in one group, betas in the other, and neither in `defaults`, as in the Muon package."""

    def __init__(self, model):
        groups = [
            {"params": model[0].parameters(), "lr": 0.02, "momentum": 0.95},
            {"params": model[2].parameters(), "lr": 0.002, "betas": (0.9, 0.95)},
        ]
        super().__init__(groups, {})

    def step(self, closure=None):
        pass


@pytest.mark.parametrize("name", SCHEDULES)
def test_momentum_that_is_only_in_the_groups_stays_as_it_is(name):
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    optimizer = GroupMomentum(model)
    scheduler = make_scheduler(optimizer, name, TOP, total_steps=TOTAL, **KEYWORDS.get(name, {}))
    lrs, cycle = train(model, optimizer, scheduler, TOTAL)
    assert lrs.max(axis=0) == pytest.approx([TOP, TOP * RATIO])
    assert all(momenta == [0.95, 0.9] for momenta in cycle)


def test_cycling_a_momentum_that_torch_cannot_see_is_refused():
    optimizer = GroupMomentum(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)))
    with pytest.raises(ArgumentError, match=r"cycle_momentum=True\) needs .*in its `defaults` and in each group"):
        make_scheduler(optimizer, "one_cycle", TOP, total_steps=TOTAL, cycle_momentum=True)


# Wrappers that are no optimizer of torch


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_wrapper_is_scheduled_through_its_groups(name):
    model, inner = two_groups("sgd_momentum")
    optimizer = SimpleNamespace(optimizer=inner, param_groups=inner.param_groups, defaults=inner.defaults)
    scheduler = make_scheduler(optimizer, name, TOP, total_steps=TOTAL, **KEYWORDS.get(name, {}))
    lrs, cycle = train(model, inner, scheduler, TOTAL)
    assert lrs.max(axis=0) == pytest.approx([TOP, TOP * RATIO])
    assert (len({momentum for momentum, _ in cycle}) > 1) == (name in {"one_cycle", "cyclic"})


# The peaks that a scheduler has left


def test_the_peak_of_one_cycle_is_read_from_its_groups():
    _, optimizer = two_groups("sgd_momentum")
    assert one_cycle_peaks(optimizer) == [None, None]
    lr_scheduler.OneCycleLR(optimizer, [0.3, 0.03], 9)
    assert one_cycle_peaks(optimizer) == [0.3, 0.03]


@pytest.mark.parametrize("max_lr", [None, 1.0])
def test_a_max_lr_that_belongs_to_the_optimizer_is_no_peak(max_lr):
    optimizer = OwnKeys(nn.Linear(3, 1).parameters(), lr=0.1, max_lr=max_lr)
    assert one_cycle_peaks(optimizer) == [None]
