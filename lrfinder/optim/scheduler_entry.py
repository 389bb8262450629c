"""What one name of `make_scheduler` stands for: a class of torch, and how its keywords are filled in and checked."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lrfinder.errors import ArgumentError

__all__ = ["SchedulerEntry"]


@dataclass(frozen=True, kw_only=True)
class SchedulerEntry:
    """A scheduler that `make_scheduler` can build; all fields but the class are optional.

    Args:
        factory: The class in torch.
        lengths: Its keywords for the length, which `total_steps` replaces; users cannot pass them.
        from_steps: Its keywords whose default follows from the number of steps after the warm-up.
        needs_length: Whether it is an error to give neither `total_steps` nor a keyword of `from_steps`.
        defaults: Its keywords with another default than torch's.
        required: Its keywords that the user must give, with a description of each.
        peak: Its keyword for the peak lrs. Empty for a class that starts at the lrs of the parameter groups.
        base: Its keyword for the lrs that it rises from. They are a tenth of the peak by default.
        cycles_momentum: Whether it cycles momentum (or Adam's first beta) where `cycle_momentum` is true.
        no_warmup: Why no warm-up can precede it, and what to do instead. Empty where one can.
        stand_in: The schedule that takes its place in the short trainings of refine, where it cannot run by itself.
    """

    factory: Callable[..., LRScheduler]
    lengths: Sequence[str] = ()
    from_steps: Mapping[str, Callable[[int], Any]] = field(default_factory=dict)
    needs_length: bool = True
    defaults: Mapping[str, Any] = field(default_factory=dict)
    required: Mapping[str, str] = field(default_factory=dict)
    peak: str = ""
    base: str = ""
    cycles_momentum: bool = False
    no_warmup: str = ""
    stand_in: str = ""

    @property
    def keywords(self) -> list[str]:
        """The keywords of torch's class that a user may pass."""
        ours = {"optimizer", "last_epoch", "verbose", self.peak, *self.lengths}
        return [name for name in inspect.signature(self.factory).parameters if name not in ours]

    def complete(self, name: str, given: Mapping[str, Any], steps: int | None) -> dict[str, Any]:
        """Return the user's keywords and the defaults of the others.

        Args:
            name: The name of the schedule, for messages.
            given: The user's keywords.
            steps: The number of steps after the warm-up, if known.

        Returns:
            Keywords for `factory`; those for the lrs are not among them unless they were given.

        Raises:
            ArgumentError: A keyword is unknown, or one that is needed is missing.
        """
        for keyword, value in given.items():
            if keyword not in self.keywords:
                raise ArgumentError(
                    f"make_scheduler({name!r}) takes no {keyword}, got {value!r}; {self._hint(keyword)}."
                )
        for keyword, description in self.required.items():
            if keyword not in given:
                raise ArgumentError(f"make_scheduler({name!r}) needs {keyword}=..., {description}, got none.")
        keywords = {**self.defaults, **given}
        if not self.from_steps or self.from_steps.keys() & given.keys():
            return keywords
        if steps is not None:
            return keywords | {keyword: rule(steps) for keyword, rule in self.from_steps.items()}
        if self.needs_length:
            others = [keyword for keyword in self.from_steps if keyword not in self.lengths]
            raise ArgumentError(
                f"make_scheduler({name!r}) needs {' or '.join(['total_steps', *others])}, got none; pass "
                "total_steps=..., the number of times that scheduler.step() will be called."
            )
        return keywords

    def _hint(self, keyword: str) -> str:
        if keyword in self.lengths:
            return "give the schedule's length, warm-up included, as total_steps"
        if keyword == "max_lr":
            return "give the peak learning rate as lr"
        if keyword == "last_epoch":
            return "to resume, make the scheduler as at first and call its load_state_dict"
        return f"its keywords are total_steps, warmup_steps, {', '.join(self.keywords)}"

    def momentum_keywords(self, name: str, optimizer: Optimizer, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the keywords that restrict the cycle of momentum to the groups that have momentum.

        Torch's class would set a momentum in every group, also where it was 0. It can cycle one kind only, the one in
        the optimizer's `defaults`, and needs it in every group.

        Args:
            name: The name of the schedule, for messages.
            optimizer: The optimizer.
            given: The keywords so far.

        Returns:
            Keywords for `factory`; none where every group's momentum is cycled, or none is to be.

        Raises:
            ArgumentError: `cycle_momentum=True` was given, and torch can cycle no group's momentum.
        """
        groups = optimizer.param_groups
        has_momentum = [bool(momentum) for momentum in _cyclable_momenta(optimizer)]
        if all(has_momentum) or given.get("cycle_momentum") is False:
            return {}
        if not any(has_momentum):
            if given.get("cycle_momentum"):
                raise ArgumentError(
                    f"make_scheduler({name!r}, cycle_momentum=True) needs an optimizer with a momentum above 0, in its "
                    f"`defaults` and in each group, got {type(optimizer).__name__} without; leave cycle_momentum out."
                )
            return {"cycle_momentum": False}
        keywords = {}
        parameters = inspect.signature(self.factory).parameters
        for key in ("base_momentum", "max_momentum"):
            value = given.get(key, parameters[key].default)
            values = value if isinstance(value, (list, tuple)) else [value] * len(groups)
            keywords[key] = [value if has else 0.0 for value, has in zip(values, has_momentum, strict=True)]
        return keywords


def _cyclable_momenta(optimizer: Optimizer) -> list[Any]:
    """Return each group's momentum or first beta, as torch's schedulers look for it; 0 where they cannot cycle it."""
    groups, defaults = optimizer.param_groups, optimizer.defaults
    key = next((key for key in ("betas", "momentum") if key in defaults), None)
    if key is None or not all(group.get(key) is not None for group in groups):
        return [0] * len(groups)
    return [group[key] if key == "momentum" else group[key][0] for group in groups]
