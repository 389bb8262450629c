"""The training loop: optimizer steps, one after the other, for a sweep or for a short training."""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple, TypeAlias

from torch import Tensor

from lrfinder.curve import Sweep
from lrfinder.distributed import DataEnded, Ranks
from lrfinder.training.batches import Batches
from lrfinder.training.loss import SkippedBatchError
from lrfinder.training.loss_queue import LossQueue
from lrfinder.training.step import Step

__all__ = ["MAX_RETRIES", "Ending", "OnPoint", "run_steps", "run_sweep"]

MAX_RETRIES = 40  # steps that a GradScaler may skip before the first point, while it finds its scale
MAX_SKIPPED = 1000  # batches in a row that may have no loss

OnPoint: TypeAlias = Callable[[int, float, float], None]


class Ending(NamedTuple):
    """How a run of steps ended.

    Args:
        data_ended: Whether the data ended before the run did.
        error: What the training code raised on a value that was not finite, before the host had read that loss.
    """

    data_ended: bool = False
    error: Exception | None = None


class _Losses:
    """Reads losses from the queue, passes them on, and remembers whether all of them were finite."""

    def __init__(self, queue: LossQueue, tell: Callable[[Sequence[float | None]], None], ranks: Ranks) -> None:
        self._queue = queue
        self._tell = tell
        self._ranks = ranks
        self.all_finite = True

    def put(self, loss: Tensor | None) -> None:
        self._pass_on(self._ranks.means(self._queue.put(loss)))

    def drain(self) -> None:
        self._pass_on(self._ranks.means(self._queue.drain(), last=True))

    def _pass_on(self, losses: Sequence[float | None]) -> None:
        self.all_finite &= all(loss is None or math.isfinite(loss) for loss in losses)
        self._tell(losses)


class _Stepper:
    """Takes steps and validates. It knows whether the user's code is running: only that code can have met a NaN."""

    def __init__(self, step: Step, batches: Batches, ranks: Ranks, after_step: Callable[[int], None]) -> None:
        self._step = step
        self._batches = batches
        self._ranks = ranks
        self._after_step = after_step
        self._steps = self._retries = 0
        self.running = False

    def take(self, set_lr: Callable[[], object]) -> Tensor | None:
        """Take one step, again while a GradScaler finds its first scale.

        Returns:
            The loss, None for a step that the scaler skipped.
        """
        while True:
            loss = self._step_on_next_batch(set_lr)
            self._steps += 1
            self._after_step(self._steps)
            if not self._step.skipped:
                return loss
            if self._steps > self._retries + 1 or self._retries == MAX_RETRIES:
                return None
            self._retries += 1

    def _step_on_next_batch(self, set_lr: Callable[[], object]) -> Tensor:
        """Return the loss of a step on the next batch that has one.

        Raises:
            DataEnded: There are no more data.
            SkippedBatchError: Batch after batch has none, or one of several ranks has none.
        """
        skipped = 0
        while True:
            micro_batches = self._batches.take(self._step.accumulation_steps)
            if self._ranks.any_ended(micro_batches is None) or micro_batches is None:
                raise DataEnded
            if not skipped:
                set_lr()
            try:
                return self.call(self._step, micro_batches)
            except SkippedBatchError:
                skipped += 1
                if self._ranks.is_distributed or skipped == MAX_SKIPPED:
                    raise

    def call(self, function: Callable[..., Tensor], *arguments: object) -> Tensor:
        self.running = True
        result = function(*arguments)
        self.running = False
        return result


def run_steps(
    set_lrs: Iterable[Callable[[], object]],
    step: Step,
    batches: Batches,
    tell: Callable[[Sequence[float | None]], None],
    *,
    queue: LossQueue,
    ranks: Ranks,
    validate: Callable[[], Tensor] | None = None,
    after_step: Callable[[int], None] | None = None,
    after_loss: Callable[[], None] | None = None,
    report: Callable[[], None] | None = None,
) -> Ending:
    """Take one optimizer step for each item of `set_lrs`.

    Losses are told a few steps late, as `queue` reads them. Steps that a GradScaler skips before the first loss, while
    it finds its scale, are taken again.

    Args:
        set_lrs: For each step, what sets its learning rates; called right before the step.
        step: Takes one optimizer step.
        batches: Where the training data comes from.
        tell: Called with the losses that the host has read, in order; None stands for a skipped step.
        queue: Carries the losses from the device to the host.
        ranks: The ranks that run the same steps: losses are means over them, and the data ends for all at once.
        validate: Measures the loss after the step, in place of the training loss before it.
        after_step: Called with the number of steps done, after each.
        after_loss: Called after each step that is not taken again, before its loss is told.
        report: Called after each `tell`, but not after an exception.

    Returns:
        How the run ended.

    Raises:
        Exception: What the user's code raised, unchanged; losses measured so far have been told.
    """  # noqa: DOC502 - raised by the user's code
    losses = _Losses(queue, tell, ranks)
    stepper = _Stepper(step, batches, ranks, after_step or (lambda _: None))
    after_loss, report = after_loss or (lambda: None), report or (lambda: None)
    data_ended = False
    try:
        for set_lr in set_lrs:
            loss = stepper.take(set_lr)
            after_loss()
            if validate is not None and loss is not None:
                loss = stepper.call(validate)
            losses.put(loss)
            report()
    except DataEnded:
        data_ended = True
    except BaseException as error:
        if ranks.is_distributed:
            raise  # the unread losses of one rank are no means
        with suppress(RuntimeError):  # a broken device has none to give
            losses.drain()
        if stepper.running and isinstance(error, Exception) and not losses.all_finite:
            return Ending(error=error)
        raise
    losses.drain()
    report()
    return Ending(data_ended=data_ended)


def run_sweep(
    sweep: Sweep,
    write_lr: Callable[[float], object],
    step: Step,
    batches: Batches,
    *,
    queue: LossQueue,
    ranks: Ranks,
    validate: Callable[[], Tensor] | None = None,
    after_step: Callable[[int], None] | None = None,
    after_loss: Callable[[], None] | None = None,
    on_point: OnPoint | None = None,
) -> Exception | None:
    """Train one step at each learning rate that `sweep` asks for, until it stops.

    Args:
        sweep: Gives the learning rates and is told the losses. What ran past its stop is cut.
        write_lr: Writes a learning rate to the optimizer's groups.
        step: As for `run_steps`.
        batches: As for `run_steps`.
        queue: As for `run_steps`.
        ranks: As for `run_steps`.
        validate: As for `run_steps`.
        after_step: As for `run_steps`.
        after_loss: As for `run_steps`.
        on_point: Called with index, learning rate and loss of each point that is kept, in order.

    Returns:
        None, or what the training code raised on a loss that was not finite: then the sweep has ended NONFINITE.
    """

    def tell(losses: Sequence[float | None]) -> None:
        for loss in losses:
            if loss is None:
                sweep.skip()
            else:
                sweep.tell(loss)

    points = 0

    def report() -> None:
        nonlocal points
        while on_point is not None and points < sweep.num_points:
            points += 1  # before the call: the user's code may raise
            on_point(points - 1, *sweep.point(points - 1))

    ending = run_steps(
        (partial(write_lr, lr) for lr in iter(sweep.ask, None)),
        step,
        batches,
        tell,
        queue=queue,
        ranks=ranks,
        validate=validate,
        after_step=after_step,
        after_loss=after_loss,
        report=report,
    )
    if ending.data_ended:
        sweep.exhaust()
    return ending.error
