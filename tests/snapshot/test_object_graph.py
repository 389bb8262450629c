"""The walk through nested state: what it enters, what it puts back, and what it does not touch."""

from collections import Counter, OrderedDict, UserDict, defaultdict, deque
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

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


def test_other_objects_are_kept_by_reference_only():
    class Other:
        def __init__(self):
            self.value = [1]

    other, table = Other(), UserDict(a=1)
    holder = {"other": other, "table": table}
    graph = ObjectGraph([holder])
    other.value.append(2)
    holder["other"] = None
    restore(graph)
    assert holder["other"] is other
    assert other.value == [1, 2]


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
