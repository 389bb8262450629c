"""What a user gives as the lr of a schedule becomes one lr per parameter group."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor
from torch.optim import Optimizer

from lrfinder.errors import ArgumentError
from lrfinder.optim.param_groups import group_lrs, group_ratios

__all__ = ["LR", "peak_lrs", "start_lrs"]


class _HasLR(Protocol):
    """A `Suggestion`."""

    @property
    def lr(self) -> float: ...


class _HasOnset(Protocol):
    """The `Landmarks` of a result."""

    @property
    def onset(self) -> float | None: ...


class _HasGroupLRs(Protocol):
    """A `RangeTestResult`."""

    @property
    def total_steps(self) -> int | None: ...

    @property
    def landmarks(self) -> _HasOnset: ...

    def group_lrs(self, suggestion: float | None = None, /) -> list[float]: ...


LR = float | Sequence[float] | _HasLR | _HasGroupLRs


def peak_lrs(lr: LR, optimizer: Optimizer) -> list[float]:
    """Return the peak lr of each group.

    Args:
        lr: A number or a `Suggestion` for the largest group, a sequence with one per group, or a `RangeTestResult`.
        optimizer: The optimizer.

    Returns:
        One lr per group.

    Raises:
        ArgumentError: It is something else, not positive and finite, or does not fit the number of groups.
    """  # noqa: DOC502 - raised by _group_lrs
    if callable(getattr(lr, "group_lrs", None)):
        return _group_lrs("lr", lr.group_lrs(), optimizer)  # type: ignore[union-attr]  # as just asked
    return _group_lrs("lr", getattr(lr, "lr", lr), optimizer)


def start_lrs(keyword: str, given: Any, lr: LR, peaks: list[float], optimizer: Optimizer) -> list[float]:
    """Return the lr that each group rises from.

    Args:
        keyword: Torch's keyword for it.
        given: What the user gave for it: a number, a sequence, or None.
        lr: As for `peak_lrs`: a result knows where learning starts.
        peaks: The peak lr of each group.
        optimizer: The optimizer.

    Returns:
        One lr per group: the given one, else a result's onset, else a tenth of the peak.

    Raises:
        ArgumentError: What was given breaks a rule of `peak_lrs`, or exceeds a peak.
    """
    if given is None:
        return _onset_lrs(lr, peaks) or [peak / 10 for peak in peaks]
    starts = _group_lrs(keyword, given, optimizer)
    if any(start > peak for start, peak in zip(starts, peaks, strict=True)):
        raise ArgumentError(
            f"make_scheduler({keyword}=...) must not exceed the peak learning rates {peaks}, got {given!r}; leave it "
            "out for a tenth of them."
        )
    return starts


def _onset_lrs(lr: Any, peaks: list[float]) -> list[float] | None:
    """Return the lrs at which learning starts, if a result is given that knows them, and they are below the peaks."""
    onset = getattr(getattr(lr, "landmarks", None), "onset", None)
    if onset is None:
        return None
    lrs: list[float] = lr.group_lrs(onset)
    below = all(low <= peak for low, peak in zip(lrs, peaks, strict=True)) and sum(lrs) < sum(peaks)
    return lrs if below else None


def _group_lrs(argument: str, given: Any, optimizer: Optimizer) -> list[float]:
    try:
        lrs = np.asarray(given.tolist() if isinstance(given, Tensor) else given, dtype=float)
    except (TypeError, ValueError):
        raise ArgumentError(
            f"make_scheduler({argument}=...) must be a number, a sequence of numbers, a Suggestion or a "
            f"RangeTestResult, got {given!r}."
        ) from None
    groups = len(optimizer.param_groups)
    if lrs.ndim and lrs.shape != (groups,):
        raise ArgumentError(
            f"make_scheduler({argument}=...) must hold one learning rate per parameter group, {groups} here, got "
            f"{given!r}; pass one number to keep the groups' ratios."
        )
    may_be_zero = np.equal(group_ratios(optimizer), 0) if lrs.ndim else False  # a group that is held still stays so
    if not (np.isfinite(lrs) & ((lrs > 0) | ((lrs == 0) & may_be_zero))).all():
        raise ArgumentError(
            f"make_scheduler({argument}=...) must be positive and finite, got {given!r}; pass the learning rate that "
            "the range test suggests."
        )
    return [float(each) for each in lrs] if lrs.ndim else group_lrs(optimizer, float(lrs))
