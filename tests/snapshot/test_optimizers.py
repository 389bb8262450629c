"""The state of every optimizer of torch is restored, with all identities."""

import copy
import random
from collections import OrderedDict, deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lrfinder import Snapshot
from tests.fingerprint import Fingerprint, bits, differences
from tests.snapshot.promise import Watch, check, mlp, trainer


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
