import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from lrfinder.errors import ArgumentError
from lrfinder.snapshot.error_collector import ErrorCollector
from lrfinder.snapshot.loader_state import LoaderState, samplers
from lrfinder.training.loaders import check_loader, clone, is_one_shot, is_ordered, shut_down

DATA = TensorDataset(torch.arange(12.0))


def read(loader):
    return [[float(v) for v in (batch[0] if isinstance(batch, (list, tuple)) else batch).flatten()] for batch in loader]


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (None, "loader must be an iterable of batches, got NoneType: pass a DataLoader"),
        (3, "got int"),
        ("data", "got str"),
        (b"data", "got bytes"),
        ({"train": []}, "got dict: pass a DataLoader"),
        (torch.zeros(4, 2), r"got Tensor: its items are rows; pass DataLoader\(TensorDataset"),
        (np.zeros((4, 2)), "got ndarray: its items are rows"),
        (DATA, r"got TensorDataset: its items are samples; pass DataLoader\(dataset, batch_size=...\)"),
        (nn.Sequential(nn.Linear(1, 1)), "got Sequential"),
        (lambda: iter([1]), "got function"),
        (DataLoader, "got type"),
    ],
)
def test_an_object_that_gives_no_batches_is_an_error_with_a_remedy(loader, message):
    with pytest.raises(ArgumentError, match=message):
        check_loader(loader)


def test_the_argument_is_named():
    with pytest.raises(ArgumentError, match="val_loader must be an iterable of batches, got int"):
        check_loader(3, "val_loader")


def test_a_batch_sampler_that_cannot_start_again_is_an_error():
    """As in torchdata 0.10, whose loaders gave no batches during and after a find."""
    batch_sampler = BatchSampler(RandomSampler(range(8)), 4, drop_last=False)
    batch_sampler.sampler_iter = iter(batch_sampler.sampler)
    with pytest.raises(ArgumentError, match=r"^val_loader must have a batch sampler .* install torchdata>=0.11\.$"):
        check_loader(DataLoader(range(8), batch_sampler=batch_sampler), "val_loader")


def test_iterators_are_one_shot():
    class Dali:  # an iterator over itself, with a reset
        def __iter__(self):
            return self

        def __next__(self):
            raise StopIteration

    assert is_one_shot(i for i in ())
    assert is_one_shot(iter([]))
    assert is_one_shot(zip([1], [2], strict=True))
    assert is_one_shot(iter(DataLoader(DATA)))
    assert is_one_shot(Dali())
    assert not is_one_shot([])
    assert not is_one_shot(DataLoader(DATA))


@pytest.mark.parametrize(
    ("loader", "ordered"),
    [
        ([1, 2], True),
        ((1, 2), True),
        (DataLoader(DATA), True),
        (DataLoader(DATA, sampler=SequentialSampler(DATA)), True),
        (DataLoader(DATA, batch_sampler=BatchSampler(SequentialSampler(DATA), 2, drop_last=False)), True),
        (DataLoader(DATA, sampler=DistributedSampler(DATA, 2, 0, shuffle=False)), True),
        (DataLoader(DATA, sampler=DistributedSampler(DATA, 2, 0, shuffle=True)), False),
        (DataLoader(DATA, shuffle=True), False),
        (DataLoader(DATA, batch_sampler=BatchSampler(RandomSampler(DATA), 2, drop_last=False)), False),
        (DataLoader(DATA, sampler=WeightedRandomSampler([1.0] * 12, 6)), False),
        (DataLoader(DATA, batch_sampler=[[1, 2], [0]]), False),
        (object(), False),
    ],
)
def test_order_is_known_from_the_sampler(loader, ordered):
    assert is_ordered(loader) is ordered


def test_samplers_come_outermost_first_and_once():
    loader = DataLoader(DATA, batch_size=2)
    assert samplers(loader) == [loader.batch_sampler, loader.sampler]
    assert samplers(DataLoader(DATA, batch_size=None)) != []
    assert samplers([1]) == []


class InPlace(Sampler):
    """Shuffles its own list of indices, as samplers of buckets do."""

    def __init__(self, kind):
        self.indices = kind(range(12))
        self.random = random.Random(0)
        self.numpy = np.random.default_rng(0)
        self.legacy = np.random.RandomState(0)
        self.rounds = 0

    def __iter__(self):
        self.rounds += 1
        order = list(range(12))
        self.random.shuffle(order)
        shuffled = [self.indices[i] for i in order]
        self.indices[:] = torch.tensor(shuffled) if isinstance(self.indices, torch.Tensor) else shuffled
        start = int(self.numpy.integers(3)) + int(self.legacy.randint(3))
        return iter([int(i) for i in self.indices][start:])

    def __len__(self):
        return 12


class Wrapper:
    def __init__(self, loader):
        self.loader = loader
        self.generator = np.random.default_rng(1)
        self.epoch = 0
        self.reads = 0

    def __iter__(self):
        self.epoch += 1
        self.reads += 1
        for batch in self.loader:
            yield torch.as_tensor(batch[0]) + self.epoch + self.generator.random()


LOADERS = {
    "own generator": lambda: DataLoader(DATA, 4, shuffle=True, generator=torch.Generator().manual_seed(1)),
    "sampler's generator": lambda: DataLoader(
        DATA, 4, sampler=RandomSampler(DATA, replacement=True, generator=torch.Generator().manual_seed(1))
    ),
    "batch sampler": lambda: DataLoader(
        DATA,
        batch_sampler=BatchSampler(
            WeightedRandomSampler(torch.rand(12), 8, generator=torch.Generator().manual_seed(2)), 2, drop_last=True
        ),
    ),
    "list in place": lambda: DataLoader(DATA, 4, sampler=InPlace(list)),
    "array in place": lambda: DataLoader(DATA, 4, sampler=InPlace(np.array)),
    "tensor in place": lambda: DataLoader(DATA, 4, sampler=InPlace(torch.tensor)),
    "wrapper": lambda: Wrapper(DataLoader(DATA, 4, shuffle=True, generator=torch.Generator().manual_seed(3))),
}


@pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS)
@pytest.mark.parametrize("epochs_before", [0, 1])
def test_restore_undoes_reading_the_loader(make, epochs_before):
    loader = make()
    for _ in range(epochs_before):
        read(loader)
    state = LoaderState(loader)
    first = [read(loader), read(loader)]
    for _ in range(2):  # as often as one likes
        state.restore(ErrorCollector())
        assert [read(loader), read(loader)] == first
    assert first[0] != first[1]  # so that the test could fail


def test_epochs_and_whatever_a_sampler_counts_are_put_back():
    sampler = InPlace(list)
    distributed = DistributedSampler(DATA, 2, 0)
    distributed.set_epoch(4)
    states = [LoaderState(DataLoader(DATA, sampler=sampler)), LoaderState(DataLoader(DATA, sampler=distributed))]
    indices = sampler.indices
    list(sampler)
    sampler.new_attribute = 1
    distributed.set_epoch(9)
    for state in states:
        state.restore(ErrorCollector())
    assert sampler.rounds == 0
    assert sampler.indices is indices
    assert not hasattr(sampler, "new_attribute")
    assert distributed.epoch == 4


def test_of_a_wrapper_only_the_epoch_is_put_back():
    wrapper = Wrapper(DataLoader(DATA, 4))
    state = LoaderState(wrapper)
    read(wrapper)
    state.restore(ErrorCollector())
    assert (wrapper.epoch, wrapper.reads) == (0, 1)


def test_a_data_set_is_never_copied():
    class Uncopyable(torch.Tensor):
        def clone(self, *args, **kwargs):
            raise AssertionError

    data = torch.arange(12.0).as_subclass(Uncopyable)
    loader = DataLoader(data, 4, shuffle=True)
    LoaderState(loader).restore(ErrorCollector())

    assert loader.dataset is data


@pytest.mark.parametrize("loader", [[1], (1,), 3, "text", iter([1])])
def test_a_loader_without_attributes_has_no_state(loader):
    before = repr(loader)

    LoaderState(loader).restore(ErrorCollector())

    assert repr(loader) == before


def test_cloning_protects_the_live_iterator_and_shares_the_rest():
    loader = DataLoader(DATA, 4, num_workers=1, persistent_workers=True)
    live = iter(loader)
    twin = clone(loader)
    assert twin._iterator is None
    assert twin.sampler is loader.sampler
    assert twin.dataset is loader.dataset
    iterator = iter(twin)
    assert len(list(iterator)) == 3
    shut_down(twin, iterator)
    assert loader._iterator is live
    assert len(list(live)) == 3
    live._shutdown_workers()


def test_a_loader_without_live_workers_is_not_cloned():
    wrapper = Wrapper(DataLoader(DATA, 4))
    assert clone(wrapper) is wrapper
    batches = [1, 2]
    assert clone(batches) is batches
    shut_down(batches, iter(batches))
