"""The checksum against a slow reference, and the changes that it must see."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lrfinder.snapshot import checksums as module
from lrfinder.snapshot.checksums import Checksums, checksum
from lrfinder.snapshot.storage import memory_regions

MODULUS = 1 << 64
GOLDEN = 0x9E3779B97F4A7C15


def signed(number):
    number %= MODULUS
    return number - MODULUS if number >= MODULUS // 2 else number


def weight(place):
    """Return the weight of a place, in Python's integers."""
    mixed = signed(place * GOLDEN)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = signed((mixed ^ (mixed >> shift)) * factor)
    return mixed | 1


def slow(words):
    """Return the formula's two numbers for fewer words than a chunk has."""
    count = len(words)
    first = sum(weight(i + 1) * word for i, word in enumerate(words))
    second = sum(weight(count + i + 1) * (word >> 23) for i, word in enumerate(words))
    return [signed(number * signed(GOLDEN)) for number in (first, second)]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20))
def test_against_a_slow_reference(words):
    assert checksum(torch.tensor(words, dtype=torch.int64)).tolist() == slow(words)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_narrow_words(dtype, device):
    words = torch.tensor([1, 100, 7], dtype=dtype, device=device)
    assert checksum(words).tolist() == slow([1, 100, 7])


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60), st.sets(st.integers(0, 63), min_size=1, max_size=6))
def test_every_change_of_one_word_is_seen(seed, count, flipped):
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(-(2**62), 2**62, (count,), generator=generator)
    changed = words.clone()
    for bit in flipped:
        changed[seed % count] ^= signed(1 << bit)
    assert not torch.equal(checksum(words), checksum(changed))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (torch.ones(64), torch.full((64,), 0.9)),  # torch.hash_tensor gives 0 for both
        (torch.ones(64), -torch.ones(64)),
        (torch.zeros(64), -torch.zeros(64)),
        (torch.tensor([1.0, 1, 2, 2]), torch.tensor([2.0, 2, 1, 1])),
        (torch.tensor([0.0, 1, 0, 1]), torch.tensor([0.0, -1, 0, -1])),
        (torch.arange(64.0), torch.arange(64.0).flip(0)),
        (torch.ones(64), torch.ones(64) * (1 + 2**-23)),
    ],
)
def test_changes_that_cancel_in_simpler_sums(before, after, device):
    for dtype in (torch.int64, torch.int32, torch.uint8):
        sums = [checksum(tensor.to(device).view(dtype)) for tensor in (before, after)]
        assert not torch.equal(*sums)


def test_sign_flips_of_every_pair_are_seen():
    words = torch.ones(24).view(torch.int64)
    expected = checksum(words)
    for i in range(12):
        for j in range(i):
            changed = words.clone()
            changed[[i, j]] ^= signed(1 << 63)
            assert not torch.equal(checksum(changed), expected)


def test_chunks_have_places_too(monkeypatch, device):
    monkeypatch.setattr(module, "_chunk_size", lambda words: min(words.numel(), 8))
    words = torch.arange(20, device=device)
    expected = checksum(words)
    assert torch.equal(checksum(words.clone()), expected)
    for swapped in ([*range(8, 16), *range(8), *range(16, 20)], [*range(19), 20]):
        assert not torch.equal(checksum(torch.tensor(swapped, device=device)), expected)


def test_nothing_is_drawn():
    before = torch.get_rng_state()
    checksum(torch.arange(10))
    assert torch.equal(torch.get_rng_state(), before)


def test_checksums_name_what_changed(device):
    base = torch.randn(40, 3, device=device)
    tensors = {
        "plain": torch.randn(5, device=device), "column": base[:, 1], "half": torch.randn(7, device=device).half(),
        "long": torch.randn(1000, device=device),
    }  # fmt: skip
    checksums = Checksums(memory_regions((name, tensor, True) for name, tensor in tensors.items()))
    assert checksums.changed() == []
    base[:, 0] += 1  # beside the column
    assert checksums.changed() == []
    tensors["column"][3] += 1
    tensors["half"][6] = -tensors["half"][6]
    assert sorted(checksums.changed()) == ["column", "half"]
    assert Checksums([]).changed() == []
