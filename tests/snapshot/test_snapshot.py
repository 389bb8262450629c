"""Everything that training changes is put back in place, bit for bit: parameters, state, gradients, streams."""

import copy
import gc
import io
import os
import random
import signal
import threading
import types
import warnings
import weakref
from collections import OrderedDict, deque
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lrfinder import ArgumentError, LRFinderWarning, RestoreError, Snapshot
from lrfinder.snapshot import object_graph
from lrfinder.snapshot.storage import StorageCopies
from tests.fingerprint import Fingerprint, bits, bytes_copied, differences, random_state


class Fault(Exception):
    """What the user's code raises in these tests."""


class Watch:
    """Compares identities and bits of everything with what they were."""

    def __init__(self, **roots):
        self._roots = roots
        self._before = self._look()

    def _look(self):
        return {**Fingerprint(**self._roots).values, **random_state()}

    def assert_as_before(self):
        assert differences(self._before, self._look()) == []

    def assert_changed(self):
        assert differences(self._before, self._look()) != []


def fail_within(work, modules=(), optimizers=(), *, error=None, **options):
    """Do some work within a snapshot, then raise."""
    with Snapshot(modules, optimizers, **options):
        work()
        raise Fault if error is None else error


def check(model, train, *, optimizers=(), modules=None, watched=None, **options):
    """Train around a snapshot: clean, twice rewound, faulted; each time everything must be as before."""
    modules = [model] if modules is None else modules
    watch = Watch(model=model, modules=modules, optimizers=optimizers, more=watched)
    with Snapshot(modules, optimizers, **options) as snapshot:
        train()
        watch.assert_changed()
        snapshot.rewind()
        first = train()
        snapshot.rewind()
        assert train() == first
    watch.assert_as_before()
    with pytest.raises(Fault):
        fail_within(train, modules, optimizers, **options)
    watch.assert_as_before()


def mlp(device="cpu"):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2)).to(device)


def trainer(model, optimizer, *, shape=(6, 4), steps=2, loss=None):
    """Return a function that trains for some steps on random batches and returns the losses."""

    def train():
        losses = []
        device = next(model.parameters()).device

        def closure():
            optimizer.zero_grad()
            outputs = model(torch.randn(shape, device=device) + random.random() + np.random.random())  # noqa: NPY002 - the global stream is meant
            value = (outputs**2).mean() if loss is None else loss(outputs)
            value.backward()
            losses.append(value.item())
            return value

        for _ in range(steps):
            optimizer.step(closure)
        return losses

    return train


# --- optimizers


class OneOfEach(nn.Module):
    """A model with tensors of two, one and no dimensions."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, inputs):
        return self.layer(inputs) * self.scale


OPTIMIZERS = {
    "Adafactor": {}, "Adadelta": {}, "Adagrad": {"lr_decay": 0.1}, "Adam": {"amsgrad": True}, "AdamW": {}, "Adamax": {},
    "ASGD": {"t0": 1}, "LBFGS": {"max_iter": 3, "history_size": 2}, "Muon": {}, "NAdam": {}, "RAdam": {},
    "RMSprop": {"momentum": 0.9, "centered": True}, "Rprop": {}, "SGD": {"momentum": 0.9, "nesterov": True},
    "SparseAdam": {},
}  # fmt: skip
OPTIMIZERS = {name: options for name, options in OPTIMIZERS.items() if hasattr(torch.optim, name)}  # no Muon before 2.9


def make(name, **options):
    torch.manual_seed(3)
    if name == "SparseAdam":
        model = nn.Sequential(nn.Embedding(20, 3, sparse=True))
        return model, torch.optim.SparseAdam(model.parameters(), **options), (0, 20)
    model = nn.Linear(4, 3, bias=False) if name == "Muon" else OneOfEach()
    return model, getattr(torch.optim, name)(model.parameters(), **{**OPTIMIZERS[name], **options}), None


def steps_of(model, optimizer, tokens):
    def train(steps=2):
        losses = []

        def closure():
            optimizer.zero_grad()
            inputs = torch.randn(5, 4) if tokens is None else torch.randint(*tokens, (5,))
            loss = (model(inputs) ** 2).mean()
            loss.backward()
            losses.append(loss.item())
            return loss

        for _ in range(steps):
            optimizer.step(closure)
        return losses

    return train


def test_every_optimizer_of_torch_is_listed():
    classes = {name for name in torch.optim.__all__ if isinstance(getattr(torch.optim, name), type)}
    assert classes - {"Optimizer"} == set(OPTIMIZERS)


VARIANTS = [(name, {}) for name in OPTIMIZERS] + [
    ("SGD", {"fused": True}), ("SGD", {"foreach": True}), ("Adam", {"fused": True}), ("Adam", {"foreach": True}),
    ("AdamW", {"fused": True}), ("Adagrad", {"fused": True}), ("Adam", {"foreach": False, "lr": torch.tensor(0.01)}),
    ("LBFGS", {"lr": torch.tensor(0.1)}), ("SGD", {"lr": torch.tensor(0.1), "foreach": False}),
    ("LBFGS", {"line_search_fn": "strong_wolfe"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=lambda value: str(value).replace("tensor", ""))
@pytest.mark.parametrize("history", [0, 2])
def test_optimizers(name, options, history):
    options = {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in options.items()}
    model, optimizer, tokens = make(name, **options)
    train = steps_of(model, optimizer, tokens)
    train(history)
    check(model, lambda: train(3), optimizers=[optimizer])


@pytest.mark.parametrize(("name", "options"), VARIANTS[::3], ids=lambda value: str(value).replace("tensor", ""))
def test_training_goes_on_with_the_same_bits(name, options):
    results = []
    for with_snapshot in (False, True):
        fresh = {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in options.items()}
        model, optimizer, tokens = make(name, **fresh)
        train = steps_of(model, optimizer, tokens)
        train(2)
        if with_snapshot:
            with Snapshot([model], [optimizer]):
                train(3)
        results.append((train(3), [bits(p) for p in model.parameters()]))
    assert results[0] == results[1]


def test_reading_does_not_insert_into_the_state():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with Snapshot([model], [optimizer]):
        assert not optimizer.state


def test_attributes_of_an_optimizer_and_a_scheduler_on_it():
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    step, before = optimizer.step, dict(vars(scheduler))
    train = trainer(model, optimizer)
    check(model, train, optimizers=[optimizer], watched=scheduler)
    assert "_opt_called" not in vars(optimizer)
    with Snapshot([model], [optimizer]):
        train()
        assert optimizer._opt_called
        optimizer.step = lambda: None
    assert optimizer.step is step
    assert dict(vars(scheduler)) == before


def test_groups_are_put_back_in_place():
    model = mlp()
    rate = torch.tensor(0.1)
    optimizer = torch.optim.SGD([{"params": model[0].parameters()}, {"params": model[4].parameters()}], lr=rate)
    groups, first = optimizer.param_groups, optimizer.param_groups[0]
    assert first["lr"] is optimizer.param_groups[1]["lr"] is rate is optimizer.defaults["lr"]
    with Snapshot([model], [optimizer]):
        rate.fill_(3)
        first["lr"] = 7.0
        first["initial_lr"] = 1.0
        del optimizer.param_groups[1]
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))], "lr": 0.1})
        optimizer.defaults["lr"] = 0.5
    assert optimizer.param_groups is groups
    assert groups[0] is first
    assert first["lr"] is groups[1]["lr"] is rate is optimizer.defaults["lr"]
    assert rate.item() == pytest.approx(0.1)
    assert len(groups) == 2
    assert "initial_lr" not in first


def test_load_state_dict_is_undone_with_all_identities():
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.1), foreach=False)
    trainer(model, optimizer)()
    watch = Watch(model=model, optimizer=optimizer)
    with Snapshot([model], [optimizer]):
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        watch.assert_changed()
    watch.assert_as_before()


def test_a_wrapper_that_holds_the_optimizer():
    class Wrapper:
        def __init__(self, optimizer):
            self.optimizer = optimizer
            self.calls = 0

        @property
        def param_groups(self):
            raise AssertionError("a property is not read")

        def step(self):
            self.calls += 1
            self.optimizer.step()

    model = mlp()
    inner = torch.optim.Adam(model.parameters())
    wrapper = Wrapper(inner)

    def train():
        inner.zero_grad()
        loss = (model(torch.randn(5, 4)) ** 2).mean()
        loss.backward()
        wrapper.step()
        return loss.item()

    check(model, train, optimizers=[wrapper])
    assert wrapper.calls == 0
    assert not inner.state


leaf_values = st.one_of(st.integers(), st.floats(), st.booleans(), st.none(), st.text(max_size=3), st.just("tensor"))
nested_values = st.recursive(
    leaf_values,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(max_size=2), inner, max_size=3),
        st.tuples(inner, inner),
        st.lists(inner, max_size=3).map(deque),
        st.dictionaries(st.text(max_size=2), inner, max_size=3).map(OrderedDict),
    ),
    max_leaves=8,
)


def grow(value, pool):
    """Replace the word "tensor" by tensors, of which some are shared."""
    if isinstance(value, str) and value == "tensor":
        if len(pool) < 3:
            pool.append(torch.randn(2))
        return pool[int(torch.randint(len(pool), ()))]
    if isinstance(value, dict):
        return type(value)((key, grow(item, pool)) for key, item in value.items())
    if isinstance(value, (list, tuple, deque)):
        return type(value)(grow(item, pool) for item in value)
    return value


def spoil(value, rng):
    """Change nested state in place, all over."""
    if isinstance(value, torch.Tensor):
        value.add_(1)
        return
    for item in list(value.values()) if isinstance(value, dict) else list(value):
        if isinstance(item, (torch.Tensor, dict, list, tuple, deque)):
            spoil(item, rng)
    if isinstance(value, dict):
        for key in [key for key in value if rng.random() < 0.4]:
            value[key] = torch.zeros(1) if rng.random() < 0.5 else value.pop(key)
        value["new"] = rng.random()
    elif isinstance(value, (list, deque)):
        if value and rng.random() < 0.5:
            value.pop()
        value.append(rng.random())


@settings(max_examples=60, deadline=None)
@given(st.lists(nested_values, min_size=1, max_size=3), st.integers(0, 1000))
def test_nested_state_with_aliases(values, seed):
    torch.manual_seed(seed)
    parameters = [nn.Parameter(torch.randn(2)) for _ in values]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    pool = []
    for parameter, value in zip(parameters, values, strict=True):
        optimizer.state[parameter]["nested"] = grow(value, pool)
    before = Fingerprint(optimizer=optimizer).values
    with Snapshot([], [optimizer]) as snapshot:
        for round_ in range(2):
            spoil(optimizer.state, random.Random(seed + round_))
            snapshot.rewind()
        spoil(optimizer.state, random.Random(seed))
    assert differences(before, Fingerprint(optimizer=optimizer).values) == []


# --- modules


class Stateful(nn.Module):
    """A module that changes itself in every way known."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64), persistent=False)
        self.register_buffer("replaced", torch.zeros(3))
        self.register_buffer("lazy", None)
        self.n = 0
        self.history = []
        self.recent = deque(maxlen=3)
        self.seen = set()
        self.stats = {"min": 0.0, "nested": {"list": [1, 2]}}
        self.array = np.zeros(3)
        self.cached = torch.zeros(2)
        self.teacher = [nn.Linear(4, 4)]
        self.noise = torch.Generator().manual_seed(5)
        self.rng = np.random.default_rng(1)
        self.space = types.SimpleNamespace(calls=0)

    def forward(self, inputs):
        self.n += 1
        self.count += 1
        self.replaced = self.replaced + 1
        if self.lazy is None:
            self.lazy = torch.ones(2)
        self.lazy += 1
        self.history.append(float(inputs.sum()))
        self.recent.append(self.n)
        self.seen.add(self.n)
        self.stats["nested"]["list"].append(self.n)
        self.stats["min"] = self.n
        self.stats[self.n] = 1
        self.array += self.rng.random(3)
        self.cached.copy_(inputs[0, :2])
        self.fresh = inputs
        self.space.calls += 1
        with torch.no_grad():
            self.teacher[0].weight.data.mul_(0.9).add_(self.layer.weight.data, alpha=0.1)
        noise = torch.randn(inputs.shape, generator=self.noise)
        if self.n == 2:
            self.extra = nn.Linear(4, 4)
            self.layer.register_forward_hook(lambda *_: None)
            self.layer.register_parameter("late", nn.Parameter(torch.ones(1)))
            self.layer.bias.requires_grad_(False)
            self.layer.weight.register_hook(lambda grad: grad * 0.5)
            self.layer.weight.mark = "mark"
            self.eval()
        return self.layer(inputs + noise)


def test_a_module_that_changes_itself_in_every_way():
    model = Stateful()
    optimizer = torch.optim.SGD(model.layer.parameters(), lr=0.1, momentum=0.9)
    check(model, trainer(model, optimizer, steps=3), optimizers=[optimizer])
    assert (model.n, model.history, list(model.recent), model.lazy) == (0, [], [], None)
    assert model.training
    assert model.layer.bias.requires_grad
    assert model.stats == {"min": 0.0, "nested": {"list": [1, 2]}}


def test_replaced_parameters_and_modules():
    model = mlp()
    before = Watch(model=model)
    with Snapshot([model]) as snapshot:
        for _ in range(2):
            model[0].weight = nn.Parameter(torch.zeros(8, 4))
            model[4] = nn.Linear(8, 3)
            model[0].bias.data = torch.zeros(5)
            model.append(nn.ReLU())
            del model[2]
            model.to(torch.float64)
            model[0].requires_grad_(False)
            model[1].num_batches_tracked = None
            snapshot.rewind()
    before.assert_as_before()


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("norm", ["old_weight", "old_spectral", "weight", "spectral"])
def test_normed_weights(norm):
    wrap = {
        "old_weight": nn.utils.weight_norm,
        "old_spectral": nn.utils.spectral_norm,
        "weight": parametrizations.weight_norm,
        "spectral": parametrizations.spectral_norm,
    }[norm]
    model = nn.Sequential(wrap(nn.Linear(4, 4)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    check(model, trainer(model, optimizer), optimizers=[optimizer])


def test_inference_buffers():
    model = mlp()
    with torch.inference_mode():
        buffer = torch.ones(3)
    model.register_buffer("statistics", buffer)
    before = bits(buffer)
    with Snapshot([model]), torch.inference_mode():
        buffer.add_(1)
    assert model.statistics is buffer
    assert bits(buffer) == before


def test_a_buffer_updated_in_place_with_gradients():
    model = mlp()
    model.register_buffer("trace", torch.ones(4))
    with Snapshot([model]):
        model.trace.mul_(model[0].weight[0])
        assert not model.trace.is_leaf
    assert model.trace.is_leaf
    assert not model.trace.requires_grad
    assert bits(model.trace) == bits(torch.ones(4))


def test_rnn_and_its_list_of_weights():
    model = nn.Sequential(nn.LSTM(4, 3, dropout=0.1, num_layers=2))
    optimizer = torch.optim.Adam(model.parameters())
    train = trainer(model, optimizer, shape=(2, 5, 4), loss=lambda outputs: outputs[0].square().mean())
    check(model, train, optimizers=[optimizer])


def test_a_criterion_with_parameters_and_an_average():
    class ArcLike(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(2, 2))
            self.register_buffer("center", torch.zeros(2), persistent=False)

        def forward(self, outputs):
            self.center = 0.9 * self.center + 0.1 * outputs.detach().mean(0)
            return ((outputs - self.center) @ self.weight).square().mean()

    model, criterion = mlp(), ArcLike()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    optimizer = torch.optim.AdamW([*model.parameters(), *criterion.parameters()])
    plain = trainer(model, optimizer, loss=criterion)

    def train():
        losses = plain()
        average.update_parameters(model)
        return losses

    check(model, train, optimizers=[optimizer], modules=[model, criterion], extra_state=[average], watched=average)
    assert average.n_averaged.item() == 0


def test_tied_weights_and_views_are_copied_once():
    model = nn.Module()
    model.embed = nn.Embedding(100, 64)
    model.head = nn.Linear(64, 100, bias=False)
    model.head.weight = model.embed.weight
    model.first_rows = model.embed.weight.detach()[:10]
    model.flat = model.embed.weight.detach().view(-1)
    snapshot = Snapshot([model])
    assert bytes_copied(snapshot) == 100 * 64 * 4
    with torch.no_grad():
        model.embed.weight.zero_()
    snapshot.restore()
    assert model.head.weight is model.embed.weight
    assert model.first_rows.abs().sum() > 0


def test_scripted_modules():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit.script
        model = torch.jit.script(mlp())
    before = [bits(tensor) for tensor in (*model.parameters(), *model.buffers())]
    tensors = list(model.parameters())
    with Snapshot([model]):
        model.eval()
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                tensor.zero_()
    assert [bits(tensor) for tensor in (*model.parameters(), *model.buffers())] == before
    assert all(a is b for a, b in zip(tensors, model.parameters(), strict=True))
    assert all(module.training for module in model.modules())


# --- kinds of tensors


def inference_column():
    with torch.inference_mode():
        return torch.randn(50, 3)[:, 1]


KINDS = {
    "bf16": lambda: torch.randn(5).to(torch.bfloat16),
    "float8": lambda: torch.randn(5).to(torch.float8_e4m3fn),
    "complex": lambda: torch.randn(3, dtype=torch.complex64),
    "conjugate": lambda: torch.randn(3, dtype=torch.complex64).conj(),
    "bool": lambda: torch.tensor([True, False]),
    "int8": lambda: torch.arange(7, dtype=torch.int8),
    "empty": lambda: torch.empty(0, 3),
    "no_dimension": lambda: torch.tensor(1.0),
    "transposed": lambda: torch.randn(3, 4).t(),
    "channels_last": lambda: torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "expanded": lambda: torch.randn(1, 3).expand(4, 3),
    "column": lambda: torch.randn(50, 3)[:, 1],
    "inference_column": inference_column,
    "offset": lambda: torch.randn(11)[3:8],
    "from_numpy": lambda: torch.from_numpy(np.arange(5.0)),
    "odd_bytes": lambda: torch.randint(255, (13,), dtype=torch.uint8)[1:],
    "nan_payload": lambda: torch.tensor([0x7FC00001, 0x7F800001, -(2**31), 1], dtype=torch.int32).view(torch.float32),
    "large": lambda: torch.randn(600_000),
    "sparse": lambda: torch.randn(4, 3).relu().to_sparse(),
    "meta": lambda: torch.empty(3, device="meta"),
}


def write(tensor):
    """Change every bit of a tensor's memory."""
    for part in (tensor._indices(), tensor._values()) if tensor.is_sparse else (tensor,):
        storage = part.untyped_storage()
        if part.device.type != "meta":
            torch.empty(0, dtype=torch.uint8).set_(storage, 0, (storage.nbytes(),), (1,)).bitwise_not_()


def look(tensor):
    return tensor.shape if tensor.device.type == "meta" else bits(tensor.resolve_conj())


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_tensors(kind):
    model = nn.Module()
    model.register_buffer("tensor", KINDS[kind]())
    tensor, before = model.tensor, look(model.tensor)
    place, strides = (0, ()) if tensor.is_sparse else (tensor.data_ptr(), tensor.stride())
    with Snapshot([model]) as snapshot:
        for _ in range(2):
            write(model.tensor)
            assert look(model.tensor) != before or tensor.numel() == 0 or kind == "meta"
            snapshot.rewind()
            assert look(tensor) == before
        write(tensor)
        tensor.data = torch.zeros(2).to_sparse() if tensor.is_sparse else torch.zeros(2, device=tensor.device)
    assert model.tensor is tensor
    assert look(tensor) == before
    if not tensor.is_sparse:
        assert (tensor.data_ptr(), tensor.stride()) == (place, strides)


@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta")
@pytest.mark.parametrize("layout", ["csr", "csc", "bsr", "bsc"])
def test_compressed_sparse_tensors(layout):
    dense = torch.randn(4, 4)
    model = nn.Module()
    model.matrix = getattr(dense, f"to_sparse_{layout}")(*(((2, 2),) if layout[0] == "b" else ()))
    matrix = model.matrix
    with Snapshot([model]):
        matrix.values().zero_()
    assert model.matrix is matrix
    assert bits(matrix.to_dense()) == bits(dense)


class Wrapped(torch.Tensor):
    """A tensor that holds its data in another, as a DTensor does its shard."""

    @staticmethod
    def __new__(cls, local):
        return torch.Tensor._make_wrapper_subclass(cls, local.shape, dtype=local.dtype, requires_grad=False)

    def __init__(self, local):
        self.local = local

    def __tensor_flatten__(self):
        return ["local"], None

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.detach.default:
            return cls(args[0].local.detach())
        raise AssertionError(f"a snapshot does not compute with wrappers: {function}")


def test_wrapper_subclasses_are_captured_by_what_they_hold():
    model = nn.Module()
    local = torch.randn(5)
    model.weight = nn.Parameter(Wrapped(local), requires_grad=False)
    weight, inner = model.weight, model.weight.local
    optimizer = torch.optim.SGD([weight], lr=0.1)
    before = bits(inner)
    with Snapshot([model], [optimizer]):
        weight.local.zero_()
        weight.local = torch.ones(5)
    assert model.weight is weight
    assert weight.local is inner
    assert bits(inner) == before


def test_a_subclass_with_torch_function():
    class Loud(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            raise AssertionError("a snapshot must not call it")

    model = nn.Module()
    with torch._C.DisableTorchFunctionSubclass():
        model.loud = torch.randn(3).as_subclass(Loud)
        before = model.loud.detach().tolist()
    with Snapshot([model]), torch._C.DisableTorchFunctionSubclass():
        model.loud.zero_()
    with torch._C.DisableTorchFunctionSubclass():
        assert model.loud.detach().tolist() == before
        assert type(model.loud) is Loud


def test_a_freed_storage_is_allocated_again():
    model = mlp()
    # bits of a clone, since a storage that NumPy has seen cannot be resized
    before, size = bits(model[0].weight.clone()), model[0].weight.untyped_storage().nbytes()
    with Snapshot([model]):
        model[0].weight.untyped_storage().resize_(0)
    assert model[0].weight.untyped_storage().nbytes() == size
    assert bits(model[0].weight) == before


def test_lazy_modules_are_refused_before_anything_is_touched():
    model = nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(3))
    model[0].weight.grad = torch.ones(2, 2)
    grad = model[0].weight.grad
    with pytest.raises(ArgumentError, match=r"`model` must be initialised, got the lazy .*Run one batch"):
        Snapshot([model])
    assert model[0].weight.grad is grad


# --- gradients


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


# --- frozen parameters


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


# --- mixed precision


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


# --- random number generators, loaders, extra state


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


# --- where copies live


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


# --- faults while restoring, and interrupts


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


# --- torch.compile


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


# --- cost


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
