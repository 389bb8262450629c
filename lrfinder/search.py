"""The phases of one find: the scout, the sweep, its repeats, refining. The setup is captured around them."""

import math
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor

from lrfinder.curve import (
    DEFAULT_STOP_RULE,
    MOST_PROBES,
    Context,
    Curve,
    Floats,
    Refined,
    ShortTraining,
    Sweep,
    curve_of,
    grid,
    mean_curve,
    probe_steps,
    refine,
    scout_grid,
    scouted_range,
)
from lrfinder.display import Progress
from lrfinder.distributed import DataEnded, Ranks
from lrfinder.optim import (
    LREffect,
    LRWriter,
    group_index,
    group_momentum,
    largest_group,
    set_group_lrs,
    unwrap_optimizer,
)
from lrfinder.options import FindOptions
from lrfinder.snapshot import Snapshot
from lrfinder.training import (
    Batches,
    BatchLoss,
    GradNormRecorder,
    LossQueue,
    OnPoint,
    Remaining,
    TrainingSetup,
    Validation,
    epoch_length,
    held_out_count,
    run_sweep,
    train_short,
)

__all__ = ["Search", "SearchOutcome"]

LAST_SHARE = 0.2  # of a short training's losses, which score it where only the user's step knows the loss
FIRST_LOSSES = 5  # of the sweep, taken as the loss before training there
FEWEST_HELD_OUT = 2  # fewer validation batches cannot justify a larger learning rate than the curve suggests
UNSCOUTED = (1e-7, 10.0)  # the range of an iterator, which cannot be scouted; it suits every usual optimizer


@dataclass(frozen=True, kw_only=True)
class SearchOutcome:
    """What a search has measured.

    Args:
        curve: The mean over the repeats that are complete, else what the latest sweep has.
        repeats: The curve of each complete repeat.
        refined: What refining found, None without it.
        context: What is known of the training.
        group_ratios: Each parameter group's learning rate as a multiple of the reference group's.
        fixed_lrs: With a single swept group, the learning rate of the groups that keep their own, 0 for the swept one.
        initial_lrs: Each parameter group's learning rate before the search; with `OneCycleLR` attached its peak.
        steps: Optimizer steps in all.
        consumed: Batches that were read from an iterator and are lost to the training; 0 for any other loader.
        held_iterators: The name of the iterator that the loader, or the validation loader, reads from, or "".
        error: What the user's code raised on a loss that was not finite.
        groups_without_effect: The indices of parameter groups whose steps did not depend on their learning rate.
        any_moved: Whether a step changed a parameter, as far as is known.
    """

    curve: Curve
    repeats: tuple[Curve, ...]
    refined: Refined | None
    context: Context
    group_ratios: tuple[float, ...]
    fixed_lrs: tuple[float, ...]
    initial_lrs: tuple[float, ...]
    steps: int
    consumed: int
    held_iterators: Mapping[str, str]
    error: Exception | None
    groups_without_effect: tuple[int, ...]
    any_moved: bool


@dataclass(kw_only=True)
class Search:
    """Runs the phases, one after the other.

    Args:
        setup: The training.
        batches: Where the training data comes from.
        options: What `find` was asked for.
        snapshot: The captured setup, rewound between phases.
        ranks: The ranks that run the same search.
        progress: The progress bar, which counts the optimizer steps.
    """

    setup: TrainingSetup
    batches: Batches
    options: FindOptions
    snapshot: Snapshot
    ranks: Ranks
    progress: Progress

    _sweep: Sweep = field(default_factory=lambda: Sweep(()), init=False)
    _complete: list[Curve] = field(default_factory=list, init=False)
    _refined: Refined | None = field(default=None, init=False)
    _error: Exception | None = field(default=None, init=False)
    _validate: Validation | None = field(default=None, init=False)
    _val_iterator: str = field(default="", init=False)
    _verified: bool = field(default=False, init=False)
    _any_moved: bool = field(default=True, init=False)
    _without_effect: tuple[int, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        """Prepare what all phases share."""
        self._step = self.setup.make_step(self.ranks)
        group = self.options.group
        optimizer = self.setup.optimizer
        self._lrs = LRWriter(optimizer, None if group is None else group_index(optimizer, group))
        swept = [index for index, ratio in enumerate(self._lrs.ratios) if ratio]
        self._effect = LREffect(optimizer, swept)
        self._device = self.setup.find_device()
        self._context = _context(self.setup.optimizer, self.options)
        self._validate = self._make_validation()

    def run(self) -> SearchOutcome:
        """Run all phases.

        Returns:
            What was measured. The setup is left as the last phase left it.
        """
        self._check_validation()
        self._run_sweeps()
        self._any_moved = self._effect.any_moved()
        self._without_effect = self._find_groups_without_effect()
        curve = mean_curve(self._complete, self.options.smoothing)
        if self.options.refine and len(curve):
            self._refined = self._refine(curve)
        return self.outcome()

    def outcome(self) -> SearchOutcome:
        """Return what has been measured so far.

        Returns:
            The outcome; its curve has no points if there are none yet.
        """
        smoothing = self.options.smoothing
        return SearchOutcome(
            curve=mean_curve(self._complete, smoothing) if self._complete else curve_of(self._sweep, smoothing),
            repeats=tuple(self._complete),
            refined=self._refined,
            context=self._known(),
            group_ratios=tuple(self._lrs.ratios),
            fixed_lrs=() if self.options.group is None else tuple(self._lrs.fixed_lrs),
            initial_lrs=tuple(self._lrs.peak_lrs),
            steps=self.progress.steps,
            consumed=self.batches.consumed if self.batches.one_shot or self.batches.held_iterator else 0,
            held_iterators={"loader": self.batches.held_iterator, "val_loader": self._val_iterator},
            error=self._error,
            groups_without_effect=self._without_effect,
            any_moved=self._any_moved,
        )

    def _known(self) -> Context:
        """Return the context with what the batches have shown, the same on all ranks."""
        length, count = self.batches.epoch_length, self._step.accumulation_steps
        alone = not self.ranks.is_distributed  # epochs of ranks may differ in length
        points = length // count if length is not None and length % count == 0 and alone else None
        return replace(self._context, batch_size=self.batches.batch_size, epoch_points=points)

    def _run_sweeps(self) -> None:
        options = self.options
        start, end = self._range()
        lrs = grid(start, end, options.num_iter, options.mode)
        self.progress.expect(self.progress.steps + options.repeats * options.num_iter)
        for repeat in range(options.repeats):
            if repeat:
                # The model starts again and the stream of batches goes on: other batches, another noise.
                self.snapshot.rewind(streams=False)
            self.progress.phase("sweep" if options.repeats == 1 else f"sweep {repeat + 1}/{options.repeats}")
            curve = self._run_sweep(
                lrs,
                validate=self._validate,
                on_point=None if repeat else options.on_step,
                early_stop=options.early_stop,
                grad_norms=options.grad_norms,
            )
            self._complete.append(curve)

    def _range(self) -> tuple[float, float]:
        start, end = self.options.start_lr, self.options.end_lr
        if start is not None and end is not None:
            return start, end
        if self.batches.one_shot and (start is not None or end is not None):
            start = start if start is not None else min(UNSCOUTED[0], (end or 1.0) / 1e4)
            return start, end if end is not None else max(UNSCOUTED[1], start * 1e4)
        self.progress.phase("scout")
        scouted = scouted_range(
            self._run_sweep(scout_grid(start, end)),
            self._context,
            num_iter=self.options.num_iter,
            mode=self.options.mode,
        )
        self._start_again()
        return _between(start, end, scouted)

    def _run_sweep(
        self,
        lrs: Floats,
        *,
        validate: Callable[[], Tensor] | None = None,
        on_point: OnPoint | None = None,
        early_stop: bool = True,
        grad_norms: bool = False,
    ) -> Curve:
        # Running statistics that settle make a held-out loss, which has no noise, drift: that is no divergence.
        self._sweep = Sweep(lrs, DEFAULT_STOP_RULE if early_stop and validate is None else None)
        norms = GradNormRecorder(self._step, len(lrs), self._device) if grad_norms else None
        self._error = run_sweep(
            self._sweep,
            self._write_lr,
            self._step,
            self.batches,
            queue=LossQueue(len(lrs), self._device),
            ranks=self.ranks,
            validate=validate,
            after_step=self._count,
            after_loss=None if norms is None else norms.record,
            on_point=on_point,
        )
        curve = curve_of(self._sweep, self.options.smoothing)
        return curve if norms is None else replace(curve, grad_norms=norms.read(curve.indices))

    def _write_lr(self, lr: float) -> None:
        self._lrs.write(lr)
        self._effect.before_step(lr)

    def _find_groups_without_effect(self) -> tuple[int, ...]:
        # Where the sweep gives reason to: two steps that differ only in the lr, on one batch and from one state.
        suspects = self.ranks.share(self._effect.suspects())
        batches = self.batches.take(self._step.accumulation_steps) if suspects else None
        if not suspects or self.ranks.any_ended(batches is None) or batches is None:
            return ()
        low, high = (self._lrs.group_lrs(lr) for lr in self._effect.lr_range)
        mixed = [high[index] if index in suspects else low[index] for index in range(len(low))]
        ends = []
        for lrs in (low, mixed):
            self.snapshot.rewind()
            before = self._effect.positions()
            set_group_lrs(self.setup.optimizer, lrs)
            try:
                self._step(batches)
            except DataEnded:
                return ()
            self._count(0)
            ends.append(self._effect.positions())
        return tuple(index for index in self._effect.without(before, *ends) if index in suspects)

    def _refine(self, curve: Curve) -> Refined:
        # Short trainings at a few learning rates about the curve's own suggestion.
        steps = probe_steps(self.options.total_steps or 0, self.options.refine_budget)
        self.progress.expect(self.progress.steps + MOST_PROBES * steps)
        held_out, measure = self._hold_out(steps)
        # Without held-out data a training that begins its loader again is scored on what it was trained on.
        reused_batches = measure is not None and self._validate is None and held_out < FEWEST_HELD_OUT
        self._start_again()
        start = self._score(measure, curve.losses[:FIRST_LOSSES])

        def probe(index: int, lr: float) -> ShortTraining:
            nonlocal reused_batches
            self.progress.phase(f"refine {index + 1}/{MOST_PROBES}")
            self._start_again()
            with closing(Remaining(self.batches, held_out, [self._device]) if held_out else self.batches) as batches:
                losses = self._train_short(batches, lr, steps)
                reused_batches |= measure is None and batches.epochs > 0
            if losses is None:
                return ShortTraining(math.inf, np.empty(0))
            return ShortTraining(self._score(measure, losses), losses)

        return refine(
            probe, start, curve, self._known(), steps, reused_batches=lambda: self.ranks.mean(float(reused_batches)) > 0
        )

    def _train_short(self, batches: Batches, lr: float, steps: int) -> Floats | None:
        return train_short(
            self._step,
            batches,
            self.setup.optimizer,
            self._lrs.group_lrs(lr),
            self.options.schedule,
            steps,
            self._device,
            after_step=self._count,
            ranks=self.ranks,
        )

    def _hold_out(self, steps: int) -> tuple[int, Callable[[], Tensor] | None]:
        """Choose how to score the short trainings.

        Returns:
            How many batches of each epoch they leave out, and what measures the loss: on the user's validation
            batches, else on those left out, or None where only the step knows the loss.
        """
        batch_loss = self.setup.batch_loss
        if self._validate is not None or batch_loss is None:
            return 0, self._validate
        taken, wanted = steps * self._step.accumulation_steps, self.options.val_batches
        self._start_again()
        length = self.ranks.minimum(epoch_length(self.batches, taken + wanted))
        count = held_out_count(length, taken, wanted)
        self._start_again()
        return count, self._validation(batch_loss, self.batches.take_first(count or wanted))

    def _make_validation(self) -> Validation | None:
        if self.options.val_loader is None or self.setup.batch_loss is None:
            return None
        batches = Batches(self.options.val_loader, name="val_loader")
        taken = batches.take_first(self.options.val_batches)
        self._val_iterator = batches.held_iterator
        self.snapshot.rewind()  # reading it drew random numbers: the training batches are those of a find without it
        return self._validation(self.setup.batch_loss, taken)

    def _check_validation(self) -> None:
        # Refining needs a validation loss after the sweep: find out before it whether there is one.
        if self._validate is not None:
            self._validate.check()
        elif self.options.refine and self.setup.batch_loss is not None:
            self._validation(self.setup.batch_loss, self.batches.take_first(1)).check()
        else:
            return
        self._start_again()

    def _validation(self, batch_loss: BatchLoss, batches: list[Any]) -> Validation:
        shared = self.ranks.minimum(len(batches))  # ranks may have different numbers of batches, and meet at each
        return Validation(batch_loss, batches[:shared], self.ranks, mode=self.options.val_mode)

    def _score(self, measure: Callable[[], Tensor] | None, losses: Floats) -> float:
        if measure is not None:
            return self.ranks.mean(float(measure()))
        last = max(math.floor(LAST_SHARE * len(losses)), 1)
        return self.ranks.mean(float(np.mean(losses[-last:])) if len(losses) else math.inf)

    def _start_again(self) -> None:
        self.snapshot.rewind()
        self.batches.restart()

    def _count(self, _: int) -> None:
        self.progress.advance()
        if not self._verified:
            # Found out now, a write to a frozen tensor that was not copied has changed it by one step at most.
            self.snapshot.verify()
            self._verified = True


def _context(optimizer: Any, options: FindOptions) -> Context:
    return Context(
        optimizer=type(unwrap_optimizer(optimizer)).__name__,
        momentum=group_momentum(optimizer.param_groups[largest_group(optimizer)]),
        total_steps=options.total_steps,
        schedule=options.schedule,
        end_lr=options.end_lr,
        val=options.val_loader is not None,
    )


def _between(start: float | None, end: float | None, scouted: tuple[float, float]) -> tuple[float, float]:
    # The end that the user gave is kept; the other one is the scout's, as long as they make a range.
    if start is not None:
        return start, max(scouted[1], start * 10)
    if end is not None:
        return min(scouted[0], end / 10), end
    return scouted
