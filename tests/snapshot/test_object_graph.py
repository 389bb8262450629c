"""The walk through nested state: what it enters, what it puts back, and what it does not touch."""

import io
import math
import threading
from collections import Counter, OrderedDict, UserDict, defaultdict, deque
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from lrfinder.snapshot import object_graph as module
from lrfinder.snapshot.error_collector import ErrorCollector
from lrfinder.snapshot.object_graph import ObjectGraph


def restore(graph):
    errors = ErrorCollector()
    graph.restore(errors)
    assert errors == []


def test_order_members_and_values_of_dicts():
    first, second = object(), object()
    table = {"a": first, "b": second, "c": 1}
    graph = ObjectGraph([table])
    for spoil in (
        lambda: table.update(a=table.pop("a")),
        lambda: table.update(d=2),
        lambda: table.pop("b"),
        table.clear,
        lambda: table.update(c=1.0),
    ):
        spoil()
        restore(graph)
        assert list(table.items()) == [("a", first), ("b", second), ("c", 1)]
        assert type(table["c"]) is int


class Guarded(OrderedDict):
    """A dict that allows no assignment and no deletion, as the outputs of Hugging Face models."""

    def __setitem__(self, key, value):
        raise AssertionError

    def __delitem__(self, key):
        raise AssertionError

    def clear(self):
        raise AssertionError


def test_kinds_of_dicts():
    guarded = Guarded()
    OrderedDict.__setitem__(guarded, "a", 1)
    ordered, default, counter = OrderedDict(a=1, b=2), defaultdict(list, a=[1]), Counter("aab")
    graph = ObjectGraph([[guarded, ordered, default, counter]])
    OrderedDict.__setitem__(guarded, "b", 2)
    ordered.move_to_end("a")
    default["new"].append(1)
    default["a"].append(2)
    counter["a"] += 1
    restore(graph)
    assert list(guarded.items()) == [("a", 1)]
    assert list(ordered) == ["a", "b"]
    assert list(reversed(ordered)) == ["b", "a"]
    assert default == {"a": [1]}
    assert counter == Counter("aab")


def test_an_unchanged_dict_is_not_written_to():
    class Watched(dict):
        pass

    table = Watched(a=[1])
    inner = table["a"]
    graph = ObjectGraph([table])
    inner.append(2)
    restore(graph)
    assert table["a"] is inner
    assert inner == [1]


def test_rows_and_sets():
    class Pair(NamedTuple):
        left: list
        right: int

    pair, ring, members = Pair([1], 2), deque([1, 2], maxlen=2), {1, 2}
    rows = [pair, ring, members]
    graph = ObjectGraph([rows])
    pair.left.append(2)
    ring.append(3)
    members.add(4)
    rows.reverse()
    restore(graph)
    assert rows[0] is pair
    assert rows[1] is ring
    assert rows[2] is members
    assert (pair.left, list(ring), ring.maxlen, members) == ([1], [1, 2], 2, {1, 2})


def test_arrays():
    base = np.array([[1.0, np.nan], [-0.0, 4.0]])
    arrays = {"plain": base.copy(), "column": base[:, 1], "objects": np.array([1, "a"], dtype=object)}
    fixed, raw = np.ones(3), bytearray(b"abc")
    fixed.flags.writeable = False
    before = {name: array.tobytes() for name, array in arrays.items()}
    graph = ObjectGraph([arrays, [fixed], [raw]])
    for array in arrays.values():
        array[:] = 7
    raw += b"d"
    restore(graph)
    assert {name: array.tobytes() for name, array in arrays.items()} == before
    assert raw == b"abc"


def test_names():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2, affine=False))
    model[1].extra = [torch.ones(1)]
    optimizer = torch.optim.Adam([model[0].weight])
    optimizer.state[model[0].weight] = {"moments": [torch.ones(1)]}
    names = [name for name, _ in ObjectGraph([model, optimizer]).tensors]
    assert names == [
        "Sequential.0.weight", "Sequential.1.running_mean", "Sequential.1.running_var",
        "Sequential.1.num_batches_tracked", "Sequential.1.extra[0]", "Adam.state[Sequential.0.weight].moments[0]",
    ]  # fmt: skip


class Plain:
    """An ordinary object with anything in it."""

    def __init__(self, **attributes):
        vars(self).update(attributes)


class Slotted:
    __slots__ = ("__private", "late", "value")

    def __init__(self):
        self.value, self.__private = [1], 0

    def private(self):
        return self.__private

    def change(self):
        self.value.append(2)
        self.__private += 1
        self.late = 1


class SlottedAndOpen(Slotted):
    def __init__(self):
        super().__init__()
        self.open = 0

    def __setattr__(self, name, value):
        if name == "value" and hasattr(self, "open"):
            raise AssertionError("slots are restored without the class's own code")
        super().__setattr__(name, value)


def test_ordinary_objects_are_entered():
    history, inner = [1], Plain(n=0)
    other, table = Plain(history=history, inner=inner, tensor=torch.zeros(2)), UserDict(a=1)
    other.itself = other
    holder = {"other": other, "table": table}
    graph = ObjectGraph([holder])
    for _ in range(2):
        history.append(2)
        other.history, other.new, other.inner = [], 1, Plain(n=5)
        inner.n += 1
        del other.tensor
        table["b"] = 2
        holder["other"] = None
        restore(graph)
        assert holder["other"] is other
        assert list(vars(other)) == ["history", "inner", "tensor", "itself"]
        assert other.history is history
        assert other.inner is inner
        assert (history, inner.n, dict(table)) == ([1], 0, {"a": 1})
    assert "dict.other.tensor" in [name for name, _ in graph.tensors]


@pytest.mark.parametrize("make", [Slotted, SlottedAndOpen])
def test_slots_are_put_back(make):
    slotted = make()
    value = slotted.value
    graph = ObjectGraph([[slotted]])
    slotted.change()
    object.__setattr__(slotted, "value", None)
    restore(graph)
    assert slotted.value is value
    assert (value, slotted.private()) == ([1], 0)
    assert not hasattr(slotted, "late")


def test_an_object_whose_attributes_were_replaced_as_a_whole():
    plain = Plain(n=1)
    attributes = vars(plain)
    graph = ObjectGraph([[plain]])
    plain.__dict__ = {"m": 2}
    restore(graph)
    assert vars(plain) is attributes
    assert attributes == {"n": 1}


def test_attributes_of_containers():
    class Table(dict):
        pass

    class AttributeDict(dict):
        def __init__(self):
            super().__init__()
            self.__dict__ = self

    table, both = Table(a=1), AttributeDict()
    table.hits, both.n = [0], 1
    graph = ObjectGraph([[table, both]])
    table.hits.append(1)
    table.new, both.n = 1, 2
    restore(graph)
    assert vars(table) == {"hits": [0]}
    assert both == {"n": 1}
    assert both.n == 1


def test_arrays_of_objects_and_frozensets_are_entered():
    first, second = [1], (2, [3])
    graph = ObjectGraph([[np.array([first, None], dtype=object), frozenset({second[0]}), second]])
    first.append(2)
    second[1].append(4)
    restore(graph)
    assert (first, second) == ([1], (2, [3]))


def test_closures_defaults_and_attributes_of_functions():
    count, seen = 0, []

    def step(x, history=[], *, options={"n": 0}):  # noqa: B006 - the shared default is what is tested
        nonlocal count
        count += 1
        seen.append(x)
        history.append(x)
        options["n"] += 1
        step.calls = getattr(step, "calls", 0) + 1

    graph = ObjectGraph([step])
    for _ in range(2):
        step(1)
        assert (count, seen, step.calls) == (1, [1], 1)
        restore(graph)
        assert (count, seen, vars(step)) == (0, [], {})
        assert (step.__defaults__, step.__kwdefaults__) == (([],), {"options": {"n": 0}})


def test_a_variable_of_a_closure_that_had_no_value_has_none_again():
    def step():
        nonlocal late
        late = 1

    graph = ObjectGraph([step])
    step()
    restore(graph)
    with pytest.raises(NameError):
        assert late  # noqa: F821 - bound below
    late = 2
    restore(graph)


def test_partials_methods_and_callable_objects():
    class Loss:
        def __init__(self):
            self.calls = 0

        def method(self, *_):
            self.calls += 1

        __call__ = method

    bound, called, inner, keyword, items = Loss(), Loss(), Loss(), Loss(), []
    functions = [bound.method, called, partial(partial(inner.method, Loss()), extra=keyword), items.append]
    graph = ObjectGraph(functions)
    for function in functions[:2]:
        function()
    inner.calls = keyword.calls = functions[2].args[0].calls = 3
    functions[2].keywords["more"] = 1
    items.append(1)
    restore(graph)
    assert bound.calls == called.calls == inner.calls == keyword.calls == functions[2].args[0].calls == 0
    assert functions[2].keywords == {"extra": keyword}
    assert items == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("wrap", [torch.compile, torch.no_grad(), torch.vmap, torch.func.grad, lru_cache])
def test_functions_behind_wrappers_are_entered(wrap):
    calls = []

    def function(x):
        calls.append(1)
        return x

    graph = ObjectGraph([wrap(function)])
    calls.append(1)
    restore(graph)
    assert calls == []


def test_hooks_of_this_package_are_not_entered():
    exec("def outer(calls):\n def hook(*_):\n  calls.append(1)\n return hook", scope := {"__name__": "lrfinder.hooks"})
    model, calls = nn.Linear(1, 1), []
    model.register_forward_hook(scope["outer"](calls))
    graph = ObjectGraph([model])
    model(torch.ones(1, 1))
    restore(graph)
    assert calls == [1]


def test_functions_in_modules_and_hooks_are_entered():
    def counting(seen):
        def hook(*_):
            seen.append(1)

        return hook

    model, seen = nn.Linear(1, 1), [[], [], []]
    model.activation = counting(seen[0])
    model.register_forward_hook(counting(seen[1]))
    model.weight.register_hook(counting(seen[2]))
    graph = ObjectGraph([model])
    model.activation()
    model(torch.ones(1, 1)).sum().backward()
    assert seen == [[1], [1], [1]]
    restore(graph)
    assert seen == [[], [], []]


def test_generators_of_a_class_are_found():
    class Noisy(nn.Module):
        rng = np.random.RandomState(0)

    class Noise:
        rng = np.random.default_rng(0)

    model = Noisy()
    model.noise = Noise()
    assert {id(generator) for _, generator in ObjectGraph([model]).generators} == {id(Noisy.rng), id(Noise.rng)}


GLOBAL = np.random.default_rng(0)


def test_generators_in_global_variables_are_found_where_code_names_them():
    class Noisy(nn.Module):
        def forward(self, x):
            return [x + GLOBAL.random() for _ in range(2)]

    def loss_fn(model, batch):
        return sum(map(lambda x: x * GLOBAL.random(), batch))  # noqa: C417 - code within code

    def other():
        return nn

    assert [each for _, each in ObjectGraph([Noisy()]).generators] == [GLOBAL]
    assert [each for _, each in ObjectGraph([loss_fn]).generators] == [GLOBAL]
    assert ObjectGraph([other]).generators == []


def test_what_is_not_entered_is_kept_by_reference():
    class Rows(torch.utils.data.Dataset):
        def __init__(self):
            self.reads = [0]

    def stream():
        yield 1

    held = {
        "data": Rows(),
        "lock": threading.Lock(),
        "file": io.StringIO(),
        "module": math,
        "class": Plain,
        "stream": stream(),
    }
    plain = Plain(**held)
    Plain.shared = [1]
    graph = ObjectGraph([[plain]])
    held["data"].reads.append(1)
    Plain.shared.append(2)
    vars(plain).clear()
    restore(graph)
    assert vars(plain) == held
    assert held["data"].reads == [0, 1]
    assert Plain.__dict__["shared"] == [1, 2]


def test_modules_and_optimizers_behind_ordinary_objects_and_functions_are_found():
    model = nn.Linear(1, 1)
    optimizer = torch.optim.Adam(model.parameters())
    trainer = Plain(parts={"model": model}, scheduler=torch.optim.lr_scheduler.StepLR(optimizer, 1))

    def step():
        return trainer

    graph = ObjectGraph([step])
    assert graph.modules == [model]
    assert graph.optimizers == [optimizer]
    assert [name.partition("step.")[2] for name, _ in graph.tensors] == [
        "trainer.parts.model.weight",
        "trainer.parts.model.bias",
    ]


def test_large_tensors_and_arrays_of_ordinary_objects_are_data(monkeypatch):
    monkeypatch.setattr(module, "LARGEST", 100)
    model = nn.Linear(10, 10)  # 400 bytes
    model.array = np.ones(1000)
    holder = Plain(average=torch.zeros(10, 10), data=torch.zeros(101), array=np.zeros(101), small=np.zeros(3))
    graph = ObjectGraph([model, [holder]])
    assert [name for name, _ in graph.large_tensors] == ["list[0].data"]
    for array in (model.array, holder.array, holder.small):
        array += 1
    restore(graph)
    assert (model.array.max(), holder.array.max(), holder.small.max()) == (1, 1, 0)
    assert {name for name, _ in graph.tensors} == {"Linear.weight", "Linear.bias", "list[0].average"}


def test_items_of_long_containers_of_ordinary_objects_are_not_entered(monkeypatch):
    monkeypatch.setattr(module, "LONGEST", 3)
    holder = Plain(buffer=deque([[0]] * 4), table={n: [0] for n in range(4)}, short=[[0]])
    graph = ObjectGraph([[holder]])
    for rows in (holder.buffer, holder.table, holder.short):
        rows[0].append(1)
    holder.buffer.append(1)
    holder.table[9] = 1
    restore(graph)
    assert len(holder.buffer) == len(holder.table) == 4
    assert (holder.buffer[0], holder.table[0], holder.short[0]) == ([0, 1], [0, 1], [0])


def test_the_walk_through_ordinary_objects_ends_at_a_limit(monkeypatch):
    monkeypatch.setattr(module, "MOST_OBJECTS", 10)
    first = link = Plain(n=0)
    for n in range(100):
        link.next = Plain(n=n)
        link = link.next
    model = nn.Linear(1, 1)
    model.first = first
    optimizer = torch.optim.Adam(model.parameters())
    graph = ObjectGraph([model, optimizer])
    assert graph.first_left_out.startswith("Linear.first.next.next")
    assert graph.optimizers == [optimizer]
    first.n = link.n = -1
    restore(graph)
    assert (first.n, link.n) == (0, -1)
    assert ObjectGraph([nn.Linear(1, 1)]).first_left_out is None


def test_names_in_a_long_chain_stay_short():
    first = link = Plain()
    for _ in range(1000):
        link.next = Plain()
        link = link.next
    link.tensor = torch.ones(1)
    ((name, _),) = ObjectGraph([[first]]).tensors
    assert name.endswith(".next.next.tensor")
    assert len(name) < 250


def test_attributes_and_hooks_of_tensors():
    parameter, hooked = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    hooked.register_hook(lambda grad: 2 * grad)
    hooked.tags = ["a"]
    graph = ObjectGraph([[parameter, hooked]])
    for tensor in (parameter, hooked):
        tensor.register_hook(lambda grad: 10 * grad)
        tensor.register_post_accumulate_grad_hook(lambda tensor: tensor.grad.zero_())
        tensor.extra = 1
        tensor._dynamo_mark = True
    hooked.tags.append("b")
    restore(graph)
    assert vars(parameter) == {"_dynamo_mark": True}
    assert vars(hooked) == {"tags": ["a"], "_dynamo_mark": True}
    (parameter.sum() + hooked.sum()).backward()
    assert parameter.grad.tolist() == [1, 1]
    assert hooked.grad.tolist() == [2, 2]


def test_each_object_is_met_once():
    shared = torch.ones(2)
    model = nn.Linear(1, 1)
    model.loop = [shared, {"again": shared, "model": model}]
    graph = ObjectGraph([model, [model, shared]])
    assert sum(tensor is shared for _, tensor in graph.tensors) == 1
    assert graph.modules == [model]


def test_a_failure_is_named():
    model = nn.Linear(1, 1)
    model.array = np.ones(3)
    graph, errors = ObjectGraph([model]), ErrorCollector()
    model.array[:] = 2
    model.array.flags.writeable = False
    model.n = 1
    graph.restore(errors)
    assert [(name, type(error)) for name, error in errors] == [("Linear.array", ValueError)]
    assert not hasattr(model, "n")


def test_empty_dicts_are_emptied_again_except_skipped_ones():
    model = nn.Linear(1, 1)
    model.history, model.data = {}, {}
    graph = ObjectGraph([model], skip=[model.data])
    hooks = model._forward_hooks
    model.register_forward_hook(print)
    model.history["loss"] = model.data["rows"] = 1

    graph.restore(ErrorCollector())

    assert model._forward_hooks is hooks
    assert (dict(hooks), model.history, model.data) == ({}, {}, {"rows": 1})
