import copy
from collections import namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from lrfinder.errors import ArgumentError
from lrfinder.optim.wrappers import needs_closure
from lrfinder.training.loss import BatchLoss
from lrfinder.training.step import TrainingStep, UserStep
from tests.problems import SAM

CPU = torch.device("cpu")


def model_and_data(device=CPU, *, dtype=torch.float32, batches=4):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).to(device, dtype)
    data = [(torch.randn(6, 3, dtype=dtype), torch.randn(6, 2, dtype=dtype)) for _ in range(batches)]
    return model, data


def batch_loss(model, criterion=None, loss_fn=None, device=CPU, autocast=None):
    return BatchLoss(model, criterion, loss_fn, device, autocast)


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


class Recording(nn.Module):
    """Keeps the arguments it was called with and returns what it was told to."""

    def __init__(self, output=None):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.output = output

    def forward(self, *args, **kwargs):
        self.called_with = (args, kwargs)
        return self.weight * 2 if self.output is None else self.output


# A batch becomes a loss

Batch = namedtuple("Batch", "a b y")


@pytest.mark.parametrize(
    ("batch", "args", "target"),
    [
        (("x", "y"), ("x",), "y"),
        (["x", "y"], ("x",), "y"),
        ((("a", "b"), "y"), (("a", "b"),), "y"),
        ((["a", "b"], "y"), (["a", "b"],), "y"),
        (({"a": 1}, "y"), ({"a": 1},), "y"),
        (("a", "b", "y"), ("a", "b"), "y"),
        (Batch("a", "b", "y"), ("a", "b"), "y"),
        (("x", {"boxes": 1}), ("x",), {"boxes": 1}),
        ((pack_sequence([torch.ones(2)]), "y"), None, "y"),
    ],
)
def test_with_a_criterion_the_last_item_is_the_target(batch, args, target):
    model = Recording()
    seen = []
    loss = batch_loss(model, lambda outputs, targets: seen.append((outputs, targets)) or outputs)(batch)
    if args is not None:
        assert model.called_with == (args, {})
    else:
        assert model.called_with[0][0] is batch[0]
    assert seen[0][1] == target
    assert loss == 2


@dataclass
class Sample:
    x: int


@pytest.mark.parametrize(
    ("batch", "kind"),
    [
        ({"x": 1, "y": 2}, "dict"),
        (torch.ones(2), "Tensor"),
        ((torch.ones(2),), "tuple of 1"),
        ([], "list of 0"),
        (Sample(1), "Sample"),
        (pack_sequence([torch.ones(2)]), "PackedSequence"),
        ("text", "str"),
    ],
)
def test_error_for_a_batch_that_is_not_a_pair_names_loss_fn(batch, kind):
    message = rf"LRFinder\(criterion=...\) needs \(inputs, targets\) batches, got a {kind}.*; .*loss_fn=lambda"
    with pytest.raises(ArgumentError, match=message):
        batch_loss(Recording(), lambda outputs, targets: outputs)(batch)


PACKED = pack_sequence([torch.ones(2)])


@pytest.mark.parametrize(
    ("batch", "args", "kwargs"),
    [
        ({"x": 1, "y": 2}, (), {"x": 1, "y": 2}),
        ((1, 2, 3), (1, 2, 3), {}),
        ([1], (1,), {}),
        ("text", ("text",), {}),
        (PACKED, (PACKED,), {}),
    ],
)
def test_without_a_criterion_the_model_is_called_with_the_whole_batch(batch, args, kwargs):
    model = Recording()
    assert batch_loss(model)(batch) == 2
    assert model.called_with == (args, kwargs)


@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: {"loss": t, "logits": 1}, lambda t: SimpleNamespace(loss=t)])
def test_without_a_criterion_the_model_returns_its_loss(wrap):
    loss = torch.tensor(1.5)
    assert batch_loss(Recording(wrap(loss)))((1,)) == 1.5


@pytest.mark.parametrize(
    ("output", "kind"),
    [({"logits": 1}, "dict"), (SimpleNamespace(loss=None), "SimpleNamespace"), ((torch.ones(()),), "tuple of 1")],
)
def test_without_a_loss_the_remedy_is_named(output, kind):
    with pytest.raises(ArgumentError, match=rf"must return its loss, or .* with a `.loss`, got a {kind}; pass"):
        batch_loss(Recording(output))((1,))


def test_loss_fn_is_given_the_model_and_the_batch():
    model, seen = Recording(), []
    assert batch_loss(model, loss_fn=lambda *args: seen.append(args) or torch.ones(1))({"x": 1}) == 1
    assert seen == [(model, {"x": 1})]


@pytest.mark.parametrize("way", ["criterion", "loss_fn", "the model"])
def test_a_loss_must_be_a_scalar(way):
    bad = torch.ones(4, 2)
    loss = {
        "criterion": batch_loss(Recording(), lambda outputs, targets: bad),
        "loss_fn": batch_loss(Recording(), loss_fn=lambda model, batch: bad),
        "the model": batch_loss(Recording({"loss": bad})),
    }[way]
    message = rf"{way}.* must return a scalar loss, got a tensor of shape \(4, 2\); reduce it with .mean\(\)"
    with pytest.raises(ArgumentError, match=message):
        loss((1, 2))


def test_a_forgotten_criterion_is_named():
    message = r"^Without a criterion the model must return its loss, .* got a Tensor of shape \(4, 2\); pass a crit"
    with pytest.raises(ArgumentError, match=message):
        batch_loss(nn.Linear(3, 2))((torch.ones(4, 3),))


class OnlyInputs(nn.Linear):
    def __init__(self):
        super().__init__(3, 2)

    def forward(self, inputs):
        return super().forward(inputs)


class SimpleModule(nn.Module):
    """Passes everything on, as DistributedDataParallel does."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs)


X, Y = torch.ones(4, 3), torch.ones(4, 2)


THREE = (X, Y, torch.arange(4))
TWO_TENSORS = r"\(Tensor of shape \(4, 3\), Tensor of shape \(4, 2\)\)"


@pytest.mark.parametrize(
    ("criterion", "batch", "message"),
    [
        (
            nn.MSELoss(),
            THREE,
            rf"model\(\*batch\[:-1\]\) with {TWO_TENSORS} for a tuple of 3 .* failed \(.*2 positional",
        ),
        (nn.MSELoss(), THREE, r"but 3 were given\); say how such a batch becomes a loss with loss_fn=lambda"),
        (None, (X, Y), rf"model\(\*batch\) with {TWO_TENSORS} .*; if .* holds the targets, pass a criterion; else"),
        (None, {"inputs": X, "idx": 3}, r"model\(\*\*batch\) with \(inputs=Tensor of .*, idx=int\) for a dict"),
        (None, {}, r"model\(\*\*batch\) with \(\) for a dict"),
    ],
)
@pytest.mark.parametrize("wrap", [lambda model: model, SimpleModule])
def test_a_model_called_with_what_it_does_not_take_says_what_was_called_with_what(criterion, batch, message, wrap):
    with pytest.raises(ArgumentError, match=message) as caught:
        batch_loss(wrap(OnlyInputs()), criterion)(batch)
    assert isinstance(caught.value.__cause__, TypeError)


def test_a_criterion_that_cannot_use_the_outputs_says_what_it_was_given():
    model = Recording({"logits": torch.ones(4, 2)})
    with pytest.raises(
        ArgumentError, match=r"called criterion\(outputs, targets\) with \(dict, Tensor of shape \(4, 2\)\) .*loss_fn"
    ):
        batch_loss(model, nn.MSELoss())((X, Y))


def test_a_type_error_of_the_users_own_arrives_unchanged():
    error = TypeError("takes 2 positional arguments")

    class Broken(OnlyInputs):
        def forward(self, inputs):
            raise error

    def broken(outputs, targets):
        raise error

    for loss in (batch_loss(Broken(), nn.MSELoss()), batch_loss(Broken()), batch_loss(OnlyInputs(), broken)):
        with pytest.raises(TypeError) as caught:
            loss((X, Y)[: 2 if loss._criterion else 1])
        assert caught.value is error


@pytest.mark.parametrize(("value", "kind"), [(1.0, "float"), ("1.0", "str"), ((torch.ones(()), 1), "tuple")])
def test_a_loss_must_be_a_tensor(value, kind):
    with pytest.raises(ArgumentError, match=rf"loss_fn\(model, batch\) must return a scalar tensor, got {kind}"):
        batch_loss(Recording(), loss_fn=lambda model, batch: value)(1)


def test_a_loss_of_one_element_is_a_scalar():
    assert batch_loss(Recording(), loss_fn=lambda model, batch: torch.ones(1, 1))(1).shape == ()


# Autocast


@pytest.mark.parametrize("autocast", [torch.bfloat16, {"dtype": torch.bfloat16, "cache_enabled": False}])
def test_forward_and_criterion_run_under_autocast(autocast, device):
    model, data = model_and_data(device)
    seen = {}

    def criterion(outputs, targets):
        seen["outputs"] = outputs.dtype
        seen["enabled"] = torch.is_autocast_enabled(device.type)
        return nn.functional.mse_loss(outputs.float(), targets)

    step = TrainingStep(batch_loss(model, criterion, device=device, autocast=autocast), sgd(model))
    loss = step(data[:1])
    assert seen == {"outputs": torch.bfloat16, "enabled": True}
    assert not torch.is_autocast_enabled(device.type)
    assert loss.dtype == torch.float32


def test_autocast_may_be_switched_off():
    model, data = model_and_data()
    options = {"dtype": torch.bfloat16, "enabled": False}
    assert batch_loss(model, lambda o, t: o.sum(), autocast=options)(data[0]).dtype == torch.float32


# The training step


def sgd(model, **kwargs):
    return torch.optim.SGD(model.parameters(), **{"lr": 0.1, "momentum": 0.9, **kwargs})


def by_hand(model, optimizer, batches, criterion, *, clip=None, scaler=None):
    """Take one step as a tutorial would."""
    optimizer.zero_grad()
    losses = []
    for inputs, targets in batches:
        loss = criterion(model(inputs), targets)
        losses.append(loss.item())
        loss = loss / len(batches)
        (loss if scaler is None else scaler.scale(loss)).backward()
    if clip is not None:
        if scaler is not None:
            scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), clip)
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()
    return np.mean(losses)


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("scaled", [False, True])
def test_steps_are_those_of_a_loop_written_by_hand_bit_for_bit(accumulation, clip, scaled, device):
    model, data = model_and_data(device, batches=6)
    data = [(x.to(device), y.to(device)) for x, y in data]
    twin = copy.deepcopy(model)
    one, two = sgd(model), sgd(twin)
    scalers = [torch.amp.GradScaler(device.type, init_scale=2.0**10) if scaled else None for _ in range(2)]
    step = TrainingStep(
        batch_loss(model, nn.MSELoss(), device=device),
        one,
        accumulation_steps=accumulation,
        max_grad_norm=clip,
        grad_scaler=scalers[0],
    )
    for index in range(0, 6, accumulation):
        batches = data[index : index + accumulation]
        expected = by_hand(twin, two, batches, nn.MSELoss(), clip=clip, scaler=scalers[1])
        assert step(batches).item() == pytest.approx(expected, rel=1e-6)
        assert same(model, twin)
    assert step.skipped is False


def test_gradients_are_cleared_of_all_parameters_even_those_added_on_the_way():
    model, data = model_and_data()
    extra = nn.Parameter(torch.ones(3))
    optimizer = sgd(model)
    step = TrainingStep(batch_loss(model, nn.MSELoss()), optimizer)
    step([data[0]])
    optimizer.add_param_group({"params": [extra]})
    extra.grad = torch.ones(3)
    step([data[0]])
    assert extra.grad is None
    assert torch.equal(extra, torch.ones(3))


@pytest.mark.parametrize("where", ["class", "instance", "wrapper"])
def test_a_zero_grad_of_the_optimizers_own_is_called(where):
    model, data = model_and_data()
    calls = []

    class Own(torch.optim.SGD):
        def zero_grad(self, set_to_none=True):
            calls.append("class")
            super().zero_grad(set_to_none)

    class Wrapper:
        def __init__(self, optimizer):
            self.param_groups, self.step = optimizer.param_groups, optimizer.step

        def zero_grad(self):
            calls.append("wrapper")

    optimizer = (Own if where == "class" else torch.optim.SGD)(model.parameters(), lr=0.1)
    if where == "instance":
        optimizer.zero_grad = lambda: calls.append("instance")
    elif where == "wrapper":
        optimizer = Wrapper(optimizer)
        type(optimizer).step = torch.optim.SGD.step  # looked at for a closure
    TrainingStep(batch_loss(model, nn.MSELoss()), optimizer)([data[0]])
    assert calls == [where]


def test_accumulated_micro_batches_are_one_big_batch():
    model, data = model_and_data(dtype=torch.float64)
    twin = copy.deepcopy(model)
    big = tuple(torch.cat(parts) for parts in zip(*data, strict=True))
    options = {"max_grad_norm": 0.05}
    many = TrainingStep(batch_loss(model, nn.MSELoss()), sgd(model), accumulation_steps=4, **options)(data)
    once = TrainingStep(batch_loss(twin, nn.MSELoss()), sgd(twin), **options)([big])
    assert many.item() == pytest.approx(once.item(), rel=1e-12)
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_gradients_are_clipped_once_and_after_unscaling(monkeypatch):
    model, data = model_and_data()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14)
    norms = []
    clip = nn.utils.clip_grad_norm_

    def noting(parameters, max_norm):
        norms.append(float(clip(parameters, max_norm)))

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", noting)
    options = {"accumulation_steps": 2, "max_grad_norm": 0.01, "grad_scaler": scaler}
    optimizer = sgd(model, momentum=0.0, lr=1.0)
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    TrainingStep(batch_loss(model, nn.MSELoss()), optimizer, **options)(data[:2])
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert len(norms) == 1
    assert 0.01 < norms[0] < 100  # not scaled by 2 ** 14
    assert float((after - before).norm()) == pytest.approx(0.01, rel=1e-3)


def test_the_loss_is_detached_on_its_device_and_measured_before_the_step(device):
    class Itself(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([3.0]))

        def forward(self, _):
            return self.weight  # a loss that is the parameter itself

    model = Itself().to(device)
    loss = TrainingStep(batch_loss(model, device=device), sgd(model))([(1,)])
    assert loss.item() == 3.0
    assert model.weight.item() == pytest.approx(2.9)
    assert not loss.requires_grad
    assert loss.device.type == device.type


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.LBFGS])
def test_a_batch_is_moved_once_however_often_the_optimizer_looks_at_it(kind):
    model, data = model_and_data()
    moves, passes = [], []

    class Batch:
        def to(self, device):
            moves.append(device)

    def loss_fn(model, batch):
        passes.append(batch)
        return nn.functional.mse_loss(model(data[0][0]), data[0][1])

    TrainingStep(batch_loss(model, loss_fn=loss_fn), kind(model.parameters(), lr=0.1))([Batch()])
    assert moves == [CPU]
    assert len(passes) > 1 or kind is torch.optim.SGD


def test_batches_are_moved_and_the_users_own_are_left(device):
    model, data = model_and_data(device)
    seen = []
    step = TrainingStep(
        batch_loss(model, loss_fn=lambda m, b: seen.append(b) or m(b["x"]).mean(), device=device), sgd(model)
    )
    batch = {"x": data[0][0], "id": 3}
    step([batch])
    assert seen[0]["x"].device.type == device.type
    assert batch["x"] is data[0][0]
    assert batch["x"].device == CPU


def test_backward_receives_the_micro_batchs_loss_in_place_of_torchs():
    model, data = model_and_data()
    twin = copy.deepcopy(model)
    received = []

    def backward(loss):
        received.append(loss.item())
        (loss / 2).backward()

    step = TrainingStep(batch_loss(model, nn.MSELoss()), sgd(model), accumulation_steps=2, backward=backward)
    mean = step(data[:2])
    assert received == [nn.MSELoss()(twin(x), y).item() for x, y in data[:2]]
    assert mean.item() == pytest.approx(np.mean(received), rel=1e-6)
    by_hand(twin, sgd(twin), data[:2], nn.MSELoss())
    assert same(model, twin)


def test_a_skipped_step_of_a_scaler_is_recognized():
    model, data = model_and_data()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)  # overflows at once
    loss = batch_loss(model, lambda outputs, targets: 100 * nn.functional.mse_loss(outputs, targets))
    step = TrainingStep(loss, sgd(model, lr=1e-5), grad_scaler=scaler)
    before = copy.deepcopy(model)
    skips = []
    for _ in range(20):
        step(data[:1])
        skips.append(step.skipped)
        if step.skipped:
            assert same(model, before)
    assert skips[0] is True
    assert skips[-1] is False
    assert not same(model, before)
    assert skips == sorted(skips, reverse=True)


def test_a_scaler_that_is_switched_off_never_skips():
    model, data = model_and_data()
    step = TrainingStep(
        batch_loss(model, nn.MSELoss()), sgd(model), grad_scaler=torch.amp.GradScaler("cpu", enabled=False)
    )
    step(data[:1])
    assert step.skipped is False


def test_a_scaler_that_grows_did_not_skip():
    model, data = model_and_data()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0, growth_interval=1)
    step = TrainingStep(batch_loss(model, nn.MSELoss()), sgd(model), grad_scaler=scaler)
    step(data[:1])
    assert scaler.get_scale() == 4.0
    assert step.skipped is False


@pytest.mark.parametrize("scheduled", [False, True])
def test_only_lbfgs_needs_a_closure(scheduled):
    parameters = [nn.Parameter(torch.ones(2))]
    for optimizer, needs in [
        (torch.optim.LBFGS(parameters), True),
        (torch.optim.SGD(parameters, lr=0.1), False),
        (torch.optim.Adam(parameters), False),
        (SimpleNamespace(step=lambda: None), False),
    ]:
        if scheduled and isinstance(optimizer, torch.optim.Optimizer):
            torch.optim.lr_scheduler.StepLR(optimizer, 1)
        if isinstance(optimizer, torch.optim.Optimizer):
            assert needs_closure(optimizer) is needs


@pytest.mark.parametrize("accumulation", [1, 2])
def test_lbfgs_is_given_a_closure_and_reports_its_first_loss(accumulation):
    model, data = model_and_data(dtype=torch.float64)
    twin = copy.deepcopy(model)
    optimizers = [torch.optim.LBFGS(m.parameters(), lr=0.1, max_iter=4) for m in (model, twin)]
    calls = []

    def closure():
        optimizers[1].zero_grad()
        losses = [nn.MSELoss()(twin(x), y) for x, y in data[:accumulation]]
        for loss in losses:
            (loss / len(losses)).backward()
        nn.utils.clip_grad_norm_(twin.parameters(), 0.5)
        calls.append(sum(loss.item() for loss in losses) / len(losses))
        return sum(losses) / len(losses)

    step = TrainingStep(
        batch_loss(model, nn.MSELoss()), optimizers[0], accumulation_steps=accumulation, max_grad_norm=0.5
    )
    loss = step(data[:accumulation])
    optimizers[1].step(closure)
    assert len(calls) > 1
    assert loss.item() == pytest.approx(calls[0], rel=1e-12)
    assert calls[-1] != calls[0]
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


# Optimizers whose step may get a closure


class Closures(torch.optim.SGD):
    """Calls its closure, which its signature does not require, and counts the calls."""

    calls = 0

    def step(self, closure=None):
        losses = [closure() for _ in range(2)]
        self.calls += 2
        super().step()
        return losses[0]


class Asserting(torch.optim.SGD):
    def step(self, closure=None):
        assert closure is not None
        super().step()


class Calling(torch.optim.SGD):
    def step(self, closure=None):
        loss = closure()
        super().step()
        return loss


class NoClosureError(Exception):
    pass


class Raising(torch.optim.SGD):
    def step(self, closure=None):
        if closure is None:
            raise NoClosureError("give one")


class Required(torch.optim.SGD):
    def step(self, closure):
        super().step(closure)


@pytest.mark.parametrize(("kind", "closure"), [(Asserting, None), (Calling, None), (Raising, False), (Required, False)])
def test_a_step_that_asks_for_a_closure_is_an_error_that_names_the_remedies(kind, closure):
    model, data = model_and_data()
    before = copy.deepcopy(model)
    step = TrainingStep(batch_loss(model, nn.MSELoss()), kind(model.parameters(), lr=0.1), closure=closure)
    message = rf"must step after .* {kind.__name__} does not .*; pass closure=True, or .* step=\.\.\."
    with pytest.raises(ArgumentError, match=message) as caught:
        step(data[:1])
    assert type(caught.value.__cause__) in {AssertionError, TypeError, NoClosureError}
    assert same(model, before)


class Curvature(torch.optim.SGD):
    def step(self, closure=None):
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        torch.autograd.grad([gradient.sum() for gradient in gradients], self.param_groups[0]["params"])


class Fused(torch.optim.SGD):
    def step(self, closure=None):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("kind", "remedy"), [(Curvature, r"backward=lambda loss: .*create_graph=True\)"), (Fused, "the method that it has")]
)
def test_a_step_that_needs_another_backward_pass_is_an_error_that_names_the_remedy(kind, remedy):
    model, data = model_and_data()
    step = TrainingStep(batch_loss(model, nn.MSELoss()), kind(model.parameters(), lr=0.1))
    with pytest.raises(ArgumentError, match=rf"{kind.__name__} does not .*; .*{remedy}.*, or .* step=\.\.\."):
        step(data[:1])


def test_any_other_error_of_a_step_arrives_unchanged():
    class Broken(torch.optim.SGD):
        def step(self, closure=None):
            raise ZeroDivisionError("nothing to do with it")

    model, data = model_and_data()
    with pytest.raises(ZeroDivisionError):
        TrainingStep(batch_loss(model, nn.MSELoss()), Broken(model.parameters(), lr=0.1))(data[:1])


@pytest.mark.parametrize("accumulation", [1, 2])
def test_with_closure_the_gradients_are_computed_before_the_step_and_by_each_call(accumulation):
    model, data = model_and_data(dtype=torch.float64)
    twin = copy.deepcopy(model)
    optimizer = Closures(model.parameters(), lr=0.1)
    calls = []
    loss_fn = nn.MSELoss()

    def counted(outputs, targets):
        calls.append(1)
        return loss_fn(outputs, targets)

    step = TrainingStep(batch_loss(model, counted), optimizer, closure=True, accumulation_steps=accumulation)
    loss = step(data[:accumulation])
    assert optimizer.calls == 2
    assert len(calls) == 3 * accumulation
    expected = sum(loss_fn(twin(x), y) for x, y in data[:accumulation]) / accumulation
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    expected.backward()
    torch.optim.SGD(twin.parameters(), lr=0.1).step()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_two_passes_are_recognised_and_taken_as_by_hand():
    model, data = model_and_data()
    twin = copy.deepcopy(model)
    mine, theirs = (SAM(m.parameters(), torch.optim.SGD, lr=0.1) for m in (model, twin))

    def closure():
        theirs.zero_grad()
        loss = nn.MSELoss()(twin(data[0][0]), data[0][1])
        loss.backward()
        return loss

    first = closure()
    theirs.step(closure)
    assert torch.equal(TrainingStep(batch_loss(model, nn.MSELoss()), mine)(data[:1]), first.detach())
    assert same(model, twin)


def test_sparse_gradients_cannot_be_clipped():
    model = nn.Embedding(5, 2, sparse=True)
    step = TrainingStep(
        batch_loss(model, loss_fn=lambda m, b: m(b).sum()),
        torch.optim.SGD(model.parameters(), lr=0.1),
        max_grad_norm=1.0,
    )
    before = model.weight.detach().clone()
    with pytest.raises(ArgumentError, match=r"LRFinder\(max_grad_norm=1.0\) cannot clip sparse.*sparse=False"):
        step([torch.tensor([1, 2])])
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize(
    "loss_fn",
    [
        lambda model, batch: model(batch).mean().detach(),
        lambda model, batch: torch.tensor(model(batch).mean().item()),
        lambda model, batch: torch.ones((), dtype=torch.long),
    ],
)
def test_a_loss_without_a_gradient_is_an_error(loss_fn):
    model, data = model_and_data()
    before = copy.deepcopy(model)
    step = TrainingStep(batch_loss(model, loss_fn=loss_fn), sgd(model))
    with pytest.raises(ArgumentError, match="must depend on trainable parameters, got a loss without a gradient"):
        step([data[0][0]])
    assert same(model, before)


# The user's own step


@pytest.mark.parametrize(
    "loss", [1.5, np.float32(1.5), np.float64(1.5), torch.tensor(1.5), torch.tensor([1.5], requires_grad=True)]
)
def test_a_users_step_may_return_a_tensor_or_a_number(loss):
    step = UserStep(lambda batch: loss, CPU)
    value = step([0])
    assert value.item() == 1.5
    assert value.shape == ()
    assert not value.requires_grad
    assert (step.skipped, step.accumulation_steps) == (False, 1)


def test_a_users_step_is_given_the_moved_batch():
    seen = []
    UserStep(lambda batch: seen.append(batch) or 1, torch.device("meta"))([{"x": torch.ones(2), "id": 1}])
    assert seen[0]["x"].device.type == "meta"
    assert seen[0]["id"] == 1


@pytest.mark.parametrize(("loss", "kind"), [(None, "NoneType"), ("1", "str"), (True, "bool"), ({"loss": 1}, "dict")])
def test_a_users_step_must_return_its_loss(loss, kind):
    with pytest.raises(ArgumentError, match=rf"step\(batch\) must return a scalar tensor, got {kind}"):
        UserStep(lambda batch: loss, CPU)([0])


def test_a_users_step_must_return_a_scalar():
    with pytest.raises(ArgumentError, match=r"step\(batch\) must return a scalar loss, got a tensor of shape \(3,\)"):
        UserStep(lambda batch: torch.ones(3), CPU)([0])
