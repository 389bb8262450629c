"""What refining trains on and what it scores on never meet, and each pass is the first one."""

import random
from contextlib import closing

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, Sampler, TensorDataset

from lrfinder.snapshot.error_collector import ErrorCollector
from lrfinder.snapshot.loader_state import LoaderState
from lrfinder.snapshot.rng import RandomStreams
from lrfinder.training.batches import Batches
from lrfinder.training.held_out import Remaining, epoch_length, held_out_count

DATA = TensorDataset(torch.arange(24))


class Unsized(IterableDataset):
    def __iter__(self):
        return iter(torch.randperm(24).tolist())


class PythonShuffle(Sampler):
    """Draws from Python's global stream, lazily."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __iter__(self):
        order = list(range(self.count))
        random.shuffle(order)
        yield from order


class Epochs:
    """Shuffles by its epoch, as a DistributedSampler does."""

    def __init__(self):
        self.epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return 6

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.epoch)
        return iter(torch.randperm(24, generator=generator).reshape(6, 4))


LOADERS = {
    "shuffled from torch's stream": lambda: DataLoader(DATA, batch_size=4, shuffle=True),
    "with a generator": lambda: DataLoader(DATA, batch_size=4, shuffle=True, generator=torch.Generator()),
    "with workers": lambda: DataLoader(DATA, batch_size=4, shuffle=True, num_workers=1),
    "with persistent workers": lambda: DataLoader(
        DATA, batch_size=4, shuffle=True, num_workers=1, persistent_workers=True
    ),
    "shuffled by Python": lambda: DataLoader(DATA, batch_size=4, sampler=PythonShuffle(24)),
    "of unknown length": lambda: DataLoader(Unsized(), batch_size=4),
    "that counts epochs": Epochs,
    "a list": lambda: list(torch.arange(24).reshape(6, 4)),
}


def samples(batches):
    flat = [batch[0] if isinstance(batch, (list, tuple)) else batch for batch in batches]
    return [sample for batch in flat for sample in batch.tolist()]


@pytest.fixture(params=LOADERS)
def loader(request):
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    return LOADERS[request.param]()


def test_each_epoch_is_the_first_one_without_the_held_out_batches(loader):
    streams, state = RandomStreams(), LoaderState(loader)
    batches = Batches(loader)
    held_out = samples(batches.take_first(2))
    streams.restore(ErrorCollector())
    state.restore(ErrorCollector())
    batches.restart()
    first = samples(batches.take(6))
    streams.restore(ErrorCollector())
    state.restore(ErrorCollector())
    batches.restart()

    remaining = Remaining(batches, held_out=2)
    passes = [samples(remaining.take(4)) for _ in range(3)]
    remaining.close()

    assert first[:8] == held_out
    assert passes == [first[8:]] * 3
    assert sorted(held_out + passes[0]) == list(range(24))


def test_random_streams_continue_when_an_epoch_begins_again():
    torch.manual_seed(0)
    remaining = Remaining(Batches(DataLoader(DATA, batch_size=4, shuffle=True)), held_out=2)
    remaining.take(4)
    before = torch.get_rng_state()

    remaining.take(1)

    assert torch.equal(torch.get_rng_state(), before)  # a dropout after it draws what it would have drawn


class Broken:
    """A loader whose iterator has workers, as it were, and cannot read their samples."""

    def __init__(self):
        self.working = 0

    def __iter__(self):
        self.working += 1
        return BrokenIterator(self)


class BrokenIterator:
    def __init__(self, loader):
        self.loader = loader

    def __iter__(self):
        return self

    def __next__(self):
        raise OSError("broken sample")

    def _shutdown_workers(self):
        self.loader.working -= 1


def test_an_exception_in_the_held_out_batches_leaves_no_worker():
    loader = Broken()

    with pytest.raises(OSError, match="broken sample"), closing(Remaining(Batches(loader), held_out=2)) as remaining:
        remaining.take(1)

    assert loader.working == 0


@pytest.mark.parametrize(("enough", "length"), [(3, 3), (6, 6), (100, 6)])
def test_epoch_length_stops_counting_at_enough(loader, enough, length):
    assert epoch_length(Batches(loader), enough) == length


@pytest.mark.parametrize(
    ("length", "count"), [(1, 0), (4, 0), (5, 1), (10, 2), (40, 8), (100, 8), (132, 8), (133, 8), (10_000, 8)]
)
def test_held_out_count_keeps_enough_for_training(length, count):
    assert held_out_count(length, 125, 8) == count
