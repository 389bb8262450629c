"""The phases of one find: the scout, the sweep, its repeats, refining. The setup is captured around them."""

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer

from lrfinder.curve import (
    MOST_PROBES,
    Context,
    Curve,
    Floats,
    Refined,
    ShortTraining,
    Sweep,
    grid,
    probe_steps,
    refine,
    scout_grid,
    scouted_range,
    smooth,
)
from lrfinder.display import Progress
from lrfinder.distributed import Ranks
from lrfinder.optim import LRWriter, group_lrs
from lrfinder.options import FindOptions
from lrfinder.snapshot import Snapshot
from lrfinder.training import (
    Batches,
    LossQueue,
    OnPoint,
    Remaining,
    Step,
    held_out_count,
    pass_length,
    run_sweep,
    train_short,
)

__all__ = ["Search"]

LAST_SHARE = 5
"""With a user's own step a short training is scored on the last fifth of its losses."""

FIRST_LOSSES = 5
"""... and compared with the first losses of the sweep, whose rates are too small to learn at."""

FEWEST_HELD_OUT = 2
"""Fewer held-out batches tell too little to train at a larger rate than the curve suggests."""

# Where nothing may be scouted: wide enough for every usual optimizer, and the sweep stops by itself.
_UNSCOUTED = (1e-7, 10.0)


@dataclass(kw_only=True)
class Search:
    """Runs the phases one after the other.

    Args:
        step: Takes one optimizer step.
        optimizer: The optimizer whose rate is searched.
        batches: Where the training data comes from.
        rates: Writes a rate to the optimizer's groups.
        device: Where the losses are.
        snapshot: The captured setup, rewound between phases.
        options: What was asked for.
        context: What is known of the training.
        progress: The bar, which counts the optimizer steps.
        validate: Measures the held-out loss after each step of the main sweep, or None.
        hold_out: Makes a measure of the held-out loss from batches; None where only the training step knows the loss.
        ranks: Those that run the same search, or None.

    Attributes:
        sweep: The sweep that runs, or ran last.
        noted: What the user's code raised on a loss that was not finite.
    """

    step: Step
    optimizer: Optimizer
    batches: Batches
    rates: LRWriter
    device: torch.device
    snapshot: Snapshot
    options: FindOptions
    context: Context
    progress: Progress
    validate: Callable[[], Tensor] | None = None
    hold_out: Callable[[list[Any]], Callable[[], Tensor]] | None = None
    ranks: Ranks | None = None
    sweep: Sweep | None = None
    noted: Exception | None = None
    _complete: list[Curve] = field(default_factory=list, init=False)
    _verified: bool = field(default=False, init=False)

    def run(self) -> list[Curve]:
        """Run all phases.

        Returns:
            The curve of each repeat; the setup is left as the last one left it.
        """
        options = self.options
        start, end = self._range()
        lrs = grid(start, end, options.num_iter, options.mode)
        self.progress.expect(self.progress.steps + options.repeats * options.num_iter)
        for repeat in range(options.repeats):
            if repeat:
                # The model starts again, the stream of batches goes on: other batches, another noise.
                self.snapshot.rewind(streams=False)
            self.progress.phase("sweep" if options.repeats == 1 else f"sweep {repeat + 1}/{options.repeats}")
            curve = self._sweep(lrs, validate=self.validate, on_point=None if repeat else options.on_step)
            self._complete.append(curve)
        return self._complete

    def refine(self, curve: Curve) -> Refined:
        """Try a few rates about the curve's own suggestion in short annealed trainings.

        Args:
            curve: What the sweep has measured.

        Returns:
            The probes and what they suggest.
        """
        steps = probe_steps(self.options.total_steps or 0)
        self.progress.expect(self.progress.steps + MOST_PROBES * steps)
        held_out, measure = self._hold_out(steps)
        # Without held-out data a training that begins its loader anew is scored on what it has seen.
        seen = measure is not None and self.validate is None and held_out < FEWEST_HELD_OUT
        self._start_anew()
        start = self._score(measure, curve.losses[:FIRST_LOSSES])

        def probe(index: int, lr: float) -> ShortTraining:
            nonlocal seen
            self.progress.phase(f"refine {index + 1}/{MOST_PROBES}")
            self._start_anew()
            with closing(Remaining(self.batches, held_out, [self.device]) if held_out else self.batches) as batches:
                losses = train_short(
                    self.step,
                    batches,
                    self.optimizer,
                    group_lrs(self.rates.ratios, lr),
                    self.options.schedule,
                    steps,
                    self.device,
                    after_step=self._count,
                    ranks=self.ranks,
                )
                seen |= measure is None and batches.epochs > 0
            if losses is None:
                return ShortTraining(math.inf, np.empty(0))
            return ShortTraining(self._score(measure, losses), losses)

        return refine(probe, start, curve, self.context, steps, seen=lambda: self._anywhere(seen))

    def _anywhere(self, here: bool) -> bool:  # noqa: FBT001 - a condition
        return here if self.ranks is None else (self.ranks.means([float(here)], last=True)[0] or 0.0) > 0

    def _hold_out(self, steps: int) -> tuple[int, Callable[[], Tensor] | None]:
        """Return how many batches of each pass the probes leave out, and the loss that scores them.

        That is measured on the user's own batches, else on those left out; by None where only a step knows the loss.
        """
        if self.validate is not None or self.hold_out is None:
            return 0, self.validate
        taken, wanted = steps * self.step.accumulation_steps, self.options.val_batches
        self._start_anew()
        count = held_out_count(pass_length(self.batches, taken + wanted), taken, wanted)
        if self.ranks is not None:
            count = self.ranks.share(count)
        self._start_anew()
        return count, self.hold_out(self.batches.take_first(count or wanted))

    def _score(self, measure: Callable[[], Tensor] | None, losses: Floats) -> float:
        if measure is not None:
            score = float(measure())
        else:
            score = float(np.mean(losses[-max(len(losses) // LAST_SHARE, 1) :])) if len(losses) else math.inf
        return score if self.ranks is None else self.ranks.means([score], last=True)[0] or 0.0

    def _start_anew(self) -> None:
        self.snapshot.rewind()
        self.batches.restart()

    def _range(self) -> tuple[float, float]:
        start, end = self.options.start_lr, self.options.end_lr
        if start is not None and end is not None:
            return start, end
        if self.batches.one_shot and (start is not None or end is not None):
            start = start if start is not None else min(_UNSCOUTED[0], (end or 1.0) / 1e4)
            return start, end if end is not None else max(_UNSCOUTED[1], start * 1e4)
        self.progress.phase("scout")
        scouted = scouted_range(self._sweep(scout_grid(start, end)), self.context)
        self._start_anew()
        return _between(start, end, scouted)

    def _sweep(
        self, lrs: Floats, *, validate: Callable[[], Tensor] | None = None, on_point: OnPoint | None = None
    ) -> Curve:
        self.sweep = Sweep(lrs)
        recorder = LossQueue(len(lrs), self.device)
        self.noted = run_sweep(
            self.sweep,
            self.step,
            self.batches,
            self.rates,
            recorder,
            validate=validate,
            after_step=self._count,
            on_point=on_point,
            ranks=self.ranks,
        )
        return self._latest()

    def _count(self, _: int) -> None:
        self.progress.advance()
        if not self._verified:
            # Found out now, a write to a frozen tensor that was not copied has spoilt one step's worth at most.
            self.snapshot.verify()
            self._verified = True

    def curve(self) -> Curve:
        """Return what has been measured so far.

        Returns:
            The mean of the repeats that are complete, else what the latest sweep has; without points if there was none.
        """
        return self.mean(self._complete) if self._complete else self._latest()

    def _latest(self) -> Curve:
        sweep = self.sweep if self.sweep is not None else Sweep(())
        return self._curve(sweep.lrs, sweep.losses, sweep.indices, sweep)

    def mean(self, curves: list[Curve]) -> Curve:
        """Return the mean of repeated sweeps over the points that all of them have.

        Args:
            curves: One curve or more, measured on the same grid.

        Returns:
            Their mean; why the shortest of them ended is why it ends.
        """
        if len(curves) == 1:
            return curves[0]
        shared = sorted(set.intersection(*(set(curve.indices.tolist()) for curve in curves)))
        losses = np.mean([curve.losses[np.isin(curve.indices, shared)] for curve in curves], axis=0)
        shortest = min(curves, key=lambda curve: int(curve.indices[-1]) if len(curve) else -1)
        lrs = shortest.lrs[np.isin(shortest.indices, shared)]
        return self._curve(lrs, losses, np.array(shared, dtype=np.intp), shortest)

    def _curve(self, lrs: Floats, losses: Floats, indices: NDArray[np.intp], stopped: Sweep | Curve) -> Curve:
        return Curve(
            lrs=lrs,
            losses=losses,
            smoothed=smooth(losses, self.options.smoothing),
            indices=indices,
            stop_reason=stopped.stop_reason,
            stop_lr=stopped.stop_lr,
        )


def _between(start: float | None, end: float | None, scouted: tuple[float, float]) -> tuple[float, float]:
    # The end that the user gave is kept; the other one is the scout's, as long as they make a range.
    if start is not None:
        return start, max(scouted[1], start * 10)
    if end is not None:
        return min(scouted[0], end / 10), end
    return scouted
