"""A checksum of a tensor's bits that depends on their places, computed where the tensor lives."""

import torch
from torch import Tensor

__all__ = ["checksum"]

_CHUNK = 1 << 20  # words at a time: bounds the temporary memory to a few times 8 MiB
_GOLDEN = -7046029254386353131  # 2^64 / golden ratio, odd, as a signed number: multiples of it are well spread


def checksum(words: Tensor) -> Tensor:
    r"""Return a position-weighted checksum of a row of integers.

    In arithmetic modulo :math:`2^{64}` the two numbers are

    .. math:: \sum_i a_i x_i \quad\text{and}\quad \sum_i b_i \lfloor x_i / 2^{23} \rfloor

    with odd pseudo-random weights :math:`a_i, b_i` that depend on the place :math:`i`. A change of one word always
    changes the first number, since its weight is odd. The second keeps changes of the highest bits apart (negating two
    floats, say), which the first alone would cancel. Any other change goes unseen with a chance of about one in 2^40
    at worst. (``torch.hash_tensor`` is an exclusive or without weights: all ones and all 0.9 give the same number.)

    Args:
        words: Integers of any width, such as ``tensor.view(torch.int32)``, shape (N,).

    Returns:
        Two int64 numbers on the device of ``words``, shape (2,); nothing is read by the host.

    Example:
        >>> import torch
        >>> a, b = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 1.0])
        >>> bool(torch.equal(checksum(a.view(torch.int32)), checksum(b.view(torch.int32))))
        False
    """
    total = torch.zeros(2, dtype=torch.int64, device=words.device)
    weights = _weights(min(_CHUNK, words.numel()), words.device)
    for index, chunk in enumerate(words.split(_CHUNK)):
        row = chunk.to(torch.int64)
        first, second = weights[0, : row.numel()], weights[1, : row.numel()]
        sums = torch.stack([(row * first).sum(), ((row >> 23) * second).sum()])
        total += sums * _odd(index)
    return total


def _odd(index: int) -> int:
    """Return an odd signed 64-bit number for a chunk's place."""
    number = ((2 * index + 1) * _GOLDEN) % (1 << 64)
    return number - (1 << 64) if number >= (1 << 63) else number


def _weights(count: int, device: torch.device) -> Tensor:
    """Return odd weights, shape (2, count): a multiplicative mix of the places, drawn from no random stream."""
    weights = torch.arange(1, 2 * count + 1, dtype=torch.int64, device=device) * _GOLDEN
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):  # the mixing steps of splitmix64
        weights = (weights ^ (weights >> shift)) * factor
    return (weights | 1).view(2, count)
