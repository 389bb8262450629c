"""A learning rate, or one per parameter group, becomes a stock `torch.optim.lr_scheduler` object."""

import inspect
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from lrfinder.errors import ArgumentError
from lrfinder.optim.param_groups import group_lrs, kept_on_error, ratios, set_group_lrs, set_lrs, start_afresh

__all__ = ["SCHEDULES", "make_scheduler"]


@dataclass(frozen=True, kw_only=True)
class _Schedule:
    """What a name stands for.

    Args:
        factory: The class in torch.
        lengths: Its keywords that `total_steps` replaces; nobody passes them.
        derived: Its keywords with a value made from the number of steps after the warm-up, where the user gives none.
        needs_length: Whether a derived keyword must have a value; otherwise torch's default serves.
        preset: Its keywords with another default than torch's.
        no_warmup: Why no warm-up can precede it, and the remedy; empty where one can.
    """

    factory: Callable[..., LRScheduler]
    lengths: tuple[str, ...] = ()
    derived: Mapping[str, Callable[[int], Any]] = field(default_factory=dict)
    needs_length: bool = True
    preset: Mapping[str, Any] = field(default_factory=dict)
    no_warmup: str = ""

    def keywords(self) -> list[str]:
        """Return torch's keywords that a user may pass."""
        ours = {"optimizer", "last_epoch", "verbose", "max_lr", *self.lengths}
        return [name for name in inspect.signature(self.factory).parameters if name not in ours]


def _whole(steps: int) -> int:
    return steps


def _third(steps: int) -> int:
    return math.ceil(steps / 3)


_SCHEDULES = {
    "one_cycle": _Schedule(
        factory=lr_scheduler.OneCycleLR,
        lengths=("total_steps", "epochs", "steps_per_epoch"),
        derived={"total_steps": _whole},
        no_warmup="it warms up by itself; set `pct_start`, the share of total_steps before the peak",
    ),
    "step": _Schedule(factory=lr_scheduler.StepLR, derived={"step_size": _third}),
    "multi_step": _Schedule(
        factory=lr_scheduler.MultiStepLR,
        derived={"milestones": lambda steps: [math.ceil(steps / 2), math.ceil(steps * 3 / 4)]},
    ),
    "exponential": _Schedule(factory=lr_scheduler.ExponentialLR, derived={"gamma": lambda steps: 0.01 ** (1 / steps)}),
    "cosine": _Schedule(factory=lr_scheduler.CosineAnnealingLR, lengths=("T_max",), derived={"T_max": _whole}),
    "plateau": _Schedule(
        factory=lr_scheduler.ReduceLROnPlateau,
        no_warmup="torch cannot chain a scheduler whose step() takes a metric; "
        "warm up with 'constant' and warmup_steps=..., then make the 'plateau' scheduler",
    ),
    "cyclic": _Schedule(
        factory=lr_scheduler.CyclicLR,
        derived={  # one triangle, with its peak and its end on a step
            "step_size_up": lambda steps: max(steps // 2, 1),
            "step_size_down": lambda steps: max(steps - steps // 2, 1),
        },
        needs_length=False,
    ),
    "cosine_warm_restarts": _Schedule(factory=lr_scheduler.CosineAnnealingWarmRestarts, derived={"T_0": _third}),
    "lambda": _Schedule(factory=lr_scheduler.LambdaLR),
    "polynomial": _Schedule(
        factory=lr_scheduler.PolynomialLR, lengths=("total_iters",), derived={"total_iters": _whole}
    ),
    "linear": _Schedule(
        factory=lr_scheduler.LinearLR,
        lengths=("total_iters",),
        derived={"total_iters": _whole},
        preset={"start_factor": 1.0, "end_factor": 0.0},
    ),
    "constant": _Schedule(
        factory=lr_scheduler.ConstantLR,
        lengths=("total_iters",),
        derived={"total_iters": _whole},
        needs_length=False,
        preset={"factor": 1.0},
    ),
}

SCHEDULES = tuple(_SCHEDULES)


def make_scheduler(
    rate_or_rates: float | Sequence[float],
    optimizer: Optimizer,
    name: str = "one_cycle",
    *,
    total_steps: int | None = None,
    warmup_steps: int = 0,
    **kwargs: Any,
) -> LRScheduler:
    r"""Return a stock torch scheduler whose top rate is the given one.

    With $r$ the top rate, $W$ the warm-up's steps, $T$ the steps after it (`total_steps` less `warmup_steps`) and $k$
    the calls of `scheduler.step()` since it ended:

    | name | class in torch | rate | left out |
    |---|---|---|---|
    | `one_cycle` | `OneCycleLR` | from $r / 25$ up to $r$, then down to nearly 0 | |
    | `step` | `StepLR` | $r \gamma^{\lfloor k / \text{step\_size} \rfloor}$ | `step_size`: $T / 3$, rounded up |
    | `multi_step` | `MultiStepLR` | $r \gamma^{\text{passed}}$ | `milestones`: $T / 2$ and $3 T / 4$, rounded up |
    | `exponential` | `ExponentialLR` | $r \gamma^k$ | `gamma`: falls to $r / 100$ at the end |
    | `cosine` | `CosineAnnealingLR` | half a cosine from $r$ down to `eta_min` | |
    | `plateau` | `ReduceLROnPlateau` | $r$, times `factor` when the metric stalls | |
    | `cyclic` | `CyclicLR` | triangles from `base_lr` up to $r$ and back | `base_lr`: $r / 10$; sizes: one triangle |
    | `cosine_warm_restarts` | `CosineAnnealingWarmRestarts` | a cosine, begun anew | `T_0`: $T / 3$, rounded up |
    | `lambda` | `LambdaLR` | $r$ times `lr_lambda`$(k)$ | |
    | `polynomial` | `PolynomialLR` | $r (1 - k / T)^\text{power}$ | |
    | `linear` | `LinearLR` | $r (1 - k / T)$ | |
    | `constant` | `ConstantLR` | $r$ | |

    A warm-up rises in equal parts to the rate at which the schedule starts (`cyclic`: `base_lr`): its step $j$ is taken
    at the share $(j + 1) / (W + 1)$ of it. What torch's keywords count, such as `milestones`, they count from its end.

    What an earlier scheduler left in the parameter groups (`initial_lr`, `max_lr`, a cycled momentum) is replaced.
    Tensor rates stay tensors and are written in place; groups that share one get a tensor each. `one_cycle` and
    `cyclic` cycle the momentum (or Adam's first beta) of the groups that have one.

    Args:
        rate_or_rates: The top rate. One number is the rate of the largest parameter group, and the others keep their
            ratios to it; a sequence has one rate per group, 0 only for a group whose rate is 0 already.
        optimizer: The optimizer to schedule.
        name: One of `SCHEDULES`.
        total_steps: How many times `scheduler.step()` will be called, the warm-up included. It is the one name for a
            schedule's length, in place of torch's `T_max`, `total_iters`, `epochs`. `plateau` and `lambda` have none
            and ignore it.
        warmup_steps: How many steps are taken below the schedule's first rate before it starts.
        **kwargs: The other keywords of the class in torch. `base_lr` is per group as `rate_or_rates` is.

    Returns:
        The scheduler. Save and load it as any other with `state_dict` and `load_state_dict`.

    Raises:
        ArgumentError: A rate is not positive and finite, or there are not as many as groups; the name or a keyword is
            unknown; `total_steps` is missing where the schedule needs it, or too short; a warm-up cannot precede the
            schedule; or torch refuses a value. The optimizer is as before.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=0.1)
        >>> scheduler = make_scheduler(0.4, optimizer, "linear", total_steps=6, warmup_steps=2)
        >>> rates = []
        >>> for _ in range(6):
        ...     rates.append(round(scheduler.get_last_lr()[0], 3))
        ...     optimizer.step()
        ...     scheduler.step()
        >>> rates
        [0.133, 0.267, 0.4, 0.3, 0.2, 0.1]
    """
    if not isinstance(optimizer, Optimizer):
        raise ArgumentError(
            f"make_scheduler(optimizer=...) must be a torch.optim.Optimizer, got {type(optimizer).__name__}."
        )
    if name not in _SCHEDULES:
        raise ArgumentError(f"make_scheduler(name=...) must be one of {', '.join(SCHEDULES)}, got {name!r}.")
    schedule = _SCHEDULES[name]
    tops = _group_rates("rate_or_rates", rate_or_rates, optimizer)
    warmup_steps = _count("warmup_steps", warmup_steps, least=0)
    steps = _steps_after_warmup(name, total_steps, warmup_steps)
    keywords = _complete(name, _checked(name, kwargs), steps)
    if name == "cyclic":
        keywords["base_lr"] = starts = _base_rates(keywords.get("base_lr"), tops, optimizer)
    else:
        starts = tops
    if name in {"one_cycle", "cyclic"}:
        keywords["max_lr"] = tops
    with kept_on_error(optimizer), _torch_errors(name):
        start_afresh(optimizer, starts)
        if name in {"one_cycle", "cyclic"}:
            keywords |= _momentum_keywords(name, optimizer, keywords)
        scheduler = schedule.factory(optimizer, **keywords)
        if warmup_steps:
            scheduler = _after_warmup(scheduler, optimizer, warmup_steps)
    set_group_lrs(
        optimizer, [float(group["lr"]) for group in optimizer.param_groups]
    )  # for ASGD, which prepares its rate
    return scheduler


def _group_rates(argument: str, given: float | Sequence[float], optimizer: Optimizer) -> list[float]:
    try:
        rates = np.asarray(given, dtype=float)
    except (TypeError, ValueError):
        raise ArgumentError(
            f"make_scheduler({argument}=...) must be a number or a sequence of numbers, got {given!r}; "
            "of a Suggestion, pass its `lr`."
        ) from None
    groups = len(optimizer.param_groups)
    if rates.ndim and rates.shape != (groups,):
        raise ArgumentError(
            f"make_scheduler({argument}=...) must hold one rate per parameter group, {groups} here, got {given!r}; "
            "pass one number to keep the groups' ratios."
        )
    may_be_zero = np.equal(ratios(optimizer), 0) if rates.ndim else False  # a group that is held still stays so
    if not (np.isfinite(rates) & ((rates > 0) | ((rates == 0) & may_be_zero))).all():
        raise ArgumentError(
            f"make_scheduler({argument}=...) must be positive and finite, got {given!r}; pass the rate that the range "
            "test suggests."
        )
    return [float(rate) for rate in rates] if rates.ndim else group_lrs(optimizer, float(rates))


def _base_rates(given: float | Sequence[float] | None, tops: list[float], optimizer: Optimizer) -> list[float]:
    bases = [top / 10 for top in tops] if given is None else _group_rates("base_lr", given, optimizer)
    if any(base > top for base, top in zip(bases, tops, strict=True)):
        raise ArgumentError(
            f"make_scheduler(base_lr=...) must not exceed the top rates {tops}, got {given!r}; leave it out for a "
            "tenth of them."
        )
    return bases


def _steps_after_warmup(name: str, total_steps: int | None, warmup_steps: int) -> int | None:
    reason = _SCHEDULES[name].no_warmup
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
        raise ArgumentError(f"make_scheduler({argument}=...) must be a whole number from {least} up, got {value!r}.")
    return count


def _checked(name: str, given: dict[str, Any]) -> dict[str, Any]:
    schedule = _SCHEDULES[name]
    for keyword, value in given.items():
        if keyword in schedule.keywords():
            continue
        remedy = f"its keywords are total_steps, warmup_steps, {', '.join(schedule.keywords())}"
        if keyword in schedule.lengths:
            remedy = "give the schedule's length, warm-up included, as total_steps"
        elif keyword == "max_lr":
            remedy = "give the top rate as the first argument"
        elif keyword == "last_epoch":
            remedy = "to resume, make the scheduler as at first and call its load_state_dict"
        raise ArgumentError(f"make_scheduler({name!r}) takes no {keyword}, got {value!r}; {remedy}.")
    return given


def _complete(name: str, given: dict[str, Any], steps: int | None) -> dict[str, Any]:
    schedule = _SCHEDULES[name]
    keywords = {**schedule.preset, **given}
    if name == "lambda" and "lr_lambda" not in given:
        raise ArgumentError(
            "make_scheduler('lambda') needs lr_lambda=..., a function from the number of steps to a factor (or "
            "a list with one per group), got none."
        )
    if not schedule.derived.keys() & given.keys():
        if steps is not None:
            keywords |= {keyword: rule(steps) for keyword, rule in schedule.derived.items()}
        elif schedule.derived and schedule.needs_length:
            others = [keyword for keyword in schedule.derived if keyword not in schedule.lengths]
            raise ArgumentError(
                f"make_scheduler({name!r}) needs {' or '.join(['total_steps', *others])}, got neither; pass "
                "total_steps=..., the number of times that scheduler.step() will be called."
            )
    return keywords


@contextmanager
def _torch_errors(name: str) -> Iterator[None]:
    try:
        yield
    except ArgumentError:
        raise
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ArgumentError(
            f"make_scheduler({name!r}): torch's {_SCHEDULES[name].factory.__name__} refuses these arguments ({error}); "
            "its documentation says what it takes."
        ) from error


def _momentum_keywords(name: str, optimizer: Optimizer, given: dict[str, Any]) -> dict[str, Any]:
    # Torch would give every group a momentum, also those without.
    groups = optimizer.param_groups
    has_momentum = [bool(group["betas"][0] if "betas" in group else group.get("momentum", 0)) for group in groups]
    if all(has_momentum) or given.get("cycle_momentum") is False:
        return {}
    if not any(has_momentum):
        if given.get("cycle_momentum"):
            raise ArgumentError(
                f"make_scheduler({name!r}, cycle_momentum=True) needs an optimizer with a momentum above 0, got "
                f"{type(optimizer).__name__} without; leave cycle_momentum out."
            )
        return {"cycle_momentum": False}
    keywords = {}
    parameters = inspect.signature(_SCHEDULES[name].factory).parameters
    for key in ("base_momentum", "max_momentum"):
        value = given.get(key, parameters[key].default)
        values = value if isinstance(value, (list, tuple)) else [value] * len(groups)
        keywords[key] = [value if has else 0.0 for value, has in zip(values, has_momentum, strict=True)]
    return keywords


def _after_warmup(scheduler: LRScheduler, optimizer: Optimizer, warmup_steps: int) -> LRScheduler:
    holders = [group["lr"] for group in optimizer.param_groups]
    warmup = lr_scheduler.LinearLR(optimizer, start_factor=1 / (warmup_steps + 1), total_iters=warmup_steps)
    chain = lr_scheduler.SequentialLR(optimizer, [warmup, scheduler], milestones=[warmup_steps])
    firsts = [float(group["lr"]) for group in optimizer.param_groups]
    for group, holder in zip(optimizer.param_groups, holders, strict=True):
        group["lr"] = holder  # older torch replaces a tensor by a float here
    set_lrs(optimizer, firsts)
    return chain
