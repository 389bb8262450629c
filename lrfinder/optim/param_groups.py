"""Parameter groups: the lr of one group is swept, and every other group keeps its ratio to it."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lrfinder.errors import ArgumentError
from lrfinder.optim.wrappers import unwrap_optimizer

__all__ = [
    "base_lrs",
    "group_index",
    "group_lrs",
    "group_momentum",
    "group_names",
    "group_ratios",
    "largest_group",
    "separate_lrs",
    "set_group_lrs",
    "set_lrs",
]


def base_lrs(optimizer: Any) -> list[float]:
    """Return the lr that each group's user has set, before a scheduler and before `lr_scale`.

    It is the group's `initial_lr`, if a scheduler left one, else its `lr`: in the middle of a warm-up from zero all
    `lr` are 0 while `initial_lr` still tells the groups apart. Where dividing each by the group's `lr_scale` makes them
    all equal, they have been multiplied by it already, and the quotient is returned.

    Args:
        optimizer: The optimizer, or a wrapper around one with the same `param_groups`. Tensor lrs are read here.

    Returns:
        One lr per group.

    Raises:
        ArgumentError: A group has no lr, or one that is negative or not finite.

    Example:
        >>> optimizer = torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=0.1)
        >>> scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 100)
        >>> optimizer.param_groups[0]["lr"], base_lrs(optimizer)
        (0.0, [0.1])
    """  # noqa: DOC502 - raised by _base_lr
    bases = [_base_lr(index, group) for index, group in enumerate(optimizer.param_groups)]
    scales = _lr_scales(optimizer)
    if len(set(scales)) > 1 and all(scales):
        unscaled = [base / scale for base, scale in zip(bases, scales, strict=True)]
        if all(math.isclose(each, unscaled[0], rel_tol=1e-5) for each in unscaled):
            return unscaled
    return bases


def _base_lr(index: int, group: dict[str, Any]) -> float:
    lr, initial_lr = group.get("lr"), group.get("initial_lr")
    if lr is None:
        raise ArgumentError(
            f"optimizer.param_groups[{index}] must hold a learning rate, got lr=None; construct the optimizer with an "
            "lr. One that computes its own step size has none to find; some can be told to use theirs, such as "
            "transformers' Adafactor(..., lr=1e-3, relative_step=False, scale_parameter=False)."
        )
    lr = float(lr if initial_lr is None else initial_lr)
    if not (math.isfinite(lr) and lr >= 0):
        raise ArgumentError(
            f"optimizer.param_groups[{index}] must have a finite, non-negative learning rate, got lr={lr}; "
            "set its `lr` (and `initial_lr`, if a scheduler left one) before the call."
        )
    return lr


def largest_group(optimizer: Optimizer) -> int:
    """Return the index of the parameter group with the most trainable elements, whose lr is the one that is swept.

    It is the first of several equally large groups. A group whose base lr is 0 counts only if all are 0; frozen
    parameters (without `requires_grad`) count only if all are frozen.

    Args:
        optimizer: The optimizer, or a wrapper around one with the same `param_groups`.

    Returns:
        The index into `optimizer.param_groups`.

    Raises:
        ArgumentError: A group has no usable lr.

    Example:
        >>> head, body = torch.nn.Linear(2, 2), torch.nn.Linear(9, 9)
        >>> groups = [{"params": head.parameters()}, {"params": body.parameters(), "lr": 0.01}]
        >>> largest_group(torch.optim.SGD(groups, lr=0.1))
        1
    """  # noqa: DOC502 - raised by base_lrs
    bases = base_lrs(optimizer)
    trainable = [sum(p.numel() for p in group["params"] if p.requires_grad) for group in optimizer.param_groups]
    sizes = trainable if any(trainable) else [sum(p.numel() for p in g["params"]) for g in optimizer.param_groups]
    return max(range(len(sizes)), key=lambda index: (sizes[index] > 0 and bases[index] != 0, sizes[index]))


def group_ratios(optimizer: Optimizer) -> list[float]:
    r"""Return each group's lr as a multiple of the largest group's base lr.

    $$ r_g = s_g \, b_g / b_\text{largest} $$

    where $b_g$ is the group's entry in `base_lrs`. $s_g$ is the group's `lr_scale`, which timm (layer decay) and others
    write to the groups and which their schedulers multiply the lr by; it is 1 for a group without.

    Args:
        optimizer: The optimizer, or a wrapper around one with the same `param_groups`. Tensor lrs are read here.

    Returns:
        One ratio per group, 1.0 for the largest group if it has no `lr_scale`. Where the largest group's base lr is 0,
        all base lrs count as equal.

    Raises:
        ArgumentError: A group has no usable lr.

    Example:
        >>> head, body = torch.nn.Linear(2, 2), torch.nn.Linear(9, 9)
        >>> groups = [{"params": head.parameters()}, {"params": body.parameters(), "lr": 0.01}]
        >>> group_ratios(torch.optim.SGD(groups, lr=0.1))
        [10.0, 1.0]
    """  # noqa: DOC502 - raised by base_lrs
    bases = base_lrs(optimizer)
    base = bases[largest_group(optimizer)]
    return [scale * (each / base if base else 1.0) for scale, each in zip(_lr_scales(optimizer), bases, strict=True)]


def group_lrs(optimizer_or_ratios: Optimizer | Sequence[float], lr: float) -> list[float]:
    """Return the lr of every group when the largest group's is `lr`.

    Args:
        optimizer_or_ratios: An optimizer, or the `group_ratios` of one.
        lr: The largest group's lr.

    Returns:
        One lr per group.

    Example:
        >>> group_lrs([1.0, 0.1], 0.5)
        [0.5, 0.05]
    """
    if not isinstance(optimizer_or_ratios, Sequence):
        optimizer_or_ratios = group_ratios(optimizer_or_ratios)
    return [lr * ratio for ratio in optimizer_or_ratios]


def set_group_lrs(optimizer: Optimizer, lrs: Sequence[float]) -> None:
    """Write the lrs at which the optimizer takes its next step.

    A float is replaced. A tensor is filled in place, without being read, so that its identity, dtype and device stay.
    Groups that share one tensor but need different lrs get a clone each (`separate_lrs`). ASGD steps with the lr that
    its previous step prepared, so that its prepared lrs are filled as well.

    Args:
        optimizer: The optimizer, or a wrapper around one with the same `param_groups` and `state`.
        lrs: One lr per group.

    Raises:
        ArgumentError: The number of lrs is not the number of groups.

    Example:
        >>> optimizer = torch.optim.Adam(torch.nn.Linear(2, 2).parameters(), lr=torch.tensor(0.1))
        >>> set_group_lrs(optimizer, [0.25])
        >>> optimizer.param_groups[0]["lr"]
        tensor(0.2500)
    """
    if len(lrs) != len(optimizer.param_groups):
        raise ArgumentError(
            f"set_group_lrs(lrs=...) must hold one lr per parameter group, {len(optimizer.param_groups)} here, got "
            f"{len(lrs)}; `group_lrs(optimizer, lr)` makes such a list."
        )
    if len(set(lrs)) > 1:
        separate_lrs(optimizer)
    set_lrs(optimizer, lrs)
    if isinstance(unwrap_optimizer(optimizer), torch.optim.ASGD):
        _fill_prepared_lrs(optimizer, lrs)


def set_lrs(optimizer: Optimizer, lrs: Sequence[float]) -> None:
    """Set each group's `lr`, a tensor in place, and nothing else.

    Use `set_group_lrs` where groups may share a tensor, and for ASGD.

    Args:
        optimizer: The optimizer, or a wrapper around one with the same `param_groups`.
        lrs: One lr per group.
    """
    for group, lr in zip(optimizer.param_groups, lrs, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].detach().fill_(lr)
        else:
            group["lr"] = lr


def separate_lrs(optimizer: Optimizer) -> None:
    """Give every parameter group its own tensor lr where groups share one.

    A tensor handed to an optimizer's constructor is one object in all groups and in `defaults`: every write to it
    changes the lr of all groups. Only the entries `group["lr"]` are replaced, by clones, so that putting the original
    objects back into the group dicts undoes it.

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


def group_names(optimizer: Any) -> tuple[str, ...]:
    """Return the name of each parameter group.

    Args:
        optimizer: The optimizer, or a wrapper around one with the same `param_groups`.

    Returns:
        The group's `name` where it has one, else "group" and its index.
    """
    return tuple(str(group.get("name", f"group {index}")) for index, group in enumerate(optimizer.param_groups))


def group_index(optimizer: Any, group: int | str) -> int:
    """Return the index of a parameter group.

    Args:
        optimizer: The optimizer, or a wrapper around one with the same `param_groups`.
        group: The index, or the name as in `group_names`.

    Returns:
        The index into `optimizer.param_groups`.

    Raises:
        ArgumentError: There is no such group, or several have the name.

    Example:
        >>> layers = [{"params": torch.nn.Linear(2, 2).parameters(), "name": name} for name in ("body", "head")]
        >>> group_index(torch.optim.SGD(layers, lr=0.1), "head")
        1
    """
    names = group_names(optimizer)
    found = [index for index, name in enumerate(names) if name == group]
    if isinstance(group, int) and not isinstance(group, bool) and 0 <= group < len(names):
        found = [group]
    if len(found) != 1:
        raise ArgumentError(
            f"LRFinder.find(group=...) must be the index or the name of one parameter group, got {group!r}; choose "
            f"from {', '.join(f'{index}: {name!r}' for index, name in enumerate(names))}."
        )
    return found[0]


def group_momentum(group: dict[str, Any]) -> float:
    """Return the momentum, or Adam's first beta, of a parameter group.

    Args:
        group: One of an optimizer's `param_groups`.

    Returns:
        The momentum; 0 where the group has none.

    Example:
        >>> group_momentum(torch.optim.Adam(torch.nn.Linear(2, 2).parameters()).param_groups[0])
        0.9
    """
    betas = group.get("betas")
    first_beta = betas[0] if isinstance(betas, (tuple, list)) and betas else 0.0
    numbers = [each for each in (group.get("momentum"), first_beta) if isinstance(each, (int, float, Tensor))]
    return float(numbers[0]) if numbers else 0.0


def _lr_scales(optimizer: Any) -> list[float]:
    return [float(group.get("lr_scale", 1.0)) for group in optimizer.param_groups]


def _fill_prepared_lrs(optimizer: Optimizer, lrs: Sequence[float]) -> None:
    # `state.get`, because indexing the defaultdict would insert an entry.
    for group, lr in zip(optimizer.param_groups, lrs, strict=True):
        for parameter in group["params"]:
            prepared = optimizer.state.get(parameter, {}).get("eta")
            if prepared is not None:
                prepared.fill_(lr)
