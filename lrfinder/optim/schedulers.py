"""A learning rate, or one per parameter group, becomes a stock `torch.optim.lr_scheduler` object."""

import math
import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from lrfinder.errors import ArgumentError
from lrfinder.optim.param_groups import set_group_lrs, set_lrs
from lrfinder.optim.scheduler_entry import SchedulerEntry
from lrfinder.optim.scheduler_lrs import LR, peak_lrs, start_lrs
from lrfinder.optim.scheduler_state import clear_scheduler_state, groups_kept_on_error
from lrfinder.optim.wrappers import as_torch_optimizer

__all__ = ["SCHEDULES", "make_scheduler", "stand_in"]


def _all(steps: int) -> int:
    return steps


def _third(steps: int) -> int:
    return math.ceil(steps / 3)


# To add a scheduler, add an entry here, a row to the table in the docstring of `make_scheduler`, and its formula to
# `expected` in tests/optim/test_schedulers.py.
_SCHEDULERS = {
    "one_cycle": SchedulerEntry(
        factory=lr_scheduler.OneCycleLR,
        lengths=("total_steps", "epochs", "steps_per_epoch"),
        from_steps={"total_steps": _all},
        peak="max_lr",
        cycles_momentum=True,
        no_warmup="it warms up by itself; set `pct_start`, the fraction of total_steps before the peak",
    ),
    "step": SchedulerEntry(factory=lr_scheduler.StepLR, from_steps={"step_size": _third}),
    "multi_step": SchedulerEntry(
        factory=lr_scheduler.MultiStepLR,
        from_steps={"milestones": lambda steps: [math.ceil(steps / 2), math.ceil(steps * 3 / 4)]},
    ),
    "exponential": SchedulerEntry(
        factory=lr_scheduler.ExponentialLR, from_steps={"gamma": lambda steps: 0.01 ** (1 / steps)}
    ),
    "cosine": SchedulerEntry(factory=lr_scheduler.CosineAnnealingLR, lengths=("T_max",), from_steps={"T_max": _all}),
    "plateau": SchedulerEntry(
        factory=lr_scheduler.ReduceLROnPlateau,
        no_warmup="torch cannot chain a scheduler whose step() takes a metric; "
        "warm up with 'constant' and warmup_steps=..., then make the 'plateau' scheduler",
        stand_in="constant",
    ),
    "cyclic": SchedulerEntry(
        factory=lr_scheduler.CyclicLR,
        from_steps={  # one triangle, with its peak and its end on a step
            "step_size_up": lambda steps: max(steps // 2, 1),
            "step_size_down": lambda steps: max(steps - steps // 2, 1),
        },
        needs_length=False,
        peak="max_lr",
        base="base_lr",
        cycles_momentum=True,
    ),
    "cosine_warm_restarts": SchedulerEntry(
        factory=lr_scheduler.CosineAnnealingWarmRestarts, from_steps={"T_0": _third}
    ),
    "lambda": SchedulerEntry(
        factory=lr_scheduler.LambdaLR,
        required={"lr_lambda": "a function from the number of steps to a factor (or a list with one per group)"},
        stand_in="constant",
    ),
    "polynomial": SchedulerEntry(
        factory=lr_scheduler.PolynomialLR, lengths=("total_iters",), from_steps={"total_iters": _all}
    ),
    "linear": SchedulerEntry(
        factory=lr_scheduler.LinearLR,
        lengths=("total_iters",),
        from_steps={"total_iters": _all},
        defaults={"start_factor": 1.0, "end_factor": 0.0},
    ),
    "constant": SchedulerEntry(
        factory=lr_scheduler.ConstantLR,
        lengths=("total_iters",),
        from_steps={"total_iters": _all},
        needs_length=False,
        defaults={"factor": 1.0},
    ),
}

SCHEDULES = tuple(_SCHEDULERS)


def make_scheduler(
    optimizer: Optimizer,
    name: str = "one_cycle",
    lr: LR | None = None,
    *,
    total_steps: int | None = None,
    warmup_steps: int = 0,
    **kwargs: Any,
) -> LRScheduler:
    r"""Return a stock torch scheduler whose peak learning rate is the given one.

    With $r$ the peak, $W$ the steps of the warm-up, $T$ the steps after it (`total_steps` less `warmup_steps`) and $k$
    the calls of `scheduler.step()` since it ended:

    | name | class in torch | lr | default |
    |---|---|---|---|
    | `one_cycle` | `OneCycleLR` | from $r / 25$ up to $r$, then down to nearly 0 | |
    | `step` | `StepLR` | $r \gamma^{\lfloor k / \text{step\_size} \rfloor}$ | `step_size`: $T / 3$, rounded up |
    | `multi_step` | `MultiStepLR` | $r \gamma^{\text{passed}}$ | `milestones`: $T / 2$ and $3 T / 4$, rounded up |
    | `exponential` | `ExponentialLR` | $r \gamma^k$ | `gamma`: falls to $r / 100$ at the end |
    | `cosine` | `CosineAnnealingLR` | half a cosine from $r$ down to `eta_min` | |
    | `plateau` | `ReduceLROnPlateau` | $r$, times `factor` when the metric stalls | |
    | `cyclic` | `CyclicLR` | triangles from `base_lr` up to $r$ and back | `base_lr`: $r / 10$; sizes: one triangle |
    | `cosine_warm_restarts` | `CosineAnnealingWarmRestarts` | half a cosine, repeated | `T_0`: $T / 3$, rounded up |
    | `lambda` | `LambdaLR` | $r$ times `lr_lambda`$(k)$ | |
    | `polynomial` | `PolynomialLR` | $r (1 - k / T)^\text{power}$ | |
    | `linear` | `LinearLR` | $r (1 - k / T)$ | |
    | `constant` | `ConstantLR` | $r$ | |

    A warm-up rises in equal steps to the lr at which the schedule starts (`cyclic`: `base_lr`): its step $j$ is taken
    at $(j + 1) / (W + 1)$ of it. What torch's keywords count, such as `milestones`, they count from its end.

    What an earlier scheduler left in the parameter groups (`initial_lr`, `max_lr`, a cycled momentum) is replaced.
    Tensor lrs stay tensors and are written in place; groups that share one get a tensor each. `one_cycle` and `cyclic`
    cycle the momentum (or Adam's first beta) of the groups that have one.

    Args:
        optimizer: The optimizer to schedule, or a wrapper around one with the same `param_groups`.
        name: One of `SCHEDULES`.
        lr: The peak learning rate: a number or a `Suggestion` for the largest parameter group, to which the others
            keep their ratios; a sequence with one per group, 0 only for a group whose lr is 0 already; or a
            `RangeTestResult`, whose suggestion for each group is used.
        total_steps: How many times `scheduler.step()` will be called, the warm-up included. It is the one name for a
            schedule's length, in place of torch's `T_max`, `total_iters`, `epochs`. By default that of the
            `RangeTestResult`, if one is given. `plateau` and `lambda` have no length and ignore it.
        warmup_steps: How many steps are taken below the schedule's first lr before it starts.
        **kwargs: The other keywords of the class in torch. `base_lr` is a number or a sequence, as `lr`; by default it
            is the onset of the `RangeTestResult`, if one is given that knows it.

    Returns:
        The scheduler. Save and load it as any other with `state_dict` and `load_state_dict`.

    Raises:
        ArgumentError: The arguments are in another order; an lr is not positive and finite, or the number of lrs is not
            that of the groups; the name or a keyword is unknown; `total_steps` is missing where the schedule needs it,
            or too short; a warm-up cannot precede the schedule; or torch refuses a value. The optimizer is unchanged.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=0.1)
        >>> scheduler = make_scheduler(optimizer, "linear", 0.4, total_steps=6, warmup_steps=2)
        >>> lrs = []
        >>> for _ in range(6):
        ...     lrs.append(round(scheduler.get_last_lr()[0], 3))
        ...     optimizer.step()
        ...     scheduler.step()
        >>> lrs
        [0.133, 0.267, 0.4, 0.3, 0.2, 0.1]
    """  # noqa: DOC502 - raised by the parts
    lr = _checked(optimizer, name, lr)
    wrapper, optimizer = optimizer, as_torch_optimizer(optimizer)
    entry = _SCHEDULERS[name]
    peaks = peak_lrs(lr, optimizer)
    if total_steps is None:
        total_steps = getattr(lr, "total_steps", None)
    warmup_steps = _count("warmup_steps", warmup_steps, least=0)
    keywords = entry.complete(name, kwargs, _steps_after_warmup(name, total_steps, warmup_steps))
    starts = peaks
    if entry.base:
        keywords[entry.base] = starts = start_lrs(entry.base, keywords.get(entry.base), lr, peaks, optimizer)
    if entry.peak:
        keywords[entry.peak] = peaks
    with groups_kept_on_error(optimizer), _torch_errors(name):
        clear_scheduler_state(optimizer, starts)
        if entry.cycles_momentum:
            keywords |= entry.momentum_keywords(name, optimizer, keywords)
        scheduler = entry.factory(optimizer, **keywords)
        if warmup_steps:
            scheduler = _after_warmup(scheduler, optimizer, warmup_steps)
    first = [float(group["lr"]) for group in optimizer.param_groups]
    set_group_lrs(wrapper, first)  # for ASGD, which steps at an lr that was prepared before
    return scheduler


def stand_in(name: str) -> str:
    """Return the name of the schedule to use where no metric and no function of the user is at hand.

    Args:
        name: One of `SCHEDULES`.

    Returns:
        The same name for most.

    Example:
        >>> stand_in("plateau"), stand_in("cosine")
        ('constant', 'cosine')
    """
    return _SCHEDULERS[name].stand_in or name


def _checked(optimizer: Any, name: Any, lr: Any) -> LR:
    given = (optimizer, name, lr)
    in_order = hasattr(optimizer, "param_groups") and isinstance(name, str)
    if not in_order and any(hasattr(each, "param_groups") for each in given):
        kinds = ", ".join(type(each).__name__ for each in given if each is not None)
        raise ArgumentError(
            "make_scheduler takes the optimizer first, then the name of the schedule, then the learning rate, got "
            f"({kinds}); write make_scheduler(optimizer, {_name_among(given)!r}, lr, ...)."
        )
    if not in_order:
        raise ArgumentError(
            f"make_scheduler(optimizer=...) must be a torch.optim.Optimizer, got {type(optimizer).__name__}."
        )
    if name not in _SCHEDULERS:
        raise ArgumentError(f"make_scheduler(name=...) must be one of {', '.join(SCHEDULES)}, got {name!r}.")
    if lr is None:
        raise ArgumentError(
            f"make_scheduler({name!r}, lr=...) must be the peak learning rate, got None; pass a number, one per "
            "parameter group, or what LRFinder.find returned."
        )
    return lr  # type: ignore[no-any-return]  # `peak_lrs` checks it


def _name_among(given: Sequence[Any]) -> str:
    return next((each for each in given if isinstance(each, str)), "one_cycle")


def _steps_after_warmup(name: str, total_steps: int | None, warmup_steps: int) -> int | None:
    reason = _SCHEDULERS[name].no_warmup
    if warmup_steps and reason:
        raise ArgumentError(f"make_scheduler({name!r}, warmup_steps=...) must be 0, got {warmup_steps}: {reason}.")
    if total_steps is None:
        return None
    steps = _count("total_steps", total_steps, least=1) - warmup_steps
    if steps < 1:
        raise ArgumentError(
            f"make_scheduler(total_steps=...) must exceed {warmup_steps=}, which it includes, got {total_steps}; "
            "shorten the warm-up."
        )
    return steps


def _count(argument: str, value: int, least: int) -> int:
    try:
        count = operator.index(value)
    except TypeError:
        count = least - 1
    if count < least:
        raise ArgumentError(f"make_scheduler({argument}=...) must be an integer of at least {least}, got {value!r}.")
    return count


@contextmanager
def _torch_errors(name: str) -> Iterator[None]:
    # Turns an error that torch raises about an argument into an `ArgumentError`.
    try:
        yield
    except ArgumentError:
        raise
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ArgumentError(
            f"make_scheduler({name!r}): torch's {_SCHEDULERS[name].factory.__name__} refuses these arguments "
            f"({error}); its documentation says what it takes."
        ) from error


def _after_warmup(scheduler: LRScheduler, optimizer: Optimizer, warmup_steps: int) -> LRScheduler:
    tensors = [group["lr"] for group in optimizer.param_groups]
    warmup = lr_scheduler.LinearLR(optimizer, start_factor=1 / (warmup_steps + 1), total_iters=warmup_steps)
    chain = lr_scheduler.SequentialLR(optimizer, [warmup, scheduler], milestones=[warmup_steps])
    first = [float(group["lr"]) for group in optimizer.param_groups]
    for group, tensor in zip(optimizer.param_groups, tensors, strict=True):
        group["lr"] = tensor  # older torch replaces a tensor by a float here
    set_lrs(optimizer, first)
    return chain
