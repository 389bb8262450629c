"""What every rank knows, known to all ranks."""

import pickle
from collections import deque
from typing import Any

import torch
import torch.distributed as dist

__all__ = ["gather_objects", "gather_rows"]

# With torch before 2.8, gloo's own thread may free the tensors of a collective after the call has returned. It needs
# the GIL for that, unless Python still holds them. `destroy_process_group` waits for that thread and keeps the GIL: a
# user who called it straight after a find would wait forever.
_recent: deque[torch.Tensor] = deque(maxlen=8)


def gather_rows(row: torch.Tensor, group: Any) -> torch.Tensor:
    """Return the row of every rank.

    Args:
        row: This rank's numbers, as many as on the other ranks, shape (N,).
        group: A process group with a backend for the CPU.

    Returns:
        Shape (ranks, N), the same bits on every rank.
    """
    # Each rank fills its own row: adding zeros is exact, in any order.
    rows = torch.zeros(dist.get_world_size(group), len(row), dtype=row.dtype, device="cpu")
    rows[dist.get_rank(group)] = row
    _recent.append(rows)
    dist.all_reduce(rows, group=group)
    return rows


def gather_objects(value: Any, group: Any) -> list[Any]:
    """Return the value of every rank.

    Args:
        value: Anything that can be pickled.
        group: A process group with a backend for the CPU.

    Returns:
        One value for each rank.
    """
    pickled = torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)
    lengths = gather_rows(torch.tensor([len(pickled)], device="cpu"), group).flatten().tolist()
    padded = torch.zeros(max(lengths), dtype=torch.uint8, device="cpu")
    padded[: len(pickled)] = pickled
    rows = gather_rows(padded, group).numpy()
    return [pickle.loads(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]
