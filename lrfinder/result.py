"""What a range test found: the curve, the suggestions, and where to go from them."""

import base64
import builtins
import math
import warnings
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from lrfinder.checks import check_positive
from lrfinder.curve import (
    RULES,
    ClipSuggestion,
    Context,
    Curve,
    CustomRule,
    Floats,
    Landmarks,
    Level,
    StopReason,
    Suggestion,
    Verdict,
    clip_threshold,
    find_landmarks,
    judge,
    rule_name,
    suggest,
)
from lrfinder.display import (
    html_block,
    one_line,
    plain_fields,
    read_fields,
    read_json,
    summarize,
    text_block,
    write_json,
)
from lrfinder.errors import ArgumentError, LRFinderWarning, NoSuggestionError
from lrfinder.optim import make_scheduler, set_group_lrs

if TYPE_CHECKING:  # matplotlib is loaded by the first plot
    from matplotlib.axes import Axes
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

__all__ = ["RangeTestResult"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RangeTestResult:
    """The outcome of one `LRFinder.find`.

    Args:
        curve: What was measured.
        context: What is known of the training; the rules read it.
        rule: The rule behind `suggestion`: a key of `lrfinder.RULES` or a function.
        group_ratios: Each parameter group's lr as a multiple of the largest group's.
        fixed_lrs: With `find(group=...)` the lr of the groups that kept their own, 0 for the swept one.
        group_names: The name of each parameter group.
        initial_lrs: The lr of each parameter group when `find` was called; with `OneCycleLR` attached its peak.
        steps: Optimizer steps in total: scout, sweep, repeats and refining.
        seconds: Time in total.
        warnings: What makes the curve hard to trust, a sentence each, with the remedy.
        warnings_issued: Whether `find` has issued the warnings; then the printed block refers to them.
        spreads: By rule, the lowest and highest lr over repeated sweeps.
        probes: `(lr, loss)` of each of refine's short trainings; the loss is infinite where it diverged.
        refined: The suggestion of refining, which then is the main one.
        next_step: The code that uses the result, for the last line of the block; by default `result.scheduler(...)`.
        meta: Optimizer, batch size, accumulation, world size, versions.
        optimizer: A weak reference to the optimizer that was swept, the default for `scheduler` and `apply`.
        stored_suggestions: Suggestions of a loaded result, kept whatever this version's rules would say.
        stored_landmarks: Landmarks of a loaded result.

    Example:
        >>> import torch
        >>> from lrfinder import LRFinder
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> batches = [(x, x.sum(1, keepdim=True)) for x in torch.randn(4, 32, 2)]
        >>> result = LRFinder(model, optimizer, torch.nn.MSELoss()).find(batches, total_steps=500, progress=False)
        >>> result.scheduler("one_cycle", optimizer).total_steps
        500
    """

    curve: Curve
    context: Context = field(default_factory=Context)
    rule: str | CustomRule = "auto"
    group_ratios: tuple[float, ...] = (1.0,)
    fixed_lrs: tuple[float, ...] = ()
    group_names: tuple[str, ...] = ()
    initial_lrs: tuple[float, ...] = ()
    steps: int = 0
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    warnings_issued: bool = False
    spreads: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    probes: tuple[tuple[float, float], ...] = ()
    refined: Suggestion | None = None
    next_step: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    optimizer: "weakref.ref[Optimizer] | None" = None
    stored_suggestions: Mapping[str, Suggestion] | None = None
    stored_landmarks: Landmarks | None = None

    @property
    def lrs(self) -> Floats:
        """The learning rates of the sweep, of the largest parameter group, shape (T,)."""
        return self.curve.lrs

    @property
    def losses(self) -> Floats:
        """The loss at each rate as it was measured, shape (T,)."""
        return self.curve.losses

    @property
    def smoothed(self) -> Floats:
        """The losses without their noise, shape (T,)."""
        return self.curve.smoothed

    @property
    def grad_norms(self) -> Floats | None:
        """The norm of each step's gradients before clipping, shape (T,), infinite where it overflowed.

        None without `find(grad_norms=True)`.
        """
        return self.curve.grad_norms

    @property
    def stop_reason(self) -> StopReason | None:
        """Why the sweep ended; None for the part that an exception left behind."""
        return self.curve.stop_reason

    @property
    def stop_lr(self) -> float | None:
        """The lr at which the sweep was stopped: the first whose loss was not finite, or the last point's."""
        return self.curve.stop_lr

    @property
    def total_steps(self) -> int | None:
        """How long the training will be, as it was given to `find`."""
        return self.context.total_steps

    @property
    def initial_lr(self) -> float | None:
        """The lr of the largest parameter group when `find` was called, None where unknown."""
        known = (lr / ratio for lr, ratio in zip(self.initial_lrs, self.group_ratios, strict=False) if ratio)
        return next(known, None)

    @property
    def swept_group(self) -> str | None:
        """The name of the only parameter group that was swept, None where all were."""
        if not self.fixed_lrs:
            return None
        index = self.group_ratios.index(1.0)
        return self.group_names[index] if self.group_names else f"group {index}"

    def suggest(self, rule: str | CustomRule) -> Suggestion:
        """Return the suggestion of one rule.

        Args:
            rule: Its name, see `lrfinder.RULES`, or a function `(curve, context) -> lr`.

        Returns:
            The learning rate and the reason for it.

        Raises:
            ArgumentError: There is no such rule, or the function returned no positive finite number.
            NoSuggestionError: The curve lacks what the rule looks for; the message says what.
        """  # noqa: DOC502 - raised by the rules
        if rule == "refine" and self.refined is not None:
            return self.refined
        if isinstance(rule, str) and rule in (self.stored_suggestions or {}):
            return (self.stored_suggestions or {})[rule]
        if isinstance(rule, str) and rule == self.rule and rule not in RULES:  # a function, or a rule of version 0.1
            raise NoSuggestionError(f"{rule} had no suggestion when this result was saved. Use one of lrfinder.RULES.")
        found = suggest(rule, self.curve, self.context)
        return replace(found, spread=self.spreads.get(found.rule))

    @property
    def suggestion(self) -> Suggestion:
        """The learning rate to train with, by the rule of the call.

        Raises:
            NoSuggestionError: The curve shows none; the message says what is missing.
        """  # noqa: DOC502 - raised by suggest
        return self.refined if self.refined is not None else self.suggest(self.rule)

    @cached_property
    def suggestions(self) -> dict[str, Suggestion]:
        """The suggestions of all rules that apply, by name, the main one first."""
        if self.stored_suggestions is not None:
            return dict(self.stored_suggestions)
        found = {} if self.refined is None else {"refine": self.refined}
        for rule in [self.rule, *(rule for rule in RULES if rule not in {self._rule_name, *found})]:
            with suppress(NoSuggestionError):
                found[rule_name(rule)] = self.suggest(rule)
        return found

    @cached_property
    def landmarks(self) -> Landmarks:
        """Learning rates at which something is seen on the curve: onset, steepest, minimum, divergence. Not advice."""
        return find_landmarks(self.curve, self.context) if self.stored_landmarks is None else self.stored_landmarks

    @property
    def _rule_name(self) -> str:
        return self.rule if isinstance(self.rule, str) else rule_name(self.rule)

    def group_lrs(self, suggestion: Suggestion | float | None = None) -> list[float]:
        """Return the lr of each parameter group.

        Args:
            suggestion: A suggestion, or an lr of the largest group; the main suggestion by default.

        Returns:
            One lr per group, in the order of `optimizer.param_groups`, at the ratios of the sweep.

        Raises:
            ArgumentError: `suggestion` is something else.
            NoSuggestionError: There is no suggestion.
        """  # noqa: DOC502 - raised by self.suggestion and check_positive
        if isinstance(suggestion, str):
            raise ArgumentError(
                f"RangeTestResult(suggestion=...) must be a Suggestion or an lr, got {suggestion!r}; "
                f"write suggestion=result.suggest({suggestion!r})."
            )
        chosen = self.suggestion if suggestion is None else suggestion
        lr = chosen.lr if isinstance(chosen, Suggestion) else check_positive("RangeTestResult(suggestion=...)", chosen)
        fixed = self.fixed_lrs or [0.0] * len(self.group_ratios)
        return [lr * ratio + own for ratio, own in zip(self.group_ratios, fixed, strict=True)]

    def slice(self, suggestion: Suggestion | float | None = None) -> "builtins.slice":
        """Return the learning rates of the first and the last parameter group, as fastai takes them.

        Args:
            suggestion: A suggestion or a reference learning rate; the main suggestion by default.

        Returns:
            `slice(first, last)` for `learner.fit_one_cycle(n_epoch, result.slice())`, which spreads the groups in
            between in equal ratios.
        """
        lrs = self.group_lrs(suggestion)
        return slice(lrs[0], lrs[-1])

    def apply(self, optimizer: "Optimizer | None" = None, suggestion: Suggestion | float | None = None) -> None:
        """Write the suggested lrs into an optimizer, for training without a scheduler.

        Args:
            optimizer: The one to write to; by default the one that was swept.
            suggestion: A suggestion, or an lr of the largest group; the main suggestion by default.

        Raises:
            ArgumentError: An argument breaks a rule; nothing was written.
            NoSuggestionError: There is no suggestion; nothing was written.
        """  # noqa: DOC502 - raised by _optimizer and group_lrs
        optimizer = self._optimizer("apply", optimizer)
        lrs = self.group_lrs(suggestion)
        set_group_lrs(optimizer, lrs)
        scheduled = [group for group in optimizer.param_groups if "initial_lr" in group]
        for group, lr in zip(optimizer.param_groups, lrs, strict=True):
            if "initial_lr" in group:  # the next scheduler would start from it
                group["initial_lr"] = lr
        if scheduled:
            warnings.warn(
                "This optimizer has a scheduler from before: its next step() overwrites the learning rates that "
                "RangeTestResult.apply() has written. Stop stepping it, and make a new one with result.scheduler(...).",
                LRFinderWarning,
                stacklevel=2,
            )

    def scheduler(
        self,
        name: str | None = None,
        optimizer: "Optimizer | None" = None,
        *,
        suggestion: Suggestion | float | None = None,
        **kwargs: Any,
    ) -> "LRScheduler | ReduceLROnPlateau":
        """Return a scheduler of torch at the suggested lrs.

        Args:
            name: One of `lrfinder.SCHEDULES`; by default the schedule that `find` was called with.
            optimizer: The one to schedule; by default the one that was swept.
            suggestion: A suggestion, or an lr of the largest group; the main suggestion by default.
            **kwargs: For `lrfinder.make_scheduler`; `total_steps` is taken from the result where it is not given.

        Returns:
            An object of `torch.optim.lr_scheduler`.

        Raises:
            ArgumentError: `name` is not a string, or `make_scheduler` refuses an argument.
        """
        if name is not None and not isinstance(name, str):
            raise ArgumentError(
                f"RangeTestResult.scheduler takes the name of the schedule first, got {type(name).__name__}; write "
                f"result.scheduler({optimizer if isinstance(optimizer, str) else 'one_cycle'!r}, optimizer)."
            )
        optimizer = self._optimizer("scheduler", optimizer)
        name = self.context.schedule if name is None else name
        if suggestion is None:
            return make_scheduler(optimizer, name, self, **kwargs)
        kwargs.setdefault("total_steps", self.total_steps)
        return make_scheduler(optimizer, name, self.group_lrs(suggestion), **kwargs)

    def _optimizer(self, caller: str, optimizer: "Optimizer | None") -> "Optimizer":
        known = self.optimizer() if self.optimizer is not None else None
        chosen = optimizer if optimizer is not None else known
        if chosen is None:
            raise ArgumentError(
                f"RangeTestResult.{caller}(optimizer=...) is needed, got None, and the swept one is gone; pass one."
            )
        if not isinstance(getattr(chosen, "param_groups", None), list):
            remedy = "pass the optimizer of the training"
            if isinstance(chosen, (Suggestion, float, int)):
                remedy = "a suggestion or an lr is the argument suggestion=..."
            raise ArgumentError(
                f"RangeTestResult.{caller}(optimizer=...) must be a torch optimizer, got {type(chosen).__name__}; "
                f"{remedy}."
            )
        if len(chosen.param_groups) != len(self.group_ratios):
            raise ArgumentError(
                f"RangeTestResult.{caller}(optimizer=...) must have as many parameter groups as the one that was "
                f"swept, {len(self.group_ratios)}, got {len(chosen.param_groups)}; build it from the same groups."
            )
        return chosen

    @overload
    def judge(self, lr: float | None = None) -> Verdict: ...
    @overload
    def judge(self, lr: Sequence[float]) -> list[Verdict]: ...
    def judge(self, lr: float | Sequence[float] | None = None) -> Verdict | list[Verdict]:
        """Judge a learning rate by the measured curve: is it too low or too high?

        Args:
            lr: An lr of the largest parameter group, or one per group; by default the one that the largest group had
                when `find` was called. Groups that keep the ratios of the sweep share one verdict.

        Returns:
            How it compares with the suggestion of `auto` or of refining, and what to expect of a training; a list for
            one lr per group, where each is compared with the suggestion for its group.

        Raises:
            ArgumentError: `lr` is no positive number, or is needed because the result does not know the optimizer's;
                or there are not as many as parameter groups.
        """
        call = "RangeTestResult.judge(lr=...)"
        if isinstance(lr, (list, tuple, np.ndarray)):
            if len(lr) != len(self.group_ratios):
                raise ArgumentError(
                    f"{call} must hold one lr per parameter group, {len(self.group_ratios)} here, got {len(lr)}; pass "
                    "one number to judge the lr of the largest group."
                )
            pairs = zip(lr, self.group_ratios, strict=True)
            return [self._judge(check_positive(call, each) if ratio else each, ratio) for each, ratio in pairs]
        return self._judge(check_positive(call, self.initial_lr if lr is None else lr))

    def _judge(self, lr: float, ratio: float = 1.0) -> Verdict:
        # Of a group that has `ratio` times the lr of the largest one, 0 where it was not swept.
        if not ratio:
            reason = "This parameter group was not swept: the range test says nothing about its learning rate."
            return Verdict(lr=lr, level=Level.UNKNOWN, factor=math.nan, reason=reason)
        found = None
        with suppress(NoSuggestionError):
            found = self.suggest("auto") if self.refined is None else self.refined
        return judge(lr, None if found is None else found.lr, self.curve, self.context, ratio=ratio)

    def clip_norm(self, lr: float | None = None) -> ClipSuggestion:
        """Return a threshold for gradient clipping, from the gradient norms at stable learning rates.

        It is 3.5 times the 90% quantile of the norms up to `lr`, or the 98% quantile of all norms below divergence
        where that is higher. In a long training, gradients may grow beyond all that a sweep shows: watch how often they
        are clipped, and raise the threshold if it is most of the steps.

        Args:
            lr: The learning rate of the training; the suggestion by default.

        Returns:
            The threshold `max_norm`, the share of steps that it would have clipped, and the reason.

        Raises:
            ArgumentError: `lr` is no positive number.
            NoSuggestionError: `find` was called without `grad_norms=True`, or there are too few norms.
        """  # noqa: DOC502 - raised by the parts
        lr = self.suggestion.lr if lr is None else check_positive("RangeTestResult.clip_norm(lr=...)", lr)
        return clip_threshold(self.curve, lr, self.context)

    def plot(
        self,
        ax: "Axes | None" = None,
        *,
        label: str | None = None,
        rules: Sequence[str] | None = None,
        show_raw: bool = True,
    ) -> "Axes":
        """Draw the curve with its suggestions.

        Args:
            ax: Where to draw; a new figure by default. Several results may share one.
            label: The name of this result in the legend.
            rules: Which suggestions and landmarks to mark; by default the main suggestion, the steepest descent, the
                divergence, and the lr that the optimizer had.
            show_raw: Whether to draw the raw losses, faintly, behind the smoothed ones.

        Returns:
            The Axes drawn on.
        """
        from lrfinder.display import plot_curve

        return plot_curve(
            self.curve,
            self.suggestions,
            self.landmarks,
            ax=ax,
            label=label,
            rules=rules,
            show_raw=show_raw,
            probes=self._probe_arrays,
            own=self._own_verdict if rules is None else None,
            xlabel=self._xlabel,
            ylabel=self._ylabel,
        )

    @property
    def _xlabel(self) -> str:
        return "learning rate" if self.swept_group is None else f"learning rate of {self.swept_group}"

    @property
    def _ylabel(self) -> str:
        return "validation loss" if self.context.val else "loss"

    @property
    def _own_verdict(self) -> Verdict | None:
        return self.judge() if self.initial_lr else None

    @property
    def _probe_arrays(self) -> "tuple[Floats, Floats] | tuple[()]":
        return (np.array(self.probes)[:, 0], np.array(self.probes)[:, 1]) if self.probes else ()

    def issue_warnings(self, stacklevel: int = 2, name: str = "") -> None:
        """Issue each of `warnings` once, as an `LRFinderWarning`.

        Args:
            stacklevel: The frame that they are attributed to, as for `warnings.warn`.
            name: What each begins with, where several results are told apart.
        """
        for sentence in self.warnings:
            text = f"{name}: {sentence}" if name else sentence
            warnings.warn(text, LRFinderWarning, stacklevel=stacklevel + 1)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle holds: a function as rule by its name, and no reference to the optimizer."""
        held = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**held, "optimizer": None, "rule": self._rule_name, "stored_suggestions": self.suggestions}

    def __repr__(self) -> str:
        """Return one line."""
        return one_line(self)

    def __str__(self) -> str:
        """Return the block that a terminal shows."""
        return text_block(summarize(self))

    def _repr_html_(self) -> str:
        """Return the same as a table, with an opaque plot, for notebooks."""
        return html_block(summarize(self), self._picture())

    def _picture(self) -> str:
        if not len(self.curve):
            return ""
        from lrfinder.display import plot_result_png

        png = plot_result_png(
            self.curve,
            self.suggestions,
            self.landmarks,
            probes=self._probe_arrays,
            own=self._own_verdict,
            xlabel=self._xlabel,
            ylabel=self._ylabel,
        )
        return base64.b64encode(png).decode()

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain numbers, strings, lists and dictionaries.

        Returns:
            What `save` writes; JSON holds it without loss.
        """
        held = {field.name: getattr(self, field.name) for field in fields(self)}
        shown = {"rule": self._rule_name, "suggestions": self.suggestions, "landmarks": self.landmarks}
        return plain_fields(held | shown)

    def save(self, path: str | Path) -> None:
        """Write the result to a file as JSON.

        Args:
            path: The file; it is overwritten.
        """
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> "RangeTestResult":
        """Read a result that `save` wrote.

        Args:
            path: The file.

        Returns:
            An equal result, without an optimizer: pass one to `scheduler` and `apply`.

        Raises:
            ArgumentError: The file holds something else, or a schema that this version does not read.
        """  # noqa: DOC502 - raised by from_dict
        return cls.from_dict(read_json(path), f"RangeTestResult.load(path={str(path)!r})")

    @classmethod
    def from_dict(cls, data: Any, call: str = "RangeTestResult.from_dict(data=...)") -> "RangeTestResult":
        """Return the result that `to_dict` described.

        Args:
            data: The dictionary.
            call: The call that messages name.

        Returns:
            An equal result, without an optimizer: pass one to `scheduler` and `apply`.

        Raises:
            ArgumentError: It is something else, or of a schema that this version does not read.
        """  # noqa: DOC502 - raised by read_fields
        return cls(**read_fields(data, call))
