"""The plain training loop that pulls a sweep from its first rate to its stop."""

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from torch import Tensor

from lrfinder.curve import StopReason, Sweep
from lrfinder.distributed import DataEnded, Ranks
from lrfinder.training.batches import Batches
from lrfinder.training.loss_queue import LossQueue
from lrfinder.training.step import Step

__all__ = ["MAX_RETRIES", "OnPoint", "run_sweep"]

MAX_RETRIES = 40
"""Steps that a GradScaler may skip before the first point, while it finds its scale: each halves the scale."""

OnPoint = Callable[[int, float, float], None]


class _Rates(Protocol):
    def write(self, lr: float) -> None: ...


def run_sweep(
    sweep: Sweep,
    step: Step,
    batches: Batches,
    rates: _Rates,
    recorder: LossQueue,
    *,
    validate: Callable[[], Tensor] | None = None,
    after_step: Callable[[int], None] | None = None,
    on_point: OnPoint | None = None,
    ranks: Ranks | None = None,
) -> Exception | None:
    """Train one step at each rate that `sweep` asks for, until it stops.

    Losses are told to the sweep a few steps late, as `recorder` reads them. What ran past the stop is cut.

    Args:
        sweep: Gives the rates and is told the losses.
        step: Takes one optimizer step.
        batches: Where the training data comes from.
        rates: Writes a rate to the optimizer's groups.
        recorder: Carries the losses from the device to the host.
        validate: Measures the loss after the step, in place of the training loss before it.
        after_step: Called with the number of steps done, after each.
        on_point: Called with index, rate and loss of each kept point, in order.
        ranks: Those that run the same sweep: the losses are means over them, and the data ends for all at once.

    Returns:
        None, or what the training code raised on a value that was not finite and that the host had not read yet:
        then the sweep has ended NONFINITE.

    Raises:
        Exception: Whatever the user's code raised otherwise, unchanged; losses measured so far have been told.
    """  # noqa: DOC502 - raised by the user's code
    teller = _Teller(sweep, on_point, ranks)
    try:
        _pull(sweep, step, batches, rates, recorder, teller, validate, after_step, ranks)
    except BaseException as error:
        if ranks is not None:
            raise  # one rank's unread losses are no means
        teller.on_point = None  # whoever raised is not called again while the losses that stand are collected
        with suppress(RuntimeError):  # a broken device has none to give
            teller.tell(recorder.drain())
        if teller.training and isinstance(error, Exception) and sweep.stop_reason is StopReason.NONFINITE:
            return error
        raise
    teller.tell(recorder.drain(), last=True)
    return None


def _pull(
    sweep: Sweep,
    step: Step,
    batches: Batches,
    rates: _Rates,
    recorder: LossQueue,
    teller: "_Teller",
    validate: Callable[[], Tensor] | None,
    after_step: Callable[[int], None] | None,
    ranks: Ranks | None,
) -> None:
    steps = retries = 0
    while (lr := sweep.ask()) is not None:
        micro_batches = batches.take(step.accumulation_steps)
        if ranks is not None and ranks.any_ended(micro_batches is None):
            micro_batches = None
        if micro_batches is None:
            sweep.exhaust()
            return
        rates.write(lr)
        teller.training = True
        try:
            loss = step(micro_batches)
        except DataEnded:
            sweep.exhaust()
            return
        teller.training = False
        steps += 1
        if after_step is not None:
            after_step(steps)
        if step.skipped and steps == retries + 1 and retries < MAX_RETRIES:
            sweep.retry()
            retries += 1
            continue
        if validate is not None and not step.skipped:
            teller.training = True
            loss = validate()
            teller.training = False
        teller.tell(recorder.record(None if step.skipped else loss))


class _Teller:
    """Tells losses to a sweep, and kept points to the user."""

    def __init__(self, sweep: Sweep, on_point: OnPoint | None, ranks: Ranks | None) -> None:
        self._sweep = sweep
        self._ranks = ranks
        self._points = 0
        self.on_point = on_point
        self.training = False  # only code that trains can have met a value that is not finite

    def tell(self, losses: list[float | None], *, last: bool = False) -> None:
        if self._ranks is not None:
            losses = self._ranks.means(losses, last=last)
        for loss in losses:
            if loss is None:
                self._sweep.skip()
            else:
                self._sweep.tell(loss)
        if self.on_point is None:
            return
        while self._points < self._sweep.num_points:  # once all are told: the user's code may raise
            self._points += 1
            self.on_point(self._points - 1, *self._sweep.point(self._points - 1))
