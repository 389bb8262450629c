"""The bytes behind tensors: each once, and written back as they were."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lrfinder.snapshot.error_collector import ErrorCollector
from lrfinder.snapshot.storage import StorageCopies, memory_regions


def addresses(tensor):
    """Return the address of every byte that a tensor's elements lie on."""
    size = tensor.element_size()
    places = np.zeros(1, dtype=np.int64)
    for n, stride in zip(tensor.shape, tensor.stride(), strict=True):
        places = (places[:, None] + np.arange(n) * stride * size).ravel()
    start = tensor.data_ptr()
    return {int(start + place + byte) for place in places for byte in range(size)} if tensor.numel() else set()


views = st.tuples(st.integers(0, 40), st.integers(0, 12), st.sampled_from([1, 2, 4, 8]))


@settings(max_examples=150, deadline=None)
@given(st.lists(views, min_size=1, max_size=6))
def test_views_of_one_storage_are_copied_once(places):
    base = torch.randint(256, (64,), dtype=torch.uint8)
    dtypes = {1: torch.uint8, 2: torch.bfloat16, 4: torch.float32, 8: torch.complex64}
    tensors = [base[8 * (start // 8) :][: 8 * (length // 2)].view(dtypes[size]) for start, length, size in places]
    found = memory_regions((str(index), tensor, False) for index, tensor in enumerate(tensors))
    covered = [address for region in found for address in addresses(region.words)]
    assert len(covered) == len(set(covered))
    assert set(covered) == set().union(*map(addresses, tensors))
    before = base.clone()
    copies, errors = StorageCopies(found), ErrorCollector()
    assert sum(saved.nbytes for saved in copies._saved) == len(covered)
    base.bitwise_not_()
    copies.restore(errors)
    assert errors == []
    for index, address in enumerate(range(base.data_ptr(), base.data_ptr() + 64)):
        assert (base[index] == before[index]).item() == (address in covered)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), max_size=4), st.integers(0, 5))
def test_any_strides(dimensions, offset):
    sizes, strides = [n for n, _ in dimensions], [stride for _, stride in dimensions]
    base = torch.randn(200)
    tensor = base.as_strided(sizes, strides, offset)
    found = memory_regions([("tensor", tensor, False)])
    assert set().union(*(addresses(region.words) for region in found)) >= addresses(tensor)
    before = tensor.clone()
    copies = StorageCopies(found)
    base.zero_()
    copies.restore(ErrorCollector())
    assert torch.equal(tensor, before)


def test_frozen_only_where_all_are():
    base, other = torch.randn(10), torch.randn(3)
    found = memory_regions([("all", base, True), ("part", base[:2], False), ("other", other, True)])
    assert [(region.name, region.frozen) for region in found] == [("all", False), ("other", True)]


def test_neighbours_in_a_storage_stay_apart():
    base = torch.randn(10)
    found = memory_regions([("left", base[:4], True), ("right", base[4:], False)])
    assert [(region.name, region.words.numel() * region.words.element_size()) for region in found] == [
        ("left", 16),
        ("right", 24),
    ]


def test_a_failure_names_its_region_and_spares_the_others():
    first, second = torch.ones(3), torch.ones(3)
    found = memory_regions([("first", first, False), ("second", second, False)])
    copies, errors = StorageCopies(found), ErrorCollector()
    found[0].words.resize_(7)
    first.zero_(), second.zero_()
    copies.restore(errors)
    assert [name for name, _ in errors] == ["first"]
    assert second.tolist() == [1, 1, 1]


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning")
def test_unchanged_frozen_memory_is_not_written_to(tmp_path):
    path = tmp_path / "weights.bin"
    np.arange(1000, dtype=np.float32).tofile(path)
    mapped = torch.from_numpy(np.memmap(path, dtype=np.float32, mode="r"))  # a write would end the process
    copies, errors = StorageCopies(memory_regions([("mapped", mapped, True)])), ErrorCollector()
    copies.restore(errors)
    assert errors == []


def test_where_copies_live(device):
    tensors = [torch.randn(n, device=device) for n in (1, 3, 50, 400_000)]
    before = [tensor.clone() for tensor in tensors]
    for home in (None, torch.device("cpu")):
        copies = StorageCopies(memory_regions((str(n), tensor, False) for n, tensor in enumerate(tensors)), home)
        assert {saved.device.type for saved in copies._saved} == {device.type if home is None else "cpu"}
        if device.type != "cpu" and home is not None:
            assert all(saved.is_pinned() for saved in copies._saved)
        for tensor in tensors:
            tensor.neg_()
        copies.restore(ErrorCollector())
        assert all(map(torch.equal, tensors, before))


def test_nothing_to_copy():
    tensors = [torch.empty(0), torch.empty(3, device="meta")]
    assert memory_regions((str(n), tensor, False) for n, tensor in enumerate(tensors)) == []
    StorageCopies([]).restore(ErrorCollector())
