"""Whether an optimizer's steps depend on the learning rate in its parameter groups."""

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from lrfinder.optim.wrappers import needs_closure, unwrap_optimizer

__all__ = ["LREffect", "estimates_step_size"]

FACTOR = 30  # between the lrs of two steps that are compared
LEAST_EXPONENT = 0.5  # a step that depends on the lr grows at least by this power of it: 5.5 times for a factor of 30
SAME = 0.01  # of the distance moved; less between the ends of two steps is no difference
MOST_GROUPS = 8  # measured of an optimizer
MOST_TENSORS = 4  # measured of a group
MOST_ELEMENTS = 4096  # measured of a tensor


class LREffect:
    """Finds parameter groups whose steps do not depend on the learning rate.

    During a sweep it compares the sizes of a few steps: before each it copies a sample of the parameters, and before
    the next step it computes how far they have moved. Nothing is read from the device meanwhile. Where the steps did
    not grow with the lr, `suspects` names the group. It may be innocent: with a history of larger steps, an optimizer
    that averages goes on with them. `without` compares two steps that differ in nothing but the lr.

    An optimizer that needs a closure is not judged: LBFGS takes many steps in one, and adapts them to the lr.

    Args:
        optimizer: The optimizer, or a wrapper around one with the same `param_groups`.
        swept: The indices of the groups whose lr is swept; by default all.

    Example:
        >>> parameter = torch.nn.Parameter(torch.ones(3))
        >>> optimizer = torch.optim.SGD([parameter], lr=0.1)
        >>> effect = LREffect(optimizer)
        >>> for lr in (1e-4, 1e-2, 1.0):
        ...     effect.before_step(lr)
        ...     parameter.grad = torch.ones(3)
        ...     optimizer.step()  # at 0.1, whatever the lr is
        >>> effect.suspects()
        [0]
    """

    def __init__(self, optimizer: Any, swept: Iterable[int] | None = None) -> None:
        indices = list(range(len(optimizer.param_groups)) if swept is None else swept)
        self._indices = indices[:: math.ceil(len(indices) / MOST_GROUPS) or 1]
        samples = [_sample(optimizer.param_groups[index]) for index in self._indices]
        self._can_judge = not needs_closure(optimizer)
        self._counts = [len(sample) for sample in samples]
        self._sample = [tensor for sample in samples for tensor in sample]
        self._before: list[Tensor] = []
        self._steps: list[tuple[float, Tensor]] = []  # lr, how far each tensor of the sample has moved
        self._last = self._measured = 0.0

    @torch.no_grad()
    def before_step(self, lr: float) -> None:
        """Finish the measurement of the last step, and begin another one where `lr` is large enough.

        Args:
            lr: The lr of the next step. A sweep that starts again is recognised by an lr that is not larger.
        """
        if self._before and lr > self._last:
            self._steps.append((self._measured, _moves(self._before, self._sample)))
        self._before = []
        if lr >= FACTOR * self._measured:
            self._measured = lr
            self._before = self.positions()
        self._last = lr

    def positions(self) -> list[Tensor]:
        """Return a copy of the sample of the parameters."""
        return [tensor.clone() for tensor in self._sample]

    @property
    def lr_range(self) -> tuple[float, float]:
        """The lowest and the highest lr of a step that was measured."""
        return self._steps[0][0], self._steps[-1][0]

    def suspects(self) -> list[int]:
        """Return the indices of the groups whose steps did not grow with the learning rate.

        Returns:
            The indices; a group of which too little is known is not among them.
        """
        if not self._can_judge:
            return []
        lrs = [lr for lr, _ in self._steps]
        columns = map(list, zip(*(self._by_group(moves) for _, moves in self._steps), strict=True))
        return [index for index, column in zip(self._indices, columns, strict=False) if _is_flat(lrs, column)]

    @torch.no_grad()
    def without(self, before: list[Tensor], low: list[Tensor], high: list[Tensor]) -> list[int]:
        """Return the indices of the groups that a step has moved to the same place at two learning rates.

        Args:
            before: The `positions` before each of the two steps.
            low: The `positions` after the step at the lower lr.
            high: The `positions` after the step at the higher lr.

        Returns:
            The indices; a group that did not move is not among them.
        """
        moved, apart = self._by_group(_moves(before, low)), self._by_group(_moves(low, high))
        pairs = zip(self._indices, moved, apart, strict=True)
        return [index for index, distance, gap in pairs if distance > 0 and gap <= SAME * distance]

    def any_moved(self) -> bool:
        """Return whether a step changed a parameter, as far as was measured.

        Returns:
            True also where fewer than two steps were measured.
        """
        return len(self._steps) < 2 or any(bool(moves.any()) for _, moves in self._steps)

    def _by_group(self, moves: Tensor) -> list[float]:
        return [float(part.norm()) for part in torch.split(moves, self._counts)]


def _moves(before: list[Tensor], after: list[Tensor]) -> Tensor:
    """Return the distance of each tensor from where it was."""
    distances = [(new - old).float().norm() for old, new in zip(before, after, strict=True)]
    return torch.stack([distance.to(distances[0].device) for distance in distances])


def estimates_step_size(optimizer: Any) -> bool:
    """Return whether the optimizer estimates its own step size, which `lr` multiplies: Prodigy and D-Adaptation do.

    Args:
        optimizer: The optimizer, or a wrapper around one with the same `param_groups`.

    Returns:
        True where a group has the estimate, named `d` as in the paper. (Torch's Adafactor has another `d`.)
    """
    inner = unwrap_optimizer(optimizer)
    return not isinstance(inner, torch.optim.Adafactor) and any("d" in group for group in optimizer.param_groups)


def _sample(group: dict[str, Any]) -> list[Tensor]:
    """Return views of a few of a group's trainable parameters."""
    tensors = [getattr(p, "_local_tensor", p).detach() for p in group["params"] if p.requires_grad]
    usable = [tensor for tensor in tensors if _is_usable(tensor)]
    chosen = usable[:: math.ceil(len(usable) / MOST_TENSORS) or 1]
    return [tensor.view(-1)[:: math.ceil(tensor.numel() / MOST_ELEMENTS)] for tensor in chosen]


def _is_usable(tensor: Tensor) -> bool:
    plain = type(tensor) is Tensor and tensor.layout is torch.strided and tensor.device.type != "meta"
    return plain and tensor.is_floating_point() and tensor.is_contiguous() and tensor.numel() > 0


def _is_flat(lrs: list[float], sizes: list[float]) -> bool:
    known = [(lr, size) for lr, size in zip(lrs, sizes, strict=True) if size > 0 and math.isfinite(size)]
    growths = [(high / low, after / before) for (low, before), (high, after) in pairwise(known)]
    return bool(growths) and all(growth < factor**LEAST_EXPONENT for factor, growth in growths)
