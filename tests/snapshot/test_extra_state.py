"""The gradient scaler, random number generators, loaders, extra state, and where copies are kept."""

import copy
import io
import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from lrfinder import ArgumentError, LRFinderWarning, RestoreError, Snapshot
from lrfinder.snapshot import object_graph
from tests.fingerprint import bytes_copied, differences, random_state
from tests.snapshot.promise import Fault, Watch, check, fail_within, mlp, trainer


@pytest.mark.parametrize("used", [False, True])
def test_grad_scaler(used):
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2)

    def train():
        losses = []
        for _ in range(3):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(torch.randn(6, 4)).float().square().mean()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            losses.append(loss.item())
        return losses

    if used:
        train()
    check(model, train, optimizers=[optimizer], grad_scaler=scaler, watched=vars(scaler))
    assert (scaler._scale is None) == (not used)

    def begin_a_step():
        scaler.scale(model(torch.randn(6, 4)).mean()).backward()
        scaler.unscale_(optimizer)
        optimizer.grad_scale = torch.tensor(4.0)  # what a fault within a fused step leaves behind
        optimizer.found_inf = torch.tensor(0.0)

    with pytest.raises(Fault):
        fail_within(begin_a_step, [model], [optimizer], grad_scaler=scaler)
    assert not hasattr(optimizer, "grad_scale")
    assert not hasattr(optimizer, "found_inf")
    train()  # the stage is not left at UNSCALED


def test_random_streams_are_put_back_after_code_of_the_user_that_draws():
    class Drawing:
        def state_dict(self):
            return {}

        def load_state_dict(self, state):
            torch.rand(1), random.random(), np.random.random()  # noqa: NPY002 - the global stream is meant

    model = mlp()
    before = random_state()
    with Snapshot([model], extra_state=[Drawing()]):
        torch.rand(3), random.random(), random.gauss(0, 1), np.random.random()  # noqa: NPY002 - the global stream is meant
    assert differences(before, random_state()) == []


def test_loaders_and_further_parts_come_back_last_and_not_without_streams():
    log = []

    class Part:
        def __init__(self, name):
            self.name = name

        def restore(self, errors):
            log.append((self.name, sampler.epoch))

    model = mlp()
    sampler = torch.utils.data.DistributedSampler(range(4), 2, 0)
    loader = torch.utils.data.DataLoader(range(4), sampler=sampler)
    snapshot = Snapshot([model], loaders=[loader], parts=[Part("first"), Part("last")])
    sampler.set_epoch(3)
    torch.rand(1)
    model[0].weight.data.zero_()
    state = torch.get_rng_state()
    snapshot.rewind(streams=False)
    assert log == []
    assert sampler.epoch == 3
    assert model[0].weight.abs().sum() > 0
    assert torch.equal(torch.get_rng_state(), state)
    snapshot.rewind()
    assert log == [("first", 0), ("last", 0)]
    assert not torch.equal(torch.get_rng_state(), state)


def test_extra_state():
    class Counter:
        def __init__(self):
            self.state = {"n": 0, "tensor": torch.zeros(2), "list": [1]}

        def state_dict(self):
            return self.state

        def load_state_dict(self, state):
            self.state = state

    other = mlp()
    optimizer = torch.optim.Adam(other.parameters())
    counter, generator = Counter(), torch.Generator().manual_seed(1)
    numpy_rng, legacy, python_rng = np.random.default_rng(1), np.random.RandomState(1), random.Random(1)
    rngs = [generator, numpy_rng, legacy, python_rng]

    def draw():
        return [
            torch.rand(2, generator=generator).tolist(), numpy_rng.normal(), legacy.randn(), python_rng.gauss(0, 1),
        ]  # fmt: skip

    watch = Watch(other=other, optimizer=optimizer)
    results = []
    with Snapshot(extra_state=[other, optimizer, counter, *rngs]) as snapshot:
        for _ in range(3):
            counter.state["n"] += 1
            counter.state["tensor"].add_(1)
            counter.state["list"].append(2)
            results.append((trainer(other, optimizer)(), draw(), copy.deepcopy(counter.state["list"])))
            snapshot.rewind()
    watch.assert_as_before()
    assert results[0] == results[1] == results[2]
    assert draw() == results[0][1]
    assert (counter.state["n"], counter.state["tensor"].tolist(), counter.state["list"]) == (0, [0, 0], [1])


@pytest.mark.parametrize("extra", [1, "text", io.StringIO()])
def test_extra_state_that_cannot_be_captured_is_refused(extra):
    model = mlp()
    model[0].bias.grad = grad = torch.ones(8)
    with pytest.raises(ArgumentError, match=r"`extra_state` takes modules.*got extra=.*leave it out"):
        Snapshot([model], extra_state=[extra])
    assert model[0].bias.grad is grad


class Holder:
    pass


def test_large_tensors_of_ordinary_objects_are_not_copied_and_warned_about_if_they_change(monkeypatch):
    monkeypatch.setattr(object_graph, "LARGEST", 100)
    model, holder = nn.Linear(2, 2), Holder()
    holder.data, holder.small = torch.zeros(1000), torch.zeros(2)
    model.holder = holder
    with Snapshot([model]) as snapshot:
        assert bytes_copied(snapshot) < 200
        holder.small += 1
    message = r"Linear\.holder\.data changed and could not be .* in extra_state\."
    with pytest.warns(LRFinderWarning, match=message), Snapshot([model]):
        holder.data += 1
    with Snapshot([model], extra_state=[holder.data]):
        holder.data += 1
    assert (holder.data.max(), holder.small.max()) == (1, 0)


def test_warning_where_the_training_leads_to_too_many_objects(monkeypatch):
    monkeypatch.setattr(object_graph, "MOST_OBJECTS", 10)
    model, holder = nn.Linear(2, 2), Holder()
    model.holder = holder
    holder.items = [Holder() for _ in range(20)]
    model.bias.grad = grad = torch.ones(2)
    with pytest.warns(
        LRFinderWarning, match=r"Linear\.holder\.items\[\d\] and what comes after it will not be restored"
    ):
        Snapshot([model])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(LRFinderWarning):
            Snapshot([model])
    assert model.bias.grad is grad


def test_extra_state_may_be_ordinary_objects_and_containers():
    class Counter:
        def __init__(self):
            self.n, self.history = 0, [1]

    counter, table, mean = Counter(), {"a": [1]}, torch.zeros(2)
    history = counter.history
    with Snapshot(extra_state=[counter, table, mean]) as snapshot:
        for _ in range(2):
            counter.n += 1
            counter.history = [2]
            history.append(3)
            table["a"].append(2)
            mean += 1
            snapshot.rewind()
            assert (counter.n, table, mean.tolist()) == (0, {"a": [1]}, [0, 0])
    assert counter.history is history
    assert history == [1]


def test_snapshot_device():
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters())
    check(model, trainer(model, optimizer), optimizers=[optimizer], snapshot_device="cpu")
    with pytest.raises(ArgumentError, match=r"`snapshot_device` must name a device, .*got 'nowhere'"):
        Snapshot([model], snapshot_device="nowhere")
    with pytest.raises(ArgumentError, match=r"`snapshot_device` must have memory, got 'meta'"):
        Snapshot([model], snapshot_device="meta")


@pytest.mark.parametrize("where", [None, "cpu"])
def test_on_an_accelerator(device, where):
    if device.type == "cpu":
        pytest.skip("needs --device cuda")
    model = mlp(device)
    for index in range(30):
        model.register_buffer(f"odd{index}", torch.randn(index + 1, device=device)[index % 3 :].to(torch.bfloat16))
    model.large = torch.randn(3_000_000, device=device)
    model.frozen = nn.Parameter(torch.randn(500, device=device), requires_grad=False)
    model.column = torch.randn(50, 3, device=device)[:, 1]
    optimizer = torch.optim.AdamW(model.parameters(), lr=torch.tensor(0.1, device=device), capturable=True)
    optimizer.param_groups[0]["params"] = [p for p in model.parameters() if p.requires_grad]
    plain = trainer(model[:5], optimizer)

    def train():
        model.large.mul_(0.5)
        model.column.add_(1)
        model.frozen.data.add_(1)
        for index in range(30):
            getattr(model, f"odd{index}").add_(torch.rand((), device=device))
        return plain()

    check(model, train, optimizers=[optimizer], snapshot_device=where)
    model.frozen.data.sub_(1)
    with pytest.raises(RestoreError, match=r"frozen"):
        check(model, train, optimizers=[optimizer], snapshot_device=where, snapshot_frozen=False)
