"""Random number generators anywhere in a loader are put back, and the data are not touched."""

import functools
import random

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset

from lrfinder.snapshot.data_generators import MOST_OBJECTS, DataGenerators
from lrfinder.snapshot.error_collector import ErrorCollector
from lrfinder.snapshot.loader_state import LoaderState


class Transform:
    def __init__(self, generator):
        self.generator = generator

    def __call__(self, x):
        return x + number(self.generator)


class Slotted:
    __slots__ = ("generator",)

    def __init__(self, generator):
        self.generator = generator

    def __call__(self, x):
        return x + number(self.generator)


class SharedByClass:
    """As MONAI's transforms are before `set_random_state`."""

    R = np.random.RandomState(3)

    def __call__(self, x):
        return x + number(self.R)


class Rebinding:
    """As MONAI's transforms in `set_random_state`: binds the attribute to a new generator at every call."""

    def __init__(self):
        self.R = np.random.RandomState(5)

    def __call__(self, x):
        self.R = np.random.RandomState(self.R.randint(1000))
        return x + number(self.R)


class OnFirstUse:
    """Makes its generator when it is first called, as data sets for workers do."""

    rng = None

    def __call__(self, x):
        if self.rng is None:
            self.rng = np.random.default_rng(7)
        return x + number(self.rng)


class Rows(Dataset):
    def __init__(self, *transforms, n=6):
        self.x, self.transforms, self.reads, self.cache = torch.arange(float(n)), list(transforms), 0, {}

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        self.reads += 1
        x = self.cache[index] = self.x[index]
        for transform in self.transforms:
            x = transform(x)
        return x


class Stream(IterableDataset):
    def __init__(self):
        self.rng = random.Random(0)

    def __iter__(self):
        return (torch.tensor(self.rng.random()) for _ in range(4))


GLOBAL = np.random.default_rng(11)


class UsesAGlobal:
    """Draws from a generator in a global variable, as in a notebook."""

    def __call__(self, x):
        return x + sum(GLOBAL.random() for _ in range(2))


def collate_with_a_global(samples):
    return torch.stack(samples) * GLOBAL.random()


class CountsEpochs(IterableDataset):
    """Seeds itself from an epoch that it counts, as webdataset's `detshuffle` does."""

    def __init__(self):
        self.epoch = -1

    def __iter__(self):
        self.epoch += 1
        return iter([torch.tensor(random.Random(self.epoch).random()) for _ in range(4)])


class NewAtEachEpoch:
    """A loader as fastai's: a new generator is made from the old one at every epoch."""

    def __init__(self):
        self.rng = random.Random(0)

    def __iter__(self):
        self.rng = random.Random(self.rng.randint(0, 2**32 - 1))
        return iter([torch.tensor(self.rng.random()) for _ in range(4)])


def number(generator):
    if isinstance(generator, torch.Generator):
        return float(torch.rand((), generator=generator))
    if isinstance(generator, np.random.PCG64):
        return float(generator.random_raw() % 1000)
    return float(generator.random())


def disturb(scale, generator, x):
    return x + scale * number(generator)


def closure(generator):
    def transform(x):
        return x + number(generator)

    return transform


def collate(generator):
    def collate_fn(samples):
        return torch.stack(samples) * number(generator)

    return collate_fn


MAKE = {
    "torch": lambda: torch.Generator().manual_seed(1),
    "python": lambda: random.Random(1),
    "numpy": lambda: np.random.default_rng(1),
    "numpy legacy": lambda: np.random.RandomState(1),
    "bit generator": lambda: np.random.PCG64(1),
}
LOADERS = {
    **{f"{name} in a transform": lambda make=make: DataLoader(Rows(Transform(make()))) for name, make in MAKE.items()},
    "in a slot": lambda: DataLoader(Rows(Slotted(random.Random(1)))),
    "of a class": lambda: DataLoader(Rows(SharedByClass())),
    "bound anew at each call": lambda: DataLoader(Rows(Rebinding())),
    "made on first use": lambda: DataLoader(Rows(OnFirstUse())),
    "in a closure": lambda: DataLoader(Rows(closure(random.Random(1)))),
    "in a partial": lambda: DataLoader(Rows(functools.partial(disturb, 2, random.Random(1)))),
    "in a bound method": lambda: DataLoader(Rows(Transform(random.Random(1)).__call__)),
    "nested": lambda: DataLoader(Subset(ConcatDataset([Rows(Transform(random.Random(1))), Rows()]), [0, 1])),
    "of the data set": lambda: DataLoader(Stream()),
    "of the collate function": lambda: DataLoader(Rows(), collate_fn=collate(np.random.default_rng(1))),
    "in a global variable": lambda: DataLoader(Rows(UsesAGlobal())),
    "in a global variable of the collate function": lambda: DataLoader(Rows(), collate_fn=collate_with_a_global),
    "made from an epoch": lambda: DataLoader(CountsEpochs()),
    "new at each epoch": NewAtEachEpoch,
}  # fmt: skip


def read(loader):
    return [batch.tolist() for batch in loader]


@pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS)
@pytest.mark.parametrize("epochs_before", [0, 1])
def test_reading_gives_the_same_once_restored(make, epochs_before):
    loader = make()
    for _ in range(epochs_before):
        read(loader)
    state, errors = LoaderState(loader), ErrorCollector()
    first = [read(loader), read(loader)]
    for _ in range(2):
        state.restore(errors)
        assert [read(loader), read(loader)] == first
    assert errors == []
    assert first[0] != first[1]  # or the test could not fail


def test_an_attribute_is_bound_to_the_same_generator_again():
    transform, late = Rebinding(), OnFirstUse()
    before = transform.R
    generators = DataGenerators(DataLoader(Rows(transform, late)))
    transform(0), late(0)
    generators.restore(ErrorCollector())
    assert transform.R is before
    assert vars(late) == {}


def test_nothing_but_generators_is_put_back():
    data = Rows()
    generators = DataGenerators(DataLoader(data))
    read(DataLoader(data))
    cache, data.x = data.cache, torch.zeros(6)
    generators.restore(ErrorCollector())
    assert data.reads == 6
    assert data.cache is cache
    assert len(cache) == 6
    assert data.x.sum() == 0


def test_samples_are_not_walked_through():
    class Counted(list):
        def __iter__(self):
            raise AssertionError

    class Held(Dataset):
        def __init__(self):
            self.samples = Counted([object()] * 1000)
            self.rng = random.Random(0)

    data = Held()
    generators = DataGenerators(DataLoader(data))
    drawn = data.rng.random()
    generators.restore(ErrorCollector())
    assert data.rng.random() == drawn


def test_the_walk_is_bounded():
    class Link:
        pass

    first = link = Link()
    for _ in range(3 * MOST_OBJECTS):
        link.next = Link()
        link = link.next
    generators = DataGenerators(first)
    assert len(generators._seen) == MOST_OBJECTS


def test_a_cycle_ends():
    loader = DataLoader(Rows())
    loader.itself = [loader, {"again": loader}]
    errors = ErrorCollector()
    DataGenerators(loader).restore(errors)
    assert not errors
