import dataclasses
import types
from collections import OrderedDict, UserDict, defaultdict, namedtuple
from collections.abc import MutableMapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lrfinder.errors import ArgumentError
from lrfinder.training.batches import Batches
from lrfinder.training.moving import batch_size, move

META = torch.device("meta")
CPU = torch.device("cpu")
Pair = namedtuple("Pair", "x y")


def is_moved(value):
    return value.device == META


class Encoding(UserDict):
    """Like the batches of tokenizers: a UserDict with attributes of its own and a `to` that writes to itself."""

    def __init__(self, data, n_sequences=1):
        super().__init__(data)
        self.n_sequences = n_sequences

    def to(self, device):
        self.data = {key: value.to(device) for key, value in self.data.items()}
        return self


class Store(MutableMapping):
    """A mapping that keeps its items in a dictionary of its own."""

    def __init__(self, **items):
        self._items = items

    def __getitem__(self, key):
        return self._items[key]

    def __setitem__(self, key, value):
        self._items[key] = value

    def __delitem__(self, key):
        del self._items[key]

    def __iter__(self):
        return iter(self._items)

    def __len__(self):
        return len(self._items)


class Graph:
    """Moves itself in place, tensor by tensor, and returns itself."""

    def __init__(self, x):
        self.stores = {"x": x}
        self.extra = [x]

    def to(self, device):
        self.stores["x"] = self.stores["x"].to(device)
        self.extra[0] = self.extra[0].to(device)
        return self


class Silent:
    def __init__(self, x):
        self.x = x

    def to(self, device):
        self.x = self.x.to(device)


class Tagged(list):
    def __init__(self, tag, items):
        super().__init__(items)
        self.tag = tag


@dataclasses.dataclass
class Open:
    x: torch.Tensor
    names: list
    length: int = dataclasses.field(init=False)

    def __post_init__(self):
        self.length = len(self.x)


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: torch.Tensor
    inner: dict
    derived: torch.Tensor = dataclasses.field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "derived", self.x * 2)


@dataclasses.dataclass(frozen=True, slots=True)
class Slots:
    x: torch.Tensor
    y: int = 3


@dataclasses.dataclass
class Partial:
    x: torch.Tensor
    never_set: torch.Tensor = dataclasses.field(init=False)


def x():
    return torch.arange(6.0).reshape(3, 2)


def test_a_tensor_moves_and_one_in_place_stays_the_same_object():
    tensor = x()
    assert is_moved(move(tensor, META))
    assert move(tensor, CPU) is tensor


@pytest.mark.parametrize(
    "wrap",
    [
        lambda t: (t, 1),
        lambda t: [t, "name"],
        lambda t: {"x": t, "id": 7},
        lambda t: OrderedDict(x=t),
        lambda t: defaultdict(list, x=t),
        lambda t: types.MappingProxyType({"x": t}),
        lambda t: Encoding({"x": t}),
        lambda t: Store(x=t),
        lambda t: Pair(t, None),
        lambda t: Open(t, ["a"]),
        lambda t: Frozen(t, {"k": t}),
        Slots,
        Partial,
        lambda t: Tagged("tag", [t]),
        lambda t: torch.return_types.max((t, t)),
        lambda t: ((t, [t, {"deep": (t,)}]), None),
    ],
)
def test_containers_keep_their_type_and_the_users_own_is_never_written_to(wrap):
    tensor = x()
    batch = wrap(tensor)
    moved = move(batch, META)
    assert type(moved) is type(batch)
    assert moved is not batch
    tensors = list(tensors_in(moved))
    assert tensors
    assert all(is_moved(t) for t in tensors)
    assert not any(is_moved(t) for t in tensors_in(batch))
    assert any(t is tensor for t in tensors_in(batch))
    assert move(batch, CPU) is batch


def tensors_in(batch):
    if isinstance(batch, torch.Tensor):
        yield batch
    elif dataclasses.is_dataclass(batch):
        for field in dataclasses.fields(batch):
            yield from tensors_in(getattr(batch, field.name, None))
    elif hasattr(batch, "items"):
        for value in batch.values():
            yield from tensors_in(value)
    elif isinstance(batch, (tuple, list)):
        for value in batch:
            yield from tensors_in(value)


def test_attributes_of_a_container_are_kept():
    assert move(Encoding({"x": x()}, n_sequences=5), META).n_sequences == 5
    assert move(Tagged("train", [x()]), META).tag == "train"
    assert move(defaultdict(list, x=x()), META).default_factory is list
    assert move(Pair(x(), "label"), META).y == "label"
    assert move(Open(x(), ["a"]), META).length == 3
    assert not hasattr(move(Partial(x()), META), "never_set")


def test_packed_sequences_move_as_a_whole():
    packed = pack_sequence([torch.ones(3), torch.ones(2)])
    moved = move(packed, META)
    assert type(moved) is type(packed)
    assert is_moved(moved.data)
    assert moved.batch_sizes.device == CPU  # where torch wants it
    assert move(packed, CPU) is packed


def test_sparse_and_nested_tensors_move(device):
    sparse = torch.eye(3).to_sparse()
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)
    moved = move({"sparse": sparse, "nested": nested}, device)
    assert moved["sparse"].is_sparse
    assert moved["nested"].is_nested
    assert moved["sparse"].device.type == moved["nested"].device.type == device.type


def test_an_object_with_to_moves_a_copy_of_itself():
    graph = Graph(x())
    moved = move((graph, 1), META)[0]
    assert is_moved(moved.stores["x"])
    assert is_moved(moved.extra[0])
    assert not is_moved(graph.stores["x"])
    assert not is_moved(graph.extra[0])


def test_an_object_whose_to_returns_nothing_is_not_lost():
    silent = Silent(x())
    assert is_moved(move(silent, META).x)
    assert not is_moved(silent.x)


@pytest.mark.parametrize("value", [1, 2.5, "text", None, b"raw", {1, 2}, range(3), nn.Linear, torch.float32, object()])
def test_other_objects_stay_as_they_are(value):
    assert move(value, META) is value
    assert move([value], META)[0] is value


@pytest.mark.frameworks
def test_the_real_batch_encoding():
    transformers = pytest.importorskip("transformers")
    batch = transformers.BatchEncoding({"input_ids": torch.ones(2, 3), "nested": [torch.ones(1)], "text": ["a", "b"]})
    moved = move(batch, META)
    assert type(moved) is type(batch)
    assert is_moved(moved["input_ids"])
    assert is_moved(moved["nested"][0])
    assert moved["text"] is batch["text"]
    assert not is_moved(batch["input_ids"])


@given(
    st.recursive(
        st.sampled_from([None, "text", 3]) | st.integers(0, 3).map(torch.zeros),
        lambda x: st.lists(x, max_size=3) | st.tuples(x, x) | st.dictionaries(st.text(), x, max_size=3),
        max_leaves=8,
    )
)
@settings(max_examples=60, deadline=None)
def test_any_nesting_moves_all_of_its_tensors_and_nothing_else(batch):
    before = list(tensors_in(batch))
    moved = move(batch, META)
    assert len(list(tensors_in(moved))) == len(before)
    assert all(is_moved(t) for t in tensors_in(moved))
    assert all(a is b for a, b in zip(tensors_in(batch), before, strict=True))
    assert (moved is batch) == (not before)


@pytest.mark.parametrize(
    ("batch", "size"),
    [
        (torch.zeros(5, 2), 5),
        (torch.tensor(1.0), None),
        ((torch.zeros(4, 2), torch.zeros(9)), 4),
        ({"name": "a", "x": torch.zeros(3)}, 3),
        ([["no"], (None, torch.zeros(2))], 2),
        (Open(torch.zeros(6), []), 6),
        (Partial(torch.zeros(6)), 6),
        (Encoding({"x": torch.zeros(7, 1)}), 7),
        (pack_sequence([torch.ones(3), torch.ones(2)]), 2),
        ("text", None),
        ((), None),
        (Graph(torch.zeros(2)), None),
    ],
)
def test_the_batch_size_is_the_first_tensors_first_dimension(batch, size):
    assert batch_size(batch) == size


# The stream of batches


class Stream(IterableDataset):
    def __init__(self, count=5):
        self.count = count

    def __iter__(self):
        return iter(torch.arange(float(self.count)))


class Indexed:
    """Iterable by the old protocol: `__getitem__` until IndexError."""

    def __getitem__(self, index):
        if index >= 3:
            raise IndexError
        return index


def values(batches):
    return [float(b[0] if isinstance(b, (list, tuple)) else b) for b in batches]


@pytest.mark.parametrize(
    ("loader", "one_pass"),
    [
        ([1, 2, 3], [1, 2, 3]),
        ((1, 2, 3), [1, 2, 3]),
        (range(1, 4), [1, 2, 3]),
        (Indexed(), [0, 1, 2]),
        (Stream(3), [0, 1, 2]),
        (DataLoader(Stream(3), batch_size=None), [0, 1, 2]),
        (DataLoader(TensorDataset(torch.arange(3.0)), batch_size=1), [0, 1, 2]),
    ],
)
def test_a_loader_is_started_again_where_it_ends(loader, one_pass):
    batches = Batches(loader)
    assert values(batches.take(7)) == (one_pass * 3)[:7]
    assert values(batches.take(2)) == (one_pass * 4)[7:9]
    assert batches.consumed == 9
    batches.restart()
    assert values(batches.take(4)) == (one_pass * 2)[:4]
    batches.close()


def test_nothing_is_read_before_it_is_asked_for():
    reads = []

    class Noting:
        def __iter__(self):
            reads.append("start")
            for i in range(9):
                reads.append(i)
                yield i

    batches = Batches(Noting())
    assert reads == []
    assert batches.take(2) == [0, 1]
    assert reads == ["start", 0, 1]


def test_a_one_shot_iterator_gives_its_batches_once():
    batches = Batches(iter(range(5)))
    assert batches.one_shot
    assert batches.take(3) == [0, 1, 2]
    assert batches.take(3) is None  # two are left: too few for a step
    assert batches.consumed == 5


def test_a_one_shot_iterator_is_replayed_from_memory_once_and_goes_on():
    source = iter(range(7))
    batches = Batches(source, remember=True)
    assert batches.take(3) == [0, 1, 2]
    batches.restart()
    assert batches.take(5) == [0, 1, 2, 3, 4]
    assert batches.consumed == 5
    assert batches.take(2) == [5, 6]
    assert batches.take(1) is None


def test_a_one_shot_iterator_is_remembered_only_where_it_is_asked_for():
    import weakref

    class Item:
        pass

    references = []

    def give():
        for _ in range(3):
            item = Item()
            references.append(weakref.ref(item))
            yield item
            del item

    batches = Batches(give())
    batches.take(1)
    batches.take(1)
    assert references[0]() is None


def test_a_one_shot_iterator_is_not_closed():
    def give():
        yield from range(5)

    generator = give()
    batches = Batches(generator)
    batches.take(2)
    batches.close()
    assert list(generator) == [2, 3, 4]


def test_an_iterable_that_cannot_start_again_ends_the_stream():
    class Once:
        def __init__(self):
            self.items = iter([1, 2, 3])

        def __iter__(self):
            return self.items

    batches = Batches(Once())
    assert batches.take(2) == [1, 2]
    assert batches.take(2) is None


def test_a_generator_that_iterating_made_is_closed():
    closed = []

    class Pipeline:
        def __iter__(self):
            try:
                while True:
                    yield 1
            finally:
                closed.append(True)

    batches = Batches(Pipeline())
    keep = batches._iterator = iter(Pipeline())  # somebody else holds it too
    batches.take(1)
    batches.close()
    assert closed == [True]
    assert keep is not None


@pytest.mark.parametrize("loader", [[], (), DataLoader([]), iter([]), Stream(0)])
def test_an_empty_loader_is_an_error_that_says_what_to_check(loader):
    with pytest.raises(ArgumentError, match=r"loader must give at least one batch, got an empty \w+; .*drop_last"):
        Batches(loader).take(1)


def test_an_empty_val_loader_is_named():
    with pytest.raises(ArgumentError, match="val_loader must give at least one batch, got an empty list"):
        Batches([], name="val_loader").take_first(3)


def test_an_error_of_the_loader_passes_unchanged():
    error = OSError("disk")

    def broken():
        yield 1
        raise error

    batches = Batches(broken())
    assert batches.take(1) == [1]
    with pytest.raises(OSError, match="disk") as caught:
        batches.take(1)
    assert caught.value is error


def test_take_first_stays_within_one_pass():
    assert Batches([1, 2, 3]).take_first(2) == [1, 2]
    assert Batches([1, 2, 3]).take_first(9) == [1, 2, 3]


def test_the_batch_size_is_that_of_the_first_batch():
    batches = Batches([torch.zeros(4, 1), torch.zeros(2, 1)])
    assert batches.batch_size is None
    batches.take(2)
    assert batches.batch_size == 4


class Epochs:
    """Like DistributedSampler: another order for each epoch."""

    def __init__(self):
        self.epoch = 3

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return 2

    def __iter__(self):
        return iter([0, 1] if self.epoch % 2 else [1, 0])


def test_starting_over_sets_the_samplers_next_epoch():
    sampler = Epochs()
    batches = Batches(DataLoader(TensorDataset(torch.arange(2.0)), sampler=sampler, batch_size=1))
    assert values(batches.take(6)) == [0, 1, 1, 0, 0, 1]
    assert sampler.epoch == 5


def test_a_batch_samplers_epoch_is_set_too():
    class Buckets(Epochs):
        def __iter__(self):
            return ([index] for index in super().__iter__())

    sampler = Buckets()
    batches = Batches(DataLoader(TensorDataset(torch.arange(2.0)), batch_sampler=sampler))
    assert values(batches.take(4)) == [0, 1, 1, 0]
    assert sampler.epoch == 4


def test_restarting_forgets_the_epochs_that_the_clone_went_through():
    class Sharded(DataLoader):
        epoch = 0

        def set_epoch(self, epoch):
            self.epoch = epoch

        def __iter__(self):
            return iter([self.epoch, self.epoch])

    loader = Sharded([0])
    batches = Batches(loader)
    assert batches.take(5) == [0, 0, 1, 1, 2]
    batches.restart()
    assert batches.take(3) == [0, 0, 1]
    assert loader.epoch == 0


def test_the_length_of_an_epoch_is_known_once_one_has_ended():
    batches = Batches([0, 1, 2])
    batches.take(3)
    assert batches.epoch_length is None
    batches.take(1)
    assert batches.epoch_length == 3


def test_the_length_of_an_epoch_does_not_count_what_came_before_a_restart():
    batches = Batches([0, 1, 2])
    batches.take(2)
    batches.restart()
    batches.take(4)
    assert batches.epoch_length == 3


# Workers


class WithWorkerSeed(torch.utils.data.Dataset):
    """Augments at random in the worker, as image pipelines do."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return index + torch.rand(())


def workers_of(loader_class=DataLoader, **options):
    return loader_class(WithWorkerSeed(), batch_size=2, num_workers=2, shuffle=True, **options)


def alive(pids):
    import os

    found = []
    for pid in pids:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            continue
        found.append(pid)
    return found


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_are_gone_after_closing(persistent):
    batches = Batches(workers_of(persistent_workers=persistent))
    batches.take(1)
    pids = [worker.pid for worker in batches._iterator._workers]
    assert alive(pids) == pids
    keep = batches._iterator  # not left to the garbage collector
    batches.close()
    assert alive(pids) == []
    assert keep is not None


def test_persistent_workers_live_on_where_the_loader_starts_over():
    batches = Batches(workers_of(persistent_workers=True))
    batches.take(1)
    pids = [worker.pid for worker in batches._iterator._workers]
    batches.take(3)
    assert [worker.pid for worker in batches._iterator._workers] == pids
    batches.close()


def test_other_workers_end_where_the_loader_starts_over():
    batches = Batches(workers_of())
    batches.take(1)
    pids = [worker.pid for worker in batches._iterator._workers]
    batches.take(3)
    assert alive(pids) == []
    batches.close()


def test_val_batches_leave_no_workers():
    import multiprocessing

    before = set(multiprocessing.active_children())
    Batches(workers_of(persistent_workers=True)).take_first(2)
    assert set(multiprocessing.active_children()) <= before


def test_a_users_live_workers_are_left_alone():
    loader = workers_of(persistent_workers=True)
    live = iter(loader)
    next(live)
    batches = Batches(loader)
    batches.take(5)
    batches.close()
    assert loader._iterator is live
    assert len(list(live)) == 2


def test_live_workers_in_a_wrapper_are_left_alone_too():
    class Wrapper:
        def __init__(self, loader):
            self.loader = loader

        def __iter__(self):
            for batch in self.loader:
                yield batch * 10

    wrapper = Wrapper(workers_of(persistent_workers=True))
    live = iter(wrapper.loader)
    next(live)
    batches = Batches(wrapper)
    batches.take(5)
    pids = [worker.pid for worker in batches._loader.loader._iterator._workers]
    batches.close()
    assert alive(pids) == []
    assert wrapper.loader._iterator is live
    assert len(list(live)) == 2
