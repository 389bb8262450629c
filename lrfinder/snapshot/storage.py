"""The bytes behind tensors: each byte copied once, many tensors in few operations."""

from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from lrfinder.snapshot.error_collector import ErrorCollector

__all__ = ["Copies", "Region", "regions"]

_WORDS = (torch.int64, torch.int32, torch.int16, torch.uint8)
_SMALL = 1 << 20  # bytes; regions below share one allocation
_ALIGN = 16  # bytes, the width of a vectorised load


class Region(NamedTuple):
    """A stretch of memory to copy: integers that share the memory of one tensor or of several that overlap."""

    name: str
    words: Tensor
    frozen: bool
    nbytes: int  # of the storage; 0 if there is none of the usual kind

    def revive(self) -> None:
        """Allocate the storage again if it was shrunk."""
        if not self.nbytes:
            return
        storage = self.words.untyped_storage()
        if storage.nbytes() < self.nbytes:
            storage.resize_(self.nbytes)


class _Stretch(NamedTuple):
    start: int
    end: int
    name: str
    frozen: bool


def regions(tensors: Iterable[tuple[str, Tensor, bool]]) -> list[Region]:
    """Return the memory behind tensors, each byte once.

    A tensor without gaps is seen as a row of integers, so that neither its dtype nor its strides matter and every bit
    counts. Tensors that overlap in one storage share a region; it is frozen if all of them are. A tensor with gaps
    (a column of a larger one) or without memory of the usual kind is a region by itself.

    Args:
        tensors: Name, tensor (plain: no wrapper, not sparse), and whether nobody is expected to write to it.

    Returns:
        The regions; tensors without elements or on the meta device have none.
    """
    found: list[Region] = []
    by_storage: dict[tuple[torch.device, int], tuple[torch.UntypedStorage, list[_Stretch]]] = {}
    for name, tensor, frozen in tensors:
        if tensor.numel() == 0 or tensor.device.type == "meta":
            continue
        if tensor.layout != torch.strided:
            found.append(Region(name, tensor, frozen=False, nbytes=0))
            continue
        storage = tensor.untyped_storage()
        span = 1 + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
        if storage.nbytes() == 0:
            continue
        if span > tensor.numel() and not _meets_itself(tensor):
            found.append(Region(name, _twin(tensor), frozen, storage.nbytes()))
            continue
        start = int(tensor.storage_offset()) * tensor.element_size()
        stretch = _Stretch(start, start + span * tensor.element_size(), name, frozen)
        by_storage.setdefault((tensor.device, storage.data_ptr()), (storage, []))[1].append(stretch)
    for (device, _), (storage, stretches) in by_storage.items():
        for stretch in _merged(stretches):
            words = _words(storage, stretch.start, stretch.end, device)
            found.append(Region(stretch.name, words, stretch.frozen, storage.nbytes()))
    return found


def _meets_itself(tensor: Tensor) -> bool:
    """Return whether several elements may lie in one place, so that the tensor cannot be written to as it is."""
    reach = 0
    for stride, n in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if n > 1:
            if stride <= reach:
                return True
            reach += (n - 1) * stride
    return False


def _twin(tensor: Tensor) -> Tensor:
    """Return a tensor of its own on the same memory: it may be written to where the tensor, for inference, may not."""
    twin = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return twin.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())


def _merged(stretches: list[_Stretch]) -> list[_Stretch]:
    """Return the union of stretches of one storage: those that overlap become one."""
    if len(stretches) == 1:
        return stretches
    merged: list[_Stretch] = []
    for stretch in sorted(stretches, key=lambda stretch: (stretch.start, -stretch.end)):
        last = merged[-1] if merged else None
        if last is None or stretch.start >= last.end:
            merged.append(stretch)
        else:
            end, frozen = max(last.end, stretch.end), last.frozen and stretch.frozen
            merged[-1] = _Stretch(last.start, end, last.name, frozen)
    return merged


def _words(storage: torch.UntypedStorage, start: int, end: int, device: torch.device) -> Tensor:
    """Return a stretch of a storage as the widest integers that fit."""
    places = (storage.data_ptr() + start, start, end)
    dtype = next(dtype for dtype in _WORDS if all(place % dtype.itemsize == 0 for place in places))
    row = torch.empty(0, dtype=dtype, device=device)
    # torch's stub of set_ knows neither untyped storages nor that offset and size are plain numbers here
    return row.set_(storage, start // dtype.itemsize, ((end - start) // dtype.itemsize,), (1,))


class Copies:
    """Copies of regions, written back on demand.

    Small regions share one allocation, and regions of a kind are copied by one call of ``torch._foreach_copy_``, which
    takes a few kernel launches for a thousand tensors. (torch offers the batched copy under no public name.)

    Args:
        found: The regions to copy.
        device: Where the copies live; None keeps each beside its original.
    """

    def __init__(self, found: list[Region], device: torch.device | None = None) -> None:
        """Allocate the copies and fill them."""
        self._regions = found
        self._saved = _allocate([region.words for region in found], device)
        _copy(self._saved, [region.words for region in found])

    @property
    def nbytes(self) -> int:
        """Bytes that the copies take."""
        return sum(saved.numel() * saved.element_size() for saved in self._saved)

    def restore(self, failures: ErrorCollector) -> None:
        """Write the copies back; may be called any number of times.

        Args:
            failures: Takes note of what could not be written.
        """
        for region in self._regions:
            failures.attempt(region.name, region.revive)
        pairs = list(zip(self._regions, self._saved, strict=True))
        pairs = [(region, saved) for region, saved in pairs if not (region.frozen and _is_equal(region.words, saved))]
        try:
            _copy([region.words for region, _ in pairs], [saved for _, saved in pairs])
        except Exception:  # noqa: BLE001 - one by one, to write all that can be written and to name what cannot
            for region, saved in pairs:
                failures.attempt(region.name, partial(region.words.copy_, saved))


def _is_equal(words: Tensor, saved: Tensor) -> bool:
    """Return whether the host can see that bits are equal: then memory mapped from a file is not touched."""
    comparable = words.device.type == "cpu" and words.layout == torch.strided
    return comparable and not (words.is_floating_point() or words.is_complex()) and torch.equal(words, saved)


def _allocate(sources: list[Tensor], device: torch.device | None) -> list[Tensor]:
    """Return memory for a copy of each source; small ones with the same home are slices of one allocation."""
    saved: dict[int, Tensor] = {}
    small: dict[tuple[torch.device, bool], list[int]] = {}
    for index, source in enumerate(sources):
        target = source.device if device is None else device
        pinned = target.type == "cpu" and source.device.type != "cpu"
        plain = source.layout == torch.strided and source.dim() == 1 and source.is_contiguous()
        nbytes = source.numel() * source.element_size()
        if not plain:
            saved[index] = source.clone() if target == source.device else source.to(target)
        elif nbytes >= _SMALL:
            saved[index] = _empty(nbytes, target, pinned=pinned).view(source.dtype)
        else:
            small.setdefault((target, pinned), []).append(index)
    for (target, pinned), indices in small.items():
        saved.update(_slices({index: sources[index] for index in indices}, target, pinned=pinned))
    return [saved[index] for index in range(len(sources))]


def _slices(sources: dict[int, Tensor], target: torch.device, *, pinned: bool) -> dict[int, Tensor]:
    places, end = {}, 0
    for index, source in sources.items():
        places[index] = (end, source.numel() * source.element_size())
        end += -(-places[index][1] // _ALIGN) * _ALIGN
    arena = _empty(end, target, pinned=pinned)
    return {index: arena[start : start + size].view(sources[index].dtype) for index, (start, size) in places.items()}


def _empty(nbytes: int, device: torch.device, *, pinned: bool) -> Tensor:
    if pinned:
        with suppress(RuntimeError):  # the host cannot lock so much memory: pageable memory is slower, but right
            return torch.empty(nbytes, dtype=torch.uint8, device=device, pin_memory=True)
    return torch.empty(nbytes, dtype=torch.uint8, device=device)


def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    """Copy many tensors in one batch for each pair of devices and dtype."""
    batches: dict[tuple[torch.device, torch.device, torch.dtype], tuple[list[Tensor], list[Tensor]]] = {}
    for target, source in zip(targets, sources, strict=True):
        if target.layout != torch.strided:
            target.copy_(source)
            continue
        batch = batches.setdefault((target.device, source.device, target.dtype), ([], []))
        batch[0].append(target)
        batch[1].append(source)
    for into, out_of in batches.values():
        torch._foreach_copy_(into, out_of, non_blocking=True)
    for device in {device for kind in batches for device in kind[:2] if device.type not in {"cpu", "meta"}}:
        torch.accelerator.synchronize(device)
