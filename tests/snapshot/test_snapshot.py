"""A snapshot restores through faults and interrupts, keeps compiled graphs, and frees its memory."""

import gc
import os
import signal
import threading
import weakref
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from lrfinder import RestoreError, Snapshot
from lrfinder.snapshot.storage import StorageCopies
from tests.fingerprint import bits
from tests.snapshot.promise import Fault, Watch, check, fail_within, mlp, trainer


class Broken:
    """Extra state that cannot be loaded."""

    def __init__(self):
        self.fails = True

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        if self.fails:
            raise Fault("no way back")


def test_restoring_goes_on_and_names_what_failed():
    model, broken = mlp(), Broken()
    model[0].bias.grad = grad = torch.ones(8)
    watch = Watch(model=model)
    snapshot = Snapshot([model], extra_state=[broken])
    model[0].weight.data.zero_()
    torch.rand(1)
    with pytest.raises(RestoreError, match=r"Could not put back: Broken \(Fault: no way back\)\. Everything") as caught:
        snapshot.restore()
    assert isinstance(caught.value.__cause__, Fault)
    watch.assert_as_before()
    assert model[0].bias.grad is grad
    broken.fails = False
    snapshot.restore()  # may be tried again
    watch.assert_as_before()


def test_a_tensor_that_cannot_be_put_back_is_named():
    model = mlp()
    model.register_buffer("base", torch.ones(4))
    model.register_buffer("part", model.base[:2])
    weight = bits(model[0].weight)
    snapshot = Snapshot([model])
    model.part.mul_(model[0].weight[0, 0])
    model[0].weight.data.zero_()
    with pytest.raises(RestoreError, match=r"Sequential\.part \(RuntimeError: Can't detach views in-place"):
        snapshot.restore()
    assert bits(model[0].weight) == weight


@pytest.mark.parametrize("fault", [Fault, StopIteration, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_the_users_exception_arrives_unchanged(fault):
    model = mlp()
    watch = Watch(model=model)
    error = fault("the user's")
    with pytest.raises(fault) as caught:
        fail_within(model[0].weight.data.zero_, [model], error=error)
    assert caught.value is error
    assert error.__cause__ is None
    assert error.__context__ is None
    watch.assert_as_before()


def test_an_interrupt_waits_until_restoring_is_done():
    class Interrupting(Broken):
        def load_state_dict(self, state):
            signal.raise_signal(signal.SIGINT)

    model = mlp()
    watch = Watch(model=model)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fail_within(model[0].weight.data.zero_, [model], extra_state=[Interrupting()])
    watch.assert_as_before()
    assert signal.getsignal(signal.SIGINT) is handler


def test_an_interrupt_while_taking_leaves_the_gradients():
    class Interrupting(Broken):
        def state_dict(self):
            os.kill(os.getpid(), signal.SIGINT)
            return {}

        def load_state_dict(self, state):
            assert state == {}

    model = mlp()
    model[0].bias.grad = grad = torch.ones(8)
    with pytest.raises(KeyboardInterrupt):
        Snapshot([model], extra_state=[Interrupting()])
    assert model[0].bias.grad is grad


def test_in_another_thread():
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters())
    errors = []

    def work():
        try:
            check(model, trainer(model, optimizer), optimizers=[optimizer])
        except Exception as error:  # noqa: BLE001 - shown by the assertion below
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == []


def test_a_snapshot_of_nothing_can_be_used():
    snapshot = Snapshot()
    snapshot.verify()
    snapshot.rewind()
    snapshot.restore()
    snapshot.verify()


def test_dropping_an_unused_snapshot_gives_the_gradients_back():
    """As when an interrupt arrives after the constructor has returned and before `with` has begun."""
    model = mlp()
    model[0].bias.grad = grad = torch.ones(8)
    Snapshot([model])
    gc.collect()
    assert model[0].bias.grad is grad


def test_dropping_a_snapshot_after_training_brings_no_old_gradient_back():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    snapshot = Snapshot([model], [optimizer])
    trainer(model, optimizer)()
    optimizer.zero_grad()
    del snapshot
    gc.collect()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_restored_snapshot_is_over():
    model = mlp()
    snapshot = Snapshot([model])
    snapshot.restore()
    model[0].weight.data.zero_()
    snapshot.restore()  # does nothing
    assert model[0].weight.abs().sum() == 0
    with pytest.raises(RestoreError, match="called after `restore`"):
        snapshot.rewind()


def test_a_fault_at_every_step_of_training():
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters())
    trainer(model, optimizer)()
    watch = Watch(model=model, optimizer=optimizer)

    def fault(*_):
        raise Fault

    places = [
        lambda: model[1].register_forward_pre_hook(fault),
        lambda: model[4].register_full_backward_hook(fault),
        lambda: model[0].weight.register_hook(fault),
        lambda: model[0].weight.register_post_accumulate_grad_hook(fault),
        lambda: optimizer.register_step_pre_hook(fault),
        lambda: optimizer.register_step_post_hook(fault),
    ]

    def train(place):
        with Snapshot([model], [optimizer]):
            place()
            trainer(model, optimizer)()

    for place in places:
        with pytest.raises(Fault):
            train(place)
        watch.assert_as_before()
    trainer(model, optimizer)()


# torch.compile


def test_compiled_graphs_stay_valid():
    counts = []

    def backend(graph, _):
        counts.append(graph)
        return graph.forward

    model = mlp()
    model.n = 0
    compiled = torch.compile(model, backend=backend)
    optimizer = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.01), capturable=False, foreach=False)
    train = trainer(compiled, optimizer)
    train()
    watch = Watch(model=model, optimizer=optimizer)
    before = len(counts)
    assert before > 0
    with Snapshot([compiled], [optimizer]) as snapshot:
        train()
        snapshot.rewind()
        train()
    train_again = len(counts)
    watch.assert_as_before()
    train()
    assert train_again == len(counts) == before


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_compiled_optimizer_stays_compiled():
    counts = []

    def backend(graph, _):
        counts.append(graph)
        return graph.forward

    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.01), momentum=0.9)

    @torch.compile(backend=backend)
    def step():
        optimizer.step()

    def train():
        for _ in range(2):
            model(torch.randn(3, 4)).square().mean().backward()
            step()

    train()
    train()
    before = len(counts)
    assert before > 0
    with Snapshot([model], [optimizer]) as snapshot:
        train()
        snapshot.rewind()
        train()
    train()
    assert len(counts) == before


# Cost


def test_many_small_tensors_are_copied_in_few_operations():
    from torch.utils._python_dispatch import TorchDispatchMode

    class Count(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.copies = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.copies += any(word in str(function) for word in ("copy", "clone", "item", "_local_scalar"))
            return function(*args, **(kwargs or {}))

    model = nn.ParameterList(nn.Parameter(torch.randn(3, 3)) for _ in range(1000))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for parameter in model:
        parameter.grad = torch.ones(3, 3)
    optimizer.step()
    with Count() as count, Snapshot([model], [optimizer]) as snapshot:
        snapshot.rewind()
    assert 0 < count.copies <= 6


def test_a_snapshot_gives_its_memory_up():
    model = mlp()
    model[0].bias.grad = torch.ones(8)
    grad = weakref.ref(model[0].bias.grad)
    snapshot = Snapshot([model])
    copies = next(part for _, part in snapshot._parts if isinstance(part, StorageCopies))
    memory = weakref.ref(copies._saved[0])
    del copies
    snapshot.restore()
    model[0].bias.grad = None
    gc.collect()
    assert (memory(), grad()) == (None, None)


def test_cycles_namespaces_and_dataclasses():
    @dataclass
    class Meter:
        total: float = 0.0

    model = mlp()
    model.itself = [model]
    model.meter = Meter()
    model.table = {i: i for i in range(100)}
    watch = Watch(model=model)
    with Snapshot([model]):
        model.meter.total += 1
        model.itself.append(1)
        model.table.pop(3)
        model.table[3] = 3
    watch.assert_as_before()


def test_an_inner_snapshot_copies_only_what_the_outer_has_not():
    model = nn.Sequential(nn.Linear(300, 300), nn.Linear(300, 300))
    before = [bits(p) for p in model.parameters()]
    with Snapshot([model]) as outer:
        with torch.no_grad():
            model[1].bias.add_(1)  # so this one is copied again
        between = [bits(p) for p in model.parameters()]
        with Snapshot([model], outer=outer) as inner:
            shared = {id(saved) for copies in outer._copies for _, saved in copies.pairs()}
            pairs = [pair for copies in inner._copies for pair in copies.pairs()]
            copied = [region.name for region, saved in pairs if id(saved) not in shared]
            assert copied == ["Sequential.1.bias"]
            for p in model.parameters():
                nn.init.zeros_(p)
            inner.rewind()
            assert [bits(p) for p in model.parameters()] == between
            for p in model.parameters():
                nn.init.ones_(p)
        assert [bits(p) for p in model.parameters()] == between
    assert [bits(p) for p in model.parameters()] == before
