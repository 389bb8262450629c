"""What a range test found: the curve, the suggestions, and where to go from them."""

import base64
import warnings
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lrfinder.checks import check_positive
from lrfinder.curve import (
    RULES,
    Context,
    Curve,
    CustomRule,
    Floats,
    Landmarks,
    StopReason,
    Suggestion,
    find_landmarks,
    rule_name,
    suggest,
)
from lrfinder.display import (
    SCHEMA,
    block,
    html_block,
    outcome,
    plain_curve,
    plain_suggestion,
    read_fields,
    read_json,
    write_json,
)
from lrfinder.errors import ArgumentError, LRFinderWarning, NoSuggestionError
from lrfinder.optim import group_lrs, make_scheduler, set_group_lrs

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
        group_ratios: Each parameter group's rate as a multiple of the reference group's.
        steps: Optimizer steps spent in all: scout, sweep, repeats and refining.
        seconds: Time spent in all.
        warnings: What casts doubt on the curve, a sentence each, with the remedy.
        spreads: By rule, the lowest and highest rate over repeated sweeps.
        probes: By refining, `(lr, score)` of each restart.
        refined: The suggestion of refining, which then is the main one.
        meta: Optimizer, batch size, accumulation, world size, versions.
        optimizer: A weak reference to the optimizer that was swept, the default for `scheduler` and `apply`.

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
    steps: int = 0
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    spreads: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    probes: tuple[tuple[float, float], ...] = ()
    refined: Suggestion | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    optimizer: "weakref.ref[Optimizer] | None" = None

    @property
    def lrs(self) -> Floats:
        """The rates that were tried, of the reference group, shape (T,)."""
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
        """The rate at which the sweep was stopped: the first whose loss was not finite, or the last point's."""
        return self.curve.stop_lr

    @property
    def total_steps(self) -> int | None:
        """How long the training will be, as it was given to `find`."""
        return self.context.total_steps

    def suggest(self, rule: str | CustomRule) -> Suggestion:
        """Apply one rule to the curve.

        Args:
            rule: Its name, see `lrfinder.RULES`, or a function `(curve, context) -> lr`.

        Returns:
            The rate and the reason for it.

        Raises:
            ArgumentError: There is no such rule, or the function returned no positive finite number.
            NoSuggestionError: The curve lacks what the rule looks for; the message says what.
        """  # noqa: DOC502 - raised by the rules
        if rule == "refine" and self.refined is not None:
            return self.refined
        known: dict[str, Suggestion] = self.__dict__.get("suggestions", {})  # the values of the cached property
        if isinstance(rule, str) and rule in known:
            return known[rule]
        if isinstance(rule, str) and rule == self.rule and rule not in RULES:  # a function, or a rule of version 0.1
            raise NoSuggestionError(f"{rule} had no suggestion when this result was saved. Use one of lrfinder.RULES.")
        found = suggest(rule, self.curve, self.context)
        return replace(found, spread=self.spreads.get(found.rule))

    @property
    def suggestion(self) -> Suggestion:
        """The rate to train with, by the rule of the call; raises `NoSuggestionError` where the curve shows none."""
        return self.refined if self.refined is not None else self.suggest(self.rule)

    @cached_property
    def suggestions(self) -> dict[str, Suggestion]:
        """All rules that apply, by name, the one that `find` was called with first."""
        found = {} if self.refined is None else {"refine": self.refined}
        for rule in [self.rule, *(rule for rule in RULES if rule not in {self._rule_name, *found})]:
            with suppress(NoSuggestionError):
                found[rule_name(rule)] = self.suggest(rule)
        return found

    @cached_property
    def landmarks(self) -> Landmarks:
        """Learning rates at which something is seen on the curve: onset, steepest, minimum, divergence. Not advice."""
        return find_landmarks(self.curve, self.context)

    @property
    def _rule_name(self) -> str:
        return self.rule if isinstance(self.rule, str) else rule_name(self.rule)

    @property
    def _shown(self) -> dict[str, Suggestion]:
        # What texts and plots show: the suggestions, then the landmarks in the form of suggestions.
        shown = dict(self.suggestions)
        for name in ("steepest", "onset", "divergence", "minimum"):
            lr = getattr(self.landmarks, name)
            if lr is not None and name not in shown:
                index = int(np.argmin(np.abs(np.log(self.lrs / lr))))
                shown[name] = Suggestion(lr=lr, rule=name, reason="a landmark of the curve, not advice", index=index)
        return shown

    def group_lrs(self, suggestion: Suggestion | float | None = None) -> list[float]:
        """Return the rate of each parameter group.

        Args:
            suggestion: A suggestion or a reference rate; the main suggestion by default.

        Returns:
            One rate per group, in the order of `optimizer.param_groups`, at the ratios that were swept.
        """
        chosen = self.suggestion if suggestion is None else suggestion
        lr = chosen.lr if isinstance(chosen, Suggestion) else check_positive("RangeTestResult(suggestion=...)", chosen)
        return group_lrs(self.group_ratios, lr)

    def apply(self, optimizer: "Optimizer | None" = None, suggestion: Suggestion | float | None = None) -> None:
        """Write the suggested rates into an optimizer, for training without a scheduler.

        Args:
            optimizer: The one to write to; by default the one that was swept.
            suggestion: A suggestion or a reference rate; the main suggestion by default.
        """
        optimizer = self._optimizer("apply", optimizer)
        rates = self.group_lrs(suggestion)
        set_group_lrs(optimizer, rates)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            if "initial_lr" in group:  # left by an earlier scheduler: the next one would start from it
                group["initial_lr"] = rate

    def scheduler(
        self,
        name: str | None = None,
        optimizer: "Optimizer | None" = None,
        *,
        suggestion: Suggestion | float | None = None,
        **kwargs: Any,
    ) -> "LRScheduler | ReduceLROnPlateau":
        """Build a stock torch scheduler at the suggested rates.

        Args:
            name: One of `lrfinder.SCHEDULES`; by default the schedule that `find` was called with.
            optimizer: The one to schedule; by default the one that was swept.
            suggestion: A suggestion or a reference rate; the main suggestion by default.
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
        rates = self.group_lrs(suggestion)
        if self.total_steps is not None:
            kwargs.setdefault("total_steps", self.total_steps)
        onset = self.landmarks.onset
        if name == "cyclic" and onset is not None and sum(self.group_lrs(onset)) < sum(rates):
            kwargs.setdefault("base_lr", self.group_lrs(onset))
        return make_scheduler(optimizer, name, rates, **kwargs)

    def _optimizer(self, caller: str, optimizer: "Optimizer | None") -> "Optimizer":
        known = self.optimizer() if self.optimizer is not None else None
        chosen = optimizer if optimizer is not None else known
        if chosen is None:
            raise ArgumentError(
                f"RangeTestResult.{caller}(optimizer=...) is needed, got None, and the swept one is gone; pass one."
            )
        if len(chosen.param_groups) != len(self.group_ratios):
            raise ArgumentError(
                f"RangeTestResult.{caller}(optimizer=...) must have as many parameter groups as the one that was "
                f"swept, {len(self.group_ratios)}, got {len(chosen.param_groups)}; build it from the same groups."
            )
        return chosen

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
            rules: Which suggestions and landmarks to mark; by default the main suggestion, the steepest descent and
                the divergence.
            show_raw: Whether to draw the raw losses, faintly, behind the smoothed ones.

        Returns:
            The Axes drawn on.
        """
        from lrfinder.display import plot_curve

        found, rules = self._shown, self._marked if rules is None else rules
        probes = self._probe_arrays
        return plot_curve(self.curve, found, ax=ax, label=label, rules=rules, show_raw=show_raw, probes=probes)

    @property
    def _marked(self) -> list[str]:
        main = "refine" if self.refined is not None else self._rule_name
        return [main, *(rule for rule in ("steepest", "divergence") if rule != main)]

    @property
    def _probe_arrays(self) -> "tuple[Floats, Floats] | tuple[()]":
        return (np.array(self.probes)[:, 0], np.array(self.probes)[:, 1]) if self.probes else ()

    def issue_warnings(self, stacklevel: int = 2) -> None:
        """Issue each of `warnings` once, as an `LRFinderWarning`.

        Args:
            stacklevel: Which frame they are attributed to, as for `warnings.warn`.
        """
        for sentence in self.warnings:
            warnings.warn(sentence, LRFinderWarning, stacklevel=stacklevel + 1)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle holds: a function as rule by its name, and no reference to the optimizer."""
        return {**self.__dict__, "optimizer": None, "rule": self._rule_name, "suggestions": self.suggestions}

    def __repr__(self) -> str:
        """Return one line."""
        try:
            advice = f"suggestion={self.suggestion.lr:.1e} by {self.suggestion.rule}"
        except NoSuggestionError:
            advice = "no suggestion"
        return f"<RangeTestResult {outcome(self.curve)}, {len(self.curve)} points, {advice}>"

    def __str__(self) -> str:
        """Return the block that a terminal shows."""
        return block(self._headline(), self._shown, self.probes, self.warnings, self._advice())

    def _repr_html_(self) -> str:
        """Return a table and an opaque picture, for notebooks."""
        return html_block(self._headline(), self._shown, self.warnings, self._advice(), self._picture())

    def _headline(self) -> str:
        return f"{outcome(self.curve)} after {self.steps:,} steps, {self.seconds:.1f} s"

    def _advice(self) -> str:
        try:
            self.suggestion  # noqa: B018 - asked for its error
        except NoSuggestionError as error:
            return f"no suggestion: {error}"
        if "use" in self.meta:  # a framework has its own way
            return f"use: {self.meta['use']}"
        length = "" if self.total_steps is None else f", total_steps={self.total_steps}"
        return f'use: scheduler = result.scheduler("{self.context.schedule}", optimizer{length})'

    def _picture(self) -> str:
        if not len(self.curve):
            return ""
        from lrfinder.display import plot_result_png

        png = plot_result_png(self.curve, self._shown, rules=self._marked, probes=self._probe_arrays)
        return base64.b64encode(png).decode()

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain numbers, strings, lists and dictionaries.

        Returns:
            What `save` writes; JSON holds it without loss.
        """
        return {
            "schema": SCHEMA,
            **plain_curve(self.curve),
            "context": asdict(self.context),
            "rule": self._rule_name,
            "group_ratios": list(self.group_ratios),
            "suggestions": {rule: plain_suggestion(found) for rule, found in self.suggestions.items()},
            "landmarks": asdict(self.landmarks),
            "spreads": {rule: list(spread) for rule, spread in self.spreads.items()},
            "steps": self.steps,
            "seconds": self.seconds,
            "warnings": list(self.warnings),
            "probes": [[lr, score if np.isfinite(score) else None] for lr, score in self.probes],
            "meta": dict(self.meta),
        }

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
            An equal result. It knows no optimizer: hand one to `scheduler` and `apply`.

        Raises:
            ArgumentError: The file holds something else, or a schema that this version does not read.
        """  # noqa: DOC502 - raised by from_dict
        return cls.from_dict(read_json(path), f"RangeTestResult.load(path={str(path)!r})")

    @classmethod
    def from_dict(cls, data: Any, call: str = "RangeTestResult.from_dict(data=...)") -> "RangeTestResult":
        """Make a result of what `to_dict` returned.

        Args:
            data: The dictionary.
            call: What messages call the call.

        Returns:
            An equal result. It knows no optimizer: hand one to `scheduler` and `apply`.

        Raises:
            ArgumentError: It is something else, or of a schema that this version does not read.
        """  # noqa: DOC502 - raised by read_fields
        fields, suggestions, landmarks = read_fields(data, call)
        result = cls(**fields)
        # As they were when they were printed, whatever a later version's rules would say.
        result.__dict__.update(suggestions=suggestions, landmarks=landmarks)
        return result
