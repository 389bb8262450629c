"""Copies of the memory behind tensors: each byte once, many tensors in few operations."""

from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lrfinder.snapshot.error_collector import ErrorCollector

__all__ = ["Region", "StorageCopies", "memory_regions"]

_WORDS = (torch.int64, torch.int32, torch.int16, torch.uint8)
_SMALL = 1 << 20  # bytes; smaller regions share one allocation
_ALIGN = 16  # bytes, the width of a vectorised load


class Region(NamedTuple):
    """A range of memory to copy, seen as a tensor of integers. Tensors that overlap share one region."""

    name: str
    words: Tensor
    frozen: bool
    nbytes: int  # of the whole storage; 0 if the tensor has no ordinary storage

    def reallocate(self) -> None:
        """Give the storage its old size back if it was shrunk."""
        if not self.nbytes:
            return
        storage = self.words.untyped_storage()
        if storage.nbytes() < self.nbytes:
            storage.resize_(self.nbytes)


class _Span(NamedTuple):
    """A range of bytes within a storage."""

    start: int
    end: int
    name: str
    frozen: bool


def memory_regions(tensors: Iterable[tuple[str, Tensor, bool]]) -> list[Region]:
    """Return the memory behind tensors, each byte once.

    A tensor without gaps is seen as a row of integers: its dtype and strides do not matter, and every bit counts.
    Tensors that overlap in one storage share a region, which is frozen if all of them are. A tensor with gaps (such as
    a column of a larger one) or without ordinary storage is a region by itself.

    Args:
        tensors: Name, tensor (plain: no wrapper, not sparse), and whether the tensor is frozen.

    Returns:
        The regions; tensors without elements or on the meta device have none.
    """
    found: list[Region] = []
    by_storage: dict[tuple[torch.device, int], tuple[torch.UntypedStorage, list[_Span]]] = {}
    for name, tensor, frozen in tensors:
        if tensor.numel() == 0 or tensor.device.type == "meta":
            continue
        if tensor.layout != torch.strided:
            found.append(Region(name, tensor, frozen=False, nbytes=0))
            continue
        storage = tensor.untyped_storage()
        if storage.nbytes() == 0:
            continue
        extent = 1 + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
        if extent > tensor.numel() and not _overlaps_itself(tensor):
            found.append(Region(name, _writable_alias(tensor), frozen, storage.nbytes()))
            continue
        start = int(tensor.storage_offset()) * tensor.element_size()
        span = _Span(start, start + extent * tensor.element_size(), name, frozen)
        by_storage.setdefault((tensor.device, storage.data_ptr()), (storage, []))[1].append(span)
    for (device, _), (storage, spans) in by_storage.items():
        for span in _merged(spans):
            words = _words(storage, span.start, span.end, device)
            found.append(Region(span.name, words, span.frozen, storage.nbytes()))
    return found


def _overlaps_itself(tensor: Tensor) -> bool:
    """Return whether several elements may share one place in memory, so that the tensor itself cannot be written to."""
    reach = 0
    for stride, n in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if n > 1:
            if stride <= reach:
                return True
            reach += (n - 1) * stride
    return False


def _writable_alias(tensor: Tensor) -> Tensor:
    """Return a new tensor on the same memory: it can be written to where an inference tensor cannot."""
    alias = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return alias.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())


def _merged(spans: list[_Span]) -> list[_Span]:
    """Return the union of spans of one storage: those that overlap become one."""
    if len(spans) == 1:
        return spans
    merged: list[_Span] = []
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        last = merged[-1] if merged else None
        if last is None or span.start >= last.end:
            merged.append(span)
        else:
            merged[-1] = _Span(last.start, max(last.end, span.end), last.name, last.frozen and span.frozen)
    return merged


def _words(storage: torch.UntypedStorage, start: int, end: int, device: torch.device) -> Tensor:
    """Return a range of bytes of a storage as the widest integers that fit."""
    places = (storage.data_ptr() + start, start, end)
    dtype = next(dtype for dtype in _WORDS if all(place % dtype.itemsize == 0 for place in places))
    row = torch.empty(0, dtype=dtype, device=device)
    # torch's stub of set_ knows neither untyped storages nor that offset and size are plain numbers here
    return row.set_(storage, start // dtype.itemsize, ((end - start) // dtype.itemsize,), (1,))


class StorageCopies:
    """Copies of memory regions.

    Small regions share one allocation, and regions with the same dtype and device are copied by one call of
    `torch._foreach_copy_`: a few kernel launches for a thousand tensors. (torch has no public batched copy.)

    Args:
        regions: The regions to copy.
        device: Where the copies are kept; None keeps each on the device of its original.
        earlier: Copies that another snapshot holds. Where they have the bits of a region, they are used again.
    """

    def __init__(
        self, regions: list[Region], device: torch.device | None = None, earlier: Iterable["StorageCopies"] = ()
    ) -> None:
        self._regions = regions
        shared = self._shared_with(earlier)
        sources = [region.words for index, region in enumerate(regions) if index not in shared]
        made = _allocate(sources, device)
        _copy(made, sources)
        remaining = iter(made)
        self._saved = [shared[index] if index in shared else next(remaining) for index in range(len(regions))]

    def _shared_with(self, earlier: Iterable["StorageCopies"]) -> dict[int, Tensor]:
        # By the index of a region, the copy of the same memory that exists and has the same bits.
        known = {_place(region): saved for copies in earlier for region, saved in copies.pairs()}
        found = ((index, region, known.get(_place(region))) for index, region in enumerate(self._regions))
        return {index: saved for index, region, saved in found if saved is not None and _has_bits(saved, region.words)}

    def pairs(self) -> Iterable[tuple[Region, Tensor]]:
        """Return each region with its copy."""
        return zip(self._regions, self._saved, strict=True)

    def restore(self, errors: ErrorCollector) -> None:
        """Write the copies back; may be called any number of times.

        Args:
            errors: Collects what could not be written.
        """
        for region in self._regions:
            errors.attempt(region.name, region.reallocate)
        pairs = list(zip(self._regions, self._saved, strict=True))
        pairs = [(region, saved) for region, saved in pairs if not (region.frozen and _is_equal(region.words, saved))]
        try:
            _copy([region.words for region, _ in pairs], [saved for _, saved in pairs])
        except Exception:  # noqa: BLE001 - one by one, what can be written is, and the rest is named
            for region, saved in pairs:
                errors.attempt(region.name, partial(region.words.copy_, saved))


def _place(region: Region) -> tuple[Any, ...]:
    words = region.words
    if words.layout != torch.strided:
        return ()
    return words.device, words.data_ptr(), words.dtype, words.shape, words.stride()


def _has_bits(saved: Tensor, words: Tensor) -> bool:
    if words.layout != torch.strided or words.is_floating_point() or words.is_complex():
        return False  # of integers equal values are equal bits
    return torch.equal(saved.to(words.device), words)


def _is_equal(words: Tensor, saved: Tensor) -> bool:
    """Return whether bits on the host are equal: memory that is mapped read-only from a file must not be written to."""
    comparable = words.device.type == "cpu" and words.layout == torch.strided
    return comparable and not (words.is_floating_point() or words.is_complex()) and torch.equal(words, saved)


def _allocate(sources: list[Tensor], device: torch.device | None) -> list[Tensor]:
    """Return memory for a copy of each source; small ones on the same device are slices of one allocation."""
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
    offsets, end = {}, 0
    for index, source in sources.items():
        offsets[index] = (end, source.numel() * source.element_size())
        end += -(-offsets[index][1] // _ALIGN) * _ALIGN
    memory = _empty(end, target, pinned=pinned)
    return {index: memory[start : start + size].view(sources[index].dtype) for index, (start, size) in offsets.items()}


def _empty(nbytes: int, device: torch.device, *, pinned: bool) -> Tensor:
    if pinned:
        with suppress(RuntimeError):  # the host cannot pin that much; pageable memory is only slower
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
