"""What one `LRFinder.find` is asked for, validated once."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias

import numpy as np

from lrfinder.checks import check_positive, positive_int
from lrfinder.curve import MODES, RULES, SMOOTHINGS, CustomRule, Landmarks, grid, rule_name
from lrfinder.errors import ArgumentError
from lrfinder.optim import SCHEDULES
from lrfinder.training import VAL_MODES, check_loader, is_one_shot, is_ordered

__all__ = ["FindOptions", "Mode", "RuleName", "ScheduleName", "Smoothing", "ValMode"]

MIN_BUDGET = 40  # optimizer steps for refining: four short trainings of ten steps

# For type checkers; a test compares them with MODES, SMOOTHINGS, RULES, SCHEDULES and VAL_MODES.
Mode: TypeAlias = Literal["exponential", "linear"]
Smoothing: TypeAlias = Literal["gaussian", "ema", "median", "none"]
RuleName: TypeAlias = Literal[
    "auto",
    "refine",
    "fastai_valley",
    "fastai_slide",
    "fastai_minimum",
    "fastai_steep",
    "torch_lr_finder",
    "ignite",
    "lightning",
]
ScheduleName: TypeAlias = Literal[
    "one_cycle",
    "step",
    "multi_step",
    "exponential",
    "cosine",
    "plateau",
    "cyclic",
    "cosine_warm_restarts",
    "lambda",
    "polynomial",
    "linear",
    "constant",
]
ValMode: TypeAlias = Literal["eval", "train"]


PYTHON_ONLY = {"help": None}  # metadata of a field that the command line does not offer


def _option(text: str, kind: Callable[[str], Any] = str, metavar: str = "NAME", *, bare: Any = None) -> dict[str, Any]:
    """Return the metadata of a field that the command line offers too.

    Args:
        text: Its help text, to which the default is added.
        kind: Makes the value from the word on the command line; `bool` is a flag without a value.
        metavar: What the help shows for the value.
        bare: The value of the option without a word after it, None where it needs one.

    Returns:
        The metadata for `dataclasses.field`.
    """
    return {"help": text, "kind": kind, "metavar": metavar, "bare": bare}


def _int_or_str(word: str) -> int | str:
    return int(word) if word.isdecimal() else word


@dataclass(frozen=True, kw_only=True)
class FindOptions:
    """The arguments of `LRFinder.find`, which explains them; `lrfinder run` offers those that have a help text.

    Raises:
        ArgumentError: A value breaks a rule.
    """

    start_lr: float | None = field(
        default=None,
        metadata=_option("first learning rate; by default a scout of at most 30 steps finds it", float, "LR"),
    )
    end_lr: float | None = field(
        default=None, metadata=_option("last learning rate; by default a scout finds it", float, "LR")
    )
    num_iter: int = field(default=100, metadata=_option("points of the sweep", int, "N"))
    mode: Mode = field(default="exponential", metadata=_option(f"spacing of the learning rates: {', '.join(MODES)}"))
    val_loader: Any = field(default=None, metadata=PYTHON_ONLY)
    val_batches: int = field(default=8, metadata=PYTHON_ONLY)
    val_mode: ValMode = field(default="eval", metadata=PYTHON_ONLY)
    smoothing: Smoothing = field(
        default="gaussian", metadata=_option(f"how noise is taken out of the curve: {', '.join(SMOOTHINGS)}")
    )
    rule: RuleName | CustomRule = field(
        default="auto", metadata=_option(f"the rule of the suggestion: {', '.join(RULES)}")
    )
    total_steps: int | None = field(
        default=None,
        metadata=_option("optimizer steps of the training; long trainings need lower learning rates", int, "N"),
    )
    schedule: ScheduleName = field(
        default="one_cycle", metadata=_option(f"the schedule of the training: {', '.join(SCHEDULES)}")
    )
    refine: bool | int = field(
        default=False,
        metadata=_option(
            "also try a few learning rates in short trainings, of N steps in total (600, or a twentieth of the "
            "training if that is more); needs --total-steps",
            int,
            "N",
            bare=True,
        ),
    )
    repeats: int = field(
        default=1, metadata=_option("number of sweeps, over different batches, whose mean is the curve", int, "N")
    )
    early_stop: bool = field(default=True, metadata=_option("run all points even if the loss diverges", bool))
    grad_norms: bool = field(
        default=False, metadata=_option("record the gradient norms and suggest a clipping threshold", bool)
    )
    group: int | str | None = field(
        default=None,
        metadata=_option("sweep this parameter group, by its index or name, while the others keep theirs", _int_or_str),
    )
    progress: bool = field(default=True, metadata=PYTHON_ONLY)
    on_step: Callable[[int, float, float], None] | None = field(default=None, metadata=PYTHON_ONLY)

    def __post_init__(self) -> None:
        """Check every value against its rule.

        Raises:
            ArgumentError: One breaks it.
        """
        for name, value, known in (
            ("mode", self.mode, tuple(MODES)),
            ("smoothing", self.smoothing, tuple(SMOOTHINGS)),
            ("schedule", self.schedule, tuple(SCHEDULES)),
            ("val_mode", self.val_mode, VAL_MODES),
        ):
            if value not in known:
                raise ArgumentError(f"LRFinder.find({name}=...) must be one of {', '.join(known)}, got {value!r}.")
        self._check_rule()
        self._check_range()
        for name in ("val_batches", "repeats"):
            self._set(name, positive_int(f"LRFinder.find({name}=...)", getattr(self, name)))
        if self.total_steps is not None:
            hint = "It is epochs * len(train_loader) // accumulation_steps."
            self._set("total_steps", positive_int("LRFinder.find(total_steps=...)", self.total_steps, hint))
        self._check_refine()
        if self.on_step is not None and not callable(self.on_step):
            raise ArgumentError(f"LRFinder.find(on_step=...) must be callable, got {type(self.on_step).__name__}.")

    def _check_rule(self) -> None:
        known = {field.name for field in fields(Landmarks)}
        if not callable(self.rule) and self.rule not in tuple(RULES):
            hint = f"; it is a landmark, see result.landmarks.{self.rule}" if self.rule in tuple(known) else ""
            raise ArgumentError(
                f"LRFinder.find(rule=...) must be one of {', '.join(RULES)}, or a function (curve, context) -> lr, "
                f"got {self.rule!r}{hint}."
            )
        if self.rule == "refine":
            self._set("refine", self.refine or True)
            self._set("rule", "auto")  # where no short training gained anything
        elif self.refine and self.rule != "auto":
            raise ArgumentError(
                f"LRFinder.find(refine={self.refine!r}) chooses the learning rate by itself, so rule must be 'refine' "
                f"or left out, got rule={rule_name(self.rule)!r}; leave one of the two out, and ask the result for the "
                "other: result.suggest(rule)."
            )

    def _check_refine(self) -> None:
        if not isinstance(self.refine, (bool, np.bool_)):
            self._set("refine", positive_int("LRFinder.find(refine=...)", self.refine))
            if self.refine < MIN_BUDGET:
                raise ArgumentError(
                    f"LRFinder.find(refine=...) must be True or a budget of at least {MIN_BUDGET} optimizer steps, got "
                    f"refine={self.refine}; 600 is usual."
                )
        if self.refine and self.total_steps is None:
            raise ArgumentError(
                f"LRFinder.find(refine={self.refine!r}) needs total_steps, the length of the training, "
                "got total_steps=None; it is epochs * len(train_loader) // accumulation_steps."
            )
        if self.refine and self.repeats > 1:
            raise ArgumentError(
                f"LRFinder.find(refine={self.refine!r}) compares learning rates on the same batches, so repeats must "
                f"be 1, got repeats={self.repeats}; leave repeats out."
            )

    @property
    def refine_budget(self) -> int | None:
        """The optimizer steps that refining may take; None for the default."""
        return None if isinstance(self.refine, bool) else self.refine

    def _check_range(self) -> None:
        self._set("num_iter", positive_int("LRFinder.find(num_iter=...)", self.num_iter))
        for name in ("start_lr", "end_lr"):
            value = getattr(self, name)
            if value is not None:
                self._set(name, check_positive(f"LRFinder.find({name}=...)", value))
        # The grid checks its own rules (reversed ends, too few points); an open end is filled with a valid one.
        start = self.start_lr if self.start_lr is not None else (self.end_lr or 1.0) / 1e3
        end = self.end_lr if self.end_lr is not None else start * 1e3
        grid(start, end, self.num_iter, self.mode)

    def _set(self, name: str, value: float | str) -> None:
        object.__setattr__(self, name, value)  # a plain number in place of NumPy's: JSON has no others

    def shared(self, loader: Any) -> dict[str, Any]:
        """Return what must be the same on all ranks of a process group.

        Args:
            loader: The training data, as given to `LRFinder.find`.

        Returns:
            Options by name; of loaders, whether there is one and of what kind.
        """
        local = {"progress", "on_step", "val_loader"}
        options = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in local}
        kinds = {"val_loader": self.val_loader is not None, "kind of loader (an iterator)": is_one_shot(loader)}
        return options | kinds | {"rule": rule_name(self.rule)}

    def check_loader(self, loader: Any) -> None:
        """Check the options that depend on the loader.

        Args:
            loader: The training data, as given to `LRFinder.find`.

        Raises:
            ArgumentError: It is no iterable of batches, or cannot be swept several times over different batches.
        """
        check_loader(loader)
        if self.val_loader is not None:
            check_loader(self.val_loader, "val_loader")
        if self.refine and is_one_shot(loader):
            raise ArgumentError(
                f"LRFinder.find(refine={self.refine!r}) trains on the same batches again, so the loader must be one "
                f"that can be started again, got the iterator {type(loader).__name__}; pass a DataLoader or a list."
            )
        if self.repeats > 1 and (is_ordered(loader) or is_one_shot(loader)):
            raise ArgumentError(
                f"LRFinder.find(repeats={self.repeats}) averages over different batches, so the loader must shuffle, "
                f"got a {type(loader).__name__} with a fixed order; pass DataLoader(..., shuffle=True) or repeats=1."
            )
