"""Loaders of other libraries give the same batches again once their state is put back."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler, default_collate

from lrfinder.snapshot.error_collector import ErrorCollector
from lrfinder.snapshot.loader_state import LoaderState
from lrfinder.snapshot.rng import RandomStreams

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.frameworks]

SAMPLES = [(torch.full((1, 6), float(n)), n % 3) for n in range(32)]


def fastai():
    return pytest.importorskip("fastai.data.load").DataLoader(SAMPLES, bs=8, shuffle=True)


def fastai_transformed():
    return pytest.importorskip("fastai.data.core").TfmdDL(SAMPLES, bs=8, shuffle=True)


def monai(*, seed=None, cache=False):
    data, transforms = pytest.importorskip("monai.data"), pytest.importorskip("monai.transforms")
    transform = transforms.Compose([transforms.RandGaussianNoised("x", prob=1.0), lambda row: (row["x"], row["y"])])
    if seed is not None:
        transform.set_random_state(seed)
    rows = [{"x": x, "y": y} for x, y in SAMPLES]
    made = data.CacheDataset(rows, transform, progress=False) if cache else data.Dataset(rows, transform)
    return data.DataLoader(made, batch_size=8, shuffle=True, collate_fn=stacked)


def stacked(samples):
    return torch.stack([torch.as_tensor(x) for x, _ in samples]), torch.tensor([y for _, y in samples])


def hugging_face_stream():
    datasets = pytest.importorskip("datasets")
    rows = {"x": [x.tolist() for x, _ in SAMPLES], "y": [y for _, y in SAMPLES]}
    stream = datasets.Dataset.from_dict(rows).with_format("torch").to_iterable_dataset()
    return DataLoader(stream.shuffle(seed=3, buffer_size=10), batch_size=8)


def torchdata_nodes():
    nodes = pytest.importorskip("torchdata.nodes")
    sampler = RandomSampler(SAMPLES, generator=torch.Generator().manual_seed(1))
    node = nodes.Mapper(nodes.Batcher(nodes.MapStyleWrapper(SAMPLES, sampler), batch_size=8), default_collate)
    return nodes.Loader(node)


MAKE = {
    "fastai": fastai,
    "fastai, transformed": fastai_transformed,
    "MONAI": monai,
    "MONAI, seeded": lambda: monai(seed=3),
    "MONAI, cached": lambda: monai(seed=3, cache=True),
    "Hugging Face stream": hugging_face_stream,
    "torchdata nodes": torchdata_nodes,
}


def read(loader):
    return [{key: torch.as_tensor(value).tolist() for key, value in _named(batch)} for batch in loader]


def _named(batch):
    return batch.items() if isinstance(batch, dict) else enumerate(batch)


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
@pytest.mark.parametrize("epochs_before", [0, 1])
def test_reading_gives_the_same_once_restored(make, epochs_before):
    random.seed(0), np.random.seed(0), torch.manual_seed(0)  # noqa: NPY002 - the libraries draw from it
    loader = make()
    for _ in range(epochs_before):
        read(loader)
    streams, state, errors = RandomStreams(), LoaderState(loader), ErrorCollector()
    first = [read(loader), read(loader)]
    streams.restore(errors)
    state.restore(errors)
    assert [read(loader), read(loader)] == first
    assert errors == []
