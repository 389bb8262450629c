"""Losses stay on the device, and the host reads them a few steps late, so that the device never waits for it."""

from collections import deque
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

__all__ = ["LAG", "LossQueue", "LossReader"]

LAG = 3  # steps by which the host reads an accelerator's losses late; on a CPU it reads them at once


class LossReader(Protocol):
    """Brings recorded losses to the host."""

    def request(self, index: int) -> None:
        """Begin to bring over the loss at `index`, without waiting for it."""

    def read(self, index: int) -> float:
        """Return the loss at `index`, which was requested before."""


class _HostReader:
    """Reads a buffer that lies in host memory."""

    def __init__(self, buffer: Tensor) -> None:
        self._view = buffer.numpy()

    def request(self, index: int) -> None:
        """Do nothing: the value is where it is needed."""

    def read(self, index: int) -> float:
        return float(self._view[index])


class _EventReader:
    """Copies asynchronously into pinned memory, with an event a step that says when a copy has arrived."""

    def __init__(self, buffer: Tensor) -> None:
        self._device = buffer.device
        pinned = torch.empty(buffer.shape, dtype=buffer.dtype, pin_memory=True)
        self._pairs = list(zip(pinned.unbind(), buffer.unbind(), strict=True))
        self._view: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = pinned.numpy()
        self._events: dict[int, torch.Event] = {}

    def request(self, index: int) -> None:
        pinned, recorded = self._pairs[index]
        pinned.copy_(recorded, non_blocking=True)
        event = torch.Event(device=self._device)
        event.record()
        self._events[index] = event

    def read(self, index: int) -> float:
        self._events.pop(index).synchronize()
        return float(self._view[index])


class _BlockingReader:
    """Reads with a plain copy, where neither pinned memory nor events can be relied on."""

    def __init__(self, buffer: Tensor) -> None:
        self._buffer = buffer

    def request(self, index: int) -> None:
        """Do nothing: the copy waits by itself."""

    def read(self, index: int) -> float:
        return float(self._buffer[index])


def _reader_for(buffer: Tensor) -> LossReader:
    if buffer.device.type == "cpu":
        return _HostReader(buffer)
    if buffer.device.type in {"cuda", "xpu"}:
        return _EventReader(buffer)
    return _BlockingReader(buffer)


class LossQueue:
    """A queue of losses from the device to the host: written now, read `lag` steps later.

    Args:
        capacity: The largest number of losses that will be written.
        device: Where the losses come from.
        lag: How many of the newest losses stay unread; `LAG` on an accelerator and 0 on a CPU by default.
        reader: What brings the values to the host; by default one that suits the device.

    Example:
        >>> queue = LossQueue(3, torch.device("cpu"), lag=1)
        >>> queue.put(torch.tensor(0.5)), queue.put(torch.tensor(0.25))
        ([], [0.5])
        >>> queue.drain()
        [0.25]
    """

    def __init__(
        self, capacity: int, device: torch.device, *, lag: int | None = None, reader: LossReader | None = None
    ) -> None:
        self._lag = lag if lag is not None else (0 if device.type == "cpu" else LAG)
        self._at_once = device.type == "cpu" and self._lag == 0 and reader is None
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self._buffer = torch.zeros(0 if self._at_once else capacity, dtype=dtype, device=device)
        self._places = self._buffer.unbind()  # indexing would make a view at every step
        self._reader = reader if reader is not None else _reader_for(self._buffer)
        self._unread: deque[int | None] = deque()
        self._written = 0

    def put(self, loss: Tensor | None) -> list[float | None]:
        """Record the loss of one step; nothing waits for the newest `lag` steps.

        Args:
            loss: A scalar on any device, or None for a step that a GradScaler skipped.

        Returns:
            Oldest first, the losses not read yet that are at least `lag` steps old, None for a skipped step.
        """
        if self._at_once:
            value: Any = None if loss is None else loss.tolist()
            return [None if value is None else float(value)]
        if loss is None:
            self._unread.append(None)
        else:
            index = self._written
            self._places[index].copy_(loss.detach() if loss.requires_grad else loss, non_blocking=True)
            self._reader.request(index)
            self._unread.append(index)
            self._written += 1
        return self._read(len(self._unread) - self._lag)

    def drain(self) -> list[float | None]:
        """Return, oldest first, all losses not read yet; this waits for the device.

        Returns:
            Losses as floats, None for a skipped step.
        """
        return self._read(len(self._unread))

    def _read(self, count: int) -> list[float | None]:
        losses: list[float | None] = []
        for _ in range(count):
            index = self._unread.popleft()
            losses.append(None if index is None else self._reader.read(index))
        return losses
