"""Parameter groups: one reference rate is swept, and every group keeps its ratio to it."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim import Optimizer

from lrfinder.errors import ArgumentError
from lrfinder.optim.wrappers import unwrap_optimizer

__all__ = [
    "RateWriter",
    "group_lrs",
    "kept_on_error",
    "ratios",
    "reference_index",
    "separate_lrs",
    "set_group_lrs",
    "set_lrs",
    "start_afresh",
]


def reference_index(optimizer: Optimizer) -> int:
    """Return the index of the parameter group whose rate is the reference.

    It is the group with the most parameter elements (frozen ones count too); the first of several equally large ones.
    A group whose base rate is 0 cannot be a reference, unless all are 0.

    Args:
        optimizer: The optimizer, or a wrapper around one with the same `param_groups`.

    Returns:
        The index into `optimizer.param_groups`.

    Example:
        >>> head, body = torch.nn.Linear(2, 2), torch.nn.Linear(9, 9)
        >>> groups = [{"params": head.parameters()}, {"params": body.parameters(), "lr": 0.01}]
        >>> reference_index(torch.optim.SGD(groups, lr=0.1))
        1
    """
    bases = _base_lrs(optimizer)
    sizes = [sum(parameter.numel() for parameter in group["params"]) for group in optimizer.param_groups]
    return max(range(len(sizes)), key=lambda index: (bases[index] != 0, sizes[index]))


def ratios(optimizer: Optimizer) -> list[float]:
    r"""Return each group's base rate as a multiple of the reference group's.

    $$ r_g = b_g / b_\text{ref} $$

    where the base rate $b_g$ is the group's `initial_lr`, if a scheduler left one, else its `lr`: in the middle of a
    warm-up from zero all `lr` are 0 while `initial_lr` still tells the groups apart.

    Args:
        optimizer: The optimizer, or a wrapper around one with the same `param_groups`. Tensor rates are read here.

    Returns:
        One ratio per group, 1.0 for the reference group; all 1.0 where every base rate is 0.

    Example:
        >>> head, body = torch.nn.Linear(2, 2), torch.nn.Linear(9, 9)
        >>> groups = [{"params": head.parameters()}, {"params": body.parameters(), "lr": 0.01}]
        >>> ratios(torch.optim.SGD(groups, lr=0.1))
        [10.0, 1.0]
    """
    bases = _base_lrs(optimizer)
    reference = bases[reference_index(optimizer)]
    return [base / reference for base in bases] if reference else [1.0] * len(bases)


def group_lrs(optimizer_or_ratios: Optimizer | Sequence[float], lr: float) -> list[float]:
    """Return the rate of every group when the reference group's rate is `lr`.

    Args:
        optimizer_or_ratios: An optimizer, or the `ratios` of one.
        lr: The reference group's rate.

    Returns:
        One rate per group.

    Example:
        >>> group_lrs([1.0, 0.1], 0.5)
        [0.5, 0.05]
    """
    if not isinstance(optimizer_or_ratios, Sequence):
        optimizer_or_ratios = ratios(optimizer_or_ratios)
    return [lr * ratio for ratio in optimizer_or_ratios]


def set_group_lrs(optimizer: Optimizer, lrs: Sequence[float]) -> None:
    """Make `lrs` the rates at which the optimizer's next step is taken.

    A float is replaced, a tensor filled in place, without reading it, so that identity, dtype and device stay.
    Groups that share one tensor but want different rates get a clone each (`separate_lrs`). ASGD steps with the rate
    that its previous step prepared: there the prepared rates are filled as well.

    Args:
        optimizer: The optimizer, or a wrapper around one with the same `param_groups` and `state`.
        lrs: One rate per group.

    Raises:
        ArgumentError: The number of rates is not the number of groups.

    Example:
        >>> optimizer = torch.optim.Adam(torch.nn.Linear(2, 2).parameters(), lr=torch.tensor(0.1))
        >>> set_group_lrs(optimizer, [0.25])
        >>> optimizer.param_groups[0]["lr"]
        tensor(0.2500)
    """
    if len(lrs) != len(optimizer.param_groups):
        raise ArgumentError(
            f"set_group_lrs(lrs=...) must hold one rate per parameter group, {len(optimizer.param_groups)} here, got "
            f"{len(lrs)}; `group_lrs(optimizer, lr)` makes such a list."
        )
    if len(set(lrs)) > 1:
        separate_lrs(optimizer)
    set_lrs(optimizer, lrs)
    if isinstance(unwrap_optimizer(optimizer), torch.optim.ASGD):
        _fill_prepared_rates(optimizer, lrs)


def set_lrs(optimizer: Optimizer, lrs: Sequence[float]) -> None:
    """Set each group's `lr`, a tensor in place, and touch nothing else; `set_group_lrs` is the whole of it.

    Args:
        optimizer: The optimizer, or a wrapper around one with the same `param_groups`.
        lrs: One rate per group.
    """
    for group, lr in zip(optimizer.param_groups, lrs, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].detach().fill_(lr)
        else:
            group["lr"] = lr


def separate_lrs(optimizer: Optimizer) -> None:
    """Give every parameter group its own tensor rate where groups share one.

    A tensor handed to an optimizer's constructor is one object in all groups and in `defaults`: rates written to it
    group by group would all end as the last one. Only the entries `group["lr"]` are replaced, by clones: putting the
    original objects back into the group dicts undoes it.

    Args:
        optimizer: The optimizer, or a wrapper around one with the same `param_groups`.

    Example:
        >>> layers = [{"params": torch.nn.Linear(2, 2).parameters()}, {"params": torch.nn.Linear(2, 2).parameters()}]
        >>> optimizer = torch.optim.Adam(layers, lr=torch.tensor(0.1))
        >>> separate_lrs(optimizer)
        >>> optimizer.param_groups[0]["lr"] is optimizer.param_groups[1]["lr"]
        False
    """
    groups = [group for group in optimizer.param_groups if isinstance(group["lr"], Tensor)]
    uses = Counter(id(group["lr"]) for group in groups)
    for group in groups:
        if uses[id(group["lr"])] > 1:
            group["lr"] = group["lr"].detach().clone()


def start_afresh(optimizer: Optimizer, lrs: Sequence[float]) -> None:
    """Give each group its rate as `lr` and as `initial_lr`, a tensor of its own, and no trace of an earlier scheduler.

    A scheduler of torch sets `initial_lr` only where there is none, so that a second one would start from the first
    one's rate. A momentum (or Adam's first beta) that was cycled stands wherever the cycle was left: the optimizer's
    default is put back.

    Args:
        optimizer: The optimizer.
        lrs: One rate per group.

    Example:
        >>> optimizer = torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=0.1, momentum=0.9)
        >>> scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=10)
        >>> start_afresh(optimizer, [0.5])
        >>> [optimizer.param_groups[0][key] for key in ("lr", "initial_lr", "momentum")]
        [0.5, 0.5, 0.9]
    """
    separate_lrs(optimizer)
    set_lrs(optimizer, lrs)
    for group, lr in zip(optimizer.param_groups, lrs, strict=True):
        if "max_momentum" in group and "betas" in group:
            group["betas"] = (optimizer.defaults["betas"][0], *group["betas"][1:])
        elif "max_momentum" in group:
            group["momentum"] = optimizer.defaults["momentum"]
        for key in ("base_momentum", "max_momentum", "max_lr", "min_lr"):
            group.pop(key, None)
        group["initial_lr"] = lr


@contextmanager
def kept_on_error(optimizer: Optimizer) -> Iterator[None]:
    """Put the parameter groups back as they were, tensor rates and their values included, if the block raises.

    Args:
        optimizer: The optimizer whose groups the block changes.

    Yields:
        Nothing.
    """
    before = [dict(group) for group in optimizer.param_groups]
    lrs = [lr.item() if isinstance(lr, Tensor) else lr for lr in (group["lr"] for group in before)]
    try:
        yield
    except BaseException:
        for group, entries in zip(optimizer.param_groups, before, strict=True):
            group.clear()
            group.update(entries)
        set_lrs(optimizer, lrs)
        raise


class RateWriter:
    """Writes one reference rate to all groups of an optimizer, each at its ratio, step after step.

    The ratios are read once, at the start; writing reads nothing from a device.

    Args:
        optimizer: The optimizer, or a wrapper around one with the same `param_groups` and `state`.

    Attributes:
        ratios: Each group's ratio to the reference group.

    Example:
        >>> head, body = torch.nn.Linear(2, 2), torch.nn.Linear(9, 9)
        >>> groups = [{"params": head.parameters()}, {"params": body.parameters(), "lr": 0.01}]
        >>> optimizer = torch.optim.SGD(groups, lr=0.1)
        >>> RateWriter(optimizer).write(0.5)
        >>> [group["lr"] for group in optimizer.param_groups]
        [5.0, 0.5]
    """

    def __init__(self, optimizer: Optimizer) -> None:
        """Read the ratios."""
        self._optimizer = optimizer
        self.ratios = ratios(optimizer)
        tensors = any(isinstance(group["lr"], Tensor) for group in optimizer.param_groups)
        self._plain = not tensors and not isinstance(unwrap_optimizer(optimizer), torch.optim.ASGD)

    def write(self, lr: float) -> None:
        """Make `lr` the reference group's rate in the optimizer's next step, and the other groups' by their ratios.

        Args:
            lr: The reference group's rate.
        """
        if not self._plain:
            set_group_lrs(self._optimizer, group_lrs(self.ratios, lr))
            return
        for group, ratio in zip(self._optimizer.param_groups, self.ratios, strict=True):
            group["lr"] = lr * ratio


def _base_lrs(optimizer: Optimizer) -> list[float]:
    bases = [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
    for index, base in enumerate(bases):
        if not (math.isfinite(base) and base >= 0):
            raise ArgumentError(
                f"optimizer.param_groups[{index}] must have a finite, non-negative learning rate, got lr={base}; "
                "set its `lr` (and `initial_lr`, if a scheduler left one) before the call."
            )
    return bases


def _fill_prepared_rates(optimizer: Optimizer, lrs: Sequence[float]) -> None:
    # `state.get`, because indexing the defaultdict would insert an entry.
    for group, lr in zip(optimizer.param_groups, lrs, strict=True):
        for parameter in group["params"]:
            prepared = optimizer.state.get(parameter, {}).get("eta")
            if prepared is not None:
                prepared.fill_(lr)
