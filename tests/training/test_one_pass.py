"""Loaders that read from one iterator in every epoch."""

import pytest
import torch
from torch import nn
from torch.utils.data import ChainDataset, DataLoader, IterableDataset

from lrfinder import LRFinder, LRFinderWarning
from lrfinder.training.batches import Batches
from lrfinder.training.one_pass import held_iterators


def samples(count=400):
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        x = torch.randn(4, generator=generator)
        yield x, x.sum().reshape(1)


class Returning(IterableDataset):
    """Returns its one iterator."""

    def __init__(self):
        self.source = samples()

    def __iter__(self):
        return self.source


class Yielding(Returning):
    """Makes a new generator, which reads from the one iterator."""

    def __iter__(self):
        yield from self.source


class Itself(IterableDataset):
    """Is its own iterator."""

    def __init__(self):
        self.count = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.count += 1
        return torch.ones(4), torch.ones(1)


class Restarting(Itself):
    """Is its own iterator, but starts again."""

    def __iter__(self):
        self.count = 0
        return self

    def __next__(self):
        if self.count == 32:
            raise StopIteration
        return super().__next__()


class Rebinding(IterableDataset):
    """Keeps an iterator, but a new one in every epoch."""

    def __init__(self):
        self.source = samples()

    def __iter__(self):
        self.source = samples()
        return self.source


class Fresh(IterableDataset):
    def __iter__(self):
        return samples()


class Nested(IterableDataset):
    def __init__(self, inner):
        self.inner = inner

    def __iter__(self):
        return iter(self.inner)


class Loader:
    """A loader that is not torch's."""

    def __init__(self, source):
        self.source = source

    def __iter__(self):
        return self.source if hasattr(self.source, "__next__") else iter(self.source)


def batches():
    for _ in range(60):
        x = torch.randn(8, 4)
        yield x, x.sum(1, keepdim=True)


READS_ONE = {
    "returned": (lambda: DataLoader(Returning(), 8), "Returning.source"),
    "yielded from": (lambda: DataLoader(Yielding(), 8), "Yielding.source"),
    "the data set itself": (lambda: DataLoader(Itself(), 8), "Itself"),
    "nested": (lambda: DataLoader(Nested(Returning()), 8), "Returning.source"),
    "in a wrapper": (lambda: Loader(DataLoader(Returning(), 8)), "Returning.source"),
    "a loader's own": (lambda: Loader(batches()), "Loader.source"),
}
STARTS_AGAIN = {
    "new": lambda: DataLoader(Fresh(), 8),
    "set back": lambda: DataLoader(Restarting(), 8),
    "bound again": lambda: DataLoader(Rebinding(), 8),
    "chained": lambda: DataLoader(ChainDataset([Fresh(), Fresh()]), 8),
    "a list": lambda: list(batches()),
    "in a wrapper": lambda: Loader(list(batches())),
}


def find(loader, **options):
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return LRFinder(model, optimizer, nn.MSELoss()).find(
        loader, start_lr=1e-4, end_lr=1e-1, num_iter=8, progress=False, **options
    )


@pytest.mark.filterwarnings("ignore::lrfinder.LRFinderWarning")
@pytest.mark.parametrize(("make", "name"), READS_ONE.values(), ids=READS_ONE)
def test_batches_of_an_iterator_in_the_loader_are_said_to_be_consumed(make, name):
    with pytest.warns(LRFinderWarning, match=f"The loader reads from one iterator, {name}, in .*: the 8 batches that"):
        find(make())
    held_out = make()
    with pytest.warns(LRFinderWarning, match=f"The val_loader reads from one iterator, {name}, in .*: the batches"):
        find(list(batches()), val_loader=held_out, val_batches=2)


@pytest.mark.filterwarnings("ignore::lrfinder.LRFinderWarning")
@pytest.mark.parametrize("make", STARTS_AGAIN.values(), ids=STARTS_AGAIN)
def test_a_loader_that_starts_again_gives_no_such_warning(make):
    result = find(make(), val_loader=make(), val_batches=2)
    assert not any("iterator" in each for each in result.warnings)


def test_workers_read_copies():
    assert held_iterators(DataLoader(Returning(), 8, num_workers=1)) == {}


def test_a_sampler_that_is_an_iterator_is_found():
    loader = DataLoader(torch.arange(4.0), sampler=iter([0, 1]))
    assert list(held_iterators(loader)) == ["DataLoader.sampler"]


def test_an_iterator_is_a_one_shot_loader_itself():
    source = Batches(batches())
    source.take(2)
    assert source.one_shot
    assert source.held_iterator == ""
