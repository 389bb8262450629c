"""A checksum of memory that depends on the order of its bits, computed on the device that holds it."""

import torch
from torch import Tensor

from lrfinder.snapshot.storage import Region

__all__ = ["Checksums", "checksum"]

_CHUNK = 1 << 20  # words per operation on an accelerator; needs a few times 8 MiB of temporary memory
_CPU_CHUNK = 1 << 18  # words per operation on a CPU; with their weights they fit into the cache
_GOLDEN = -7046029254386353131  # 2^64 / golden ratio as a signed odd number, whose multiples are spread evenly
_MIXING = ((30, -4658895280553007687), (27, -7723592293110705685))  # shifts and factors of splitmix64


def checksum(words: Tensor) -> Tensor:
    r"""Return a position-weighted checksum of a row of integers.

    In arithmetic modulo :math:`2^{64}` the two numbers are

    .. math:: \sum_i a_i x_i \quad\text{and}\quad \sum_i b_i \lfloor x_i / 2^{23} \rfloor

    with odd pseudo-random weights :math:`a_i, b_i` that depend on the index :math:`i`. A change of one word always
    changes the first number, because its weight is odd. The second number also changes if only the highest bits do (two
    floats negated, for example), which can cancel in the first. Other changes are missed with a probability of about
    2^-40 at worst. (`torch.hash_tensor` is an exclusive or without weights: all ones and all 0.9 give the same number.)

    Args:
        words: Integers of any width, such as `tensor.view(torch.int32)`, shape (N,).

    Returns:
        Two int64 numbers on the device of `words`, shape (2,); nothing is copied to the host.

    Example:
        >>> import torch
        >>> a, b = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 1.0])
        >>> bool(torch.equal(checksum(a.view(torch.int32)), checksum(b.view(torch.int32))))
        False
    """
    size = _chunk_size(words)
    return _chunked(words, _weights(size, words.device), size)


class Checksums:
    """Checksums of memory regions, with which later writes are detected.

    Args:
        regions: The regions.
    """

    def __init__(self, regions: list[Region]) -> None:
        self._regions = regions
        self._before = self._compute()

    def changed(self) -> list[str]:
        """Return the names of the regions whose bits have changed; the host reads one number per region."""
        names: list[str] = []
        for device, now in self._compute().items():
            same = (now == self._before[device]).all(dim=1).tolist()
            on_device = [region.name for region in self._regions if region.words.device == device]
            names += [name for name, is_same in zip(on_device, same, strict=True) if not is_same]
        return names

    def _compute(self) -> dict[torch.device, Tensor]:
        by_device: dict[torch.device, list[Tensor]] = {}
        for region in self._regions:
            by_device.setdefault(region.words.device, []).append(_row(region.words))
        sums = {}
        for device, rows in by_device.items():
            size = max(map(_chunk_size, rows))
            weights = _weights(size, device)
            sums[device] = torch.stack([_chunked(row, weights, size) for row in rows])
        return sums


def _row(words: Tensor) -> Tensor:
    """Return a region as a row of integers; one with gaps is copied."""
    is_row = words.dim() == 1 and words.is_contiguous() and not (words.is_floating_point() or words.is_complex())
    return words if is_row else words.contiguous().view(-1).view(torch.uint8)


def _chunk_size(words: Tensor) -> int:
    return min(words.numel(), _CPU_CHUNK if words.device.type == "cpu" else _CHUNK)


def _chunked(words: Tensor, weights: Tensor, size: int) -> Tensor:
    total = torch.zeros(2, dtype=torch.int64, device=words.device)
    scratch = torch.empty(size, dtype=torch.int64, device=words.device)  # allocated once, for speed
    for start in range(0, words.numel(), max(size, 1)):
        row = words[start : start + size].to(torch.int64)
        first, second = weights[:, : row.numel()]
        product = torch.mul(row, first, out=scratch[: row.numel()])
        low = product.sum()
        high = torch.bitwise_right_shift(row, 23, out=product).mul_(second).sum()
        total += torch.stack([low, high]) * _odd(start)
    return total


def _odd(index: int) -> int:
    """Return an odd pseudo-random number for the index of a chunk, as a signed 64-bit integer."""
    number = ((2 * index + 1) * _GOLDEN) % (1 << 64)
    return number - (1 << 64) if number >= (1 << 63) else number


def _weights(count: int, device: torch.device) -> Tensor:
    """Return odd weights, shape (2, count): hashed indices, so that no random number generator is used."""
    weights = torch.arange(1, 2 * count + 1, dtype=torch.int64, device=device).mul_(_GOLDEN)
    for shift, factor in _MIXING:
        weights.bitwise_xor_(weights >> shift).mul_(factor)
    return weights.bitwise_or_(1).view(2, count)
