"""A checksum of bits that depends on their places, computed where they live."""

import torch
from torch import Tensor

from lrfinder.snapshot.storage import Region

__all__ = ["Checksums", "checksum"]

_CHUNK = 1 << 20  # words at a time: enough to keep a device busy, and temporary memory of a few times 8 MiB
_CPU_CHUNK = 1 << 18  # here with their weights they stay in the cache
_GOLDEN = -7046029254386353131  # 2^64 / golden ratio, odd, as a signed number: multiples of it are well spread
_MIXING = ((30, -4658895280553007687), (27, -7723592293110705685))  # shifts and factors of splitmix64


def checksum(words: Tensor) -> Tensor:
    r"""Return a position-weighted checksum of a row of integers.

    In arithmetic modulo :math:`2^{64}` the two numbers are

    .. math:: \sum_i a_i x_i \quad\text{and}\quad \sum_i b_i \lfloor x_i / 2^{23} \rfloor

    with odd pseudo-random weights :math:`a_i, b_i` that depend on the place :math:`i`. A change of one word always
    changes the first number, since its weight is odd. The second tells changes of the highest bits apart (two floats
    negated, say), which cancel in the first. Other changes go unseen with a chance of about one in 2^40 at worst.
    (``torch.hash_tensor`` is an exclusive or without weights: all ones and all 0.9 give the same number.)

    Args:
        words: Integers of any width, such as ``tensor.view(torch.int32)``, shape (N,).

    Returns:
        Two int64 numbers on the device of ``words``, shape (2,); the host reads nothing.

    Example:
        >>> import torch
        >>> a, b = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 1.0])
        >>> bool(torch.equal(checksum(a.view(torch.int32)), checksum(b.view(torch.int32))))
        False
    """
    size = _chunk_size(words)
    return _chunked(words, _weights(size, words.device), size)


class Checksums:
    """Checksums of regions that nobody is expected to write to, against which they can be checked.

    Args:
        watched: The regions.
    """

    def __init__(self, watched: list[Region]) -> None:
        """Compute the checksums."""
        self._watched = watched
        self._before = self._compute()

    def changed(self) -> list[str]:
        """Compute the checksums again; the host reads one number a region.

        Returns:
            The names of the regions whose bits differ.
        """
        names: list[str] = []
        for device, now in self._compute().items():
            same = (now == self._before[device]).all(dim=1).tolist()
            here = [region.name for region in self._watched if region.words.device == device]
            names += [name for name, is_same in zip(here, same, strict=True) if not is_same]
        return names

    def _compute(self) -> dict[torch.device, Tensor]:
        by_device: dict[torch.device, list[Tensor]] = {}
        for region in self._watched:
            by_device.setdefault(region.words.device, []).append(_row(region.words))
        sums = {}
        for device, rows in by_device.items():
            size = max(map(_chunk_size, rows))
            weights = _weights(size, device)
            sums[device] = torch.stack([_chunked(row, weights, size) for row in rows])
        return sums


def _row(words: Tensor) -> Tensor:
    """Return a region as a row of integers; one with gaps is copied for the moment."""
    is_row = words.dim() == 1 and words.is_contiguous() and not (words.is_floating_point() or words.is_complex())
    return words if is_row else words.contiguous().view(-1).view(torch.uint8)


def _chunk_size(words: Tensor) -> int:
    return min(words.numel(), _CPU_CHUNK if words.device.type == "cpu" else _CHUNK)


def _chunked(words: Tensor, weights: Tensor, size: int) -> Tensor:
    total = torch.zeros(2, dtype=torch.int64, device=words.device)
    scratch = torch.empty(size, dtype=torch.int64, device=words.device)  # one for all: allocating costs time and heap
    for start in range(0, words.numel(), max(size, 1)):
        row = words[start : start + size].to(torch.int64)
        first, second = weights[:, : row.numel()]
        product = torch.mul(row, first, out=scratch[: row.numel()])
        low = product.sum()
        high = torch.bitwise_right_shift(row, 23, out=product).mul_(second).sum()
        total += torch.stack([low, high]) * _odd(start)
    return total


def _odd(place: int) -> int:
    """Return an odd number for a chunk's place, as a signed one of 64 bits."""
    number = ((2 * place + 1) * _GOLDEN) % (1 << 64)
    return number - (1 << 64) if number >= (1 << 63) else number


def _weights(count: int, device: torch.device) -> Tensor:
    """Return odd weights, shape (2, count): the places, well mixed, so that no random stream is drawn from."""
    weights = torch.arange(1, 2 * count + 1, dtype=torch.int64, device=device).mul_(_GOLDEN)
    for shift, factor in _MIXING:
        weights.bitwise_xor_(weights >> shift).mul_(factor)
    return weights.bitwise_or_(1).view(2, count)
