"""A range test as torch-lr-finder and MONAI run it: their grid of learning rates, their stop rule, on our engine."""

import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from lrfinder.curve import Context, Curve, StopReason, Sweep, curve_warnings, smooth
from lrfinder.display import Progress, versions
from lrfinder.distributed import ALONE
from lrfinder.errors import ArgumentError
from lrfinder.optim import set_group_lrs, unwrap_optimizer
from lrfinder.result import RangeTestResult
from lrfinder.snapshot import Snapshot
from lrfinder.training import (
    Batches,
    BatchLoss,
    LossQueue,
    TrainingStep,
    clone,
    forbid_other_optimizers,
    move,
    run_sweep,
    shut_down,
)

__all__ = ["PairLoader", "RangeTest", "ThresholdSweep", "lr_table"]


def lr_table(
    optimizer: Optimizer, start_lr: float | None, end_lr: float, num_iter: int, step_mode: str
) -> list[list[float]]:
    r"""Return the learning rate of every group at every step, with the rounding of torch-lr-finder's schedulers.

    $$ \eta_i = \eta_0 (\eta_\text{end} / \eta_0)^{r_i}, \qquad r_i = i / (n - 1) $$

    or, with linear steps, $\eta_i = \eta_0 + r_i (\eta_\text{end} - \eta_0)$. All groups end at the same learning rate.

    Args:
        optimizer: The optimizer.
        start_lr: The first learning rate of all groups; by default each group's own.
        end_lr: The last learning rate.
        num_iter: The number of steps n, at least 2.
        step_mode: `"exp"` or `"linear"`.

    Returns:
        One list per step with one learning rate per group.

    Raises:
        ArgumentError: An argument breaks a rule.

    Example:
        >>> optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1e-2)
        >>> lr_table(optimizer, None, 1.0, 3, "exp")
        [[0.01], [0.1], [1.0]]
    """
    if step_mode.lower() not in {"exp", "linear"}:
        raise ArgumentError(f"step_mode: expected one of (exp, linear), got {step_mode!r}.")
    if num_iter <= 1:
        raise ArgumentError(f"`num_iter` must be larger than 1, got {num_iter}; 100 is usual.")
    bases = [float(start_lr or group["lr"]) for group in optimizer.param_groups]
    if not 0 < bases[0] < end_lr:
        raise ArgumentError(
            f"`end_lr` must be larger than the first learning rate, which must be positive; got end_lr={end_lr} and a "
            f"test that begins at {bases[0]}. Pass start_lr and end_lr, for example 1e-6 and 10."
        )
    shares = [step / (num_iter - 1) for step in range(num_iter)]
    if step_mode.lower() == "exp":
        return [[base * (end_lr / base) ** share for base in bases] for share in shares]
    return [[base + share * (end_lr - base) for base in bases] for share in shares]


class ThresholdSweep(Sweep):
    """A sweep that stops where a running mean of the loss exceeds a multiple of its lowest value.

    Args:
        lrs: The learning rates of the first parameter group, shape (num_iter,).
        history: Its lists `"lr"` and `"loss"` are appended to.
        smooth_f: The weight of a new loss in the running mean; 0 for no mean.
        diverge_th: The multiple.

    Attributes:
        best: The lowest running mean, None before the first loss.
        diverged: Whether the threshold was exceeded.

    Example:
        >>> sweep = ThresholdSweep([0.1, 0.2, 0.3], {"lr": [], "loss": []}, smooth_f=0.0, diverge_th=5)
        >>> sweep.ask(), sweep.tell(1.0), sweep.ask(), sweep.tell(6.0), sweep.ask()
        (0.1, True, 0.2, True, None)
    """

    def __init__(
        self, lrs: Sequence[float], history: dict[str, list[float]], smooth_f: float, diverge_th: float
    ) -> None:
        super().__init__(lrs, stop_rule=None)
        self.best: float | None = None
        self.diverged = False
        self._history = history
        self._smooth_f = smooth_f
        self._diverge_th = diverge_th

    def ask(self) -> float | None:
        """Return the learning rate for the next step, or None at the end."""
        return None if self.diverged else super().ask()

    def tell(self, loss: float) -> bool:
        """Take the loss of the oldest step that was not told yet.

        Args:
            loss: The loss measured there.

        Returns:
            Whether it became a point of the curve.
        """
        if not super().tell(loss) or self.diverged:  # an accelerator's losses arrive a few steps late
            return False
        losses = self._history["loss"]
        if losses and self._smooth_f > 0:
            loss = self._smooth_f * loss + (1 - self._smooth_f) * losses[-1]
        self.best = loss if self.best is None else min(loss, self.best)
        self._history["lr"].append(self.point(len(losses))[0])
        losses.append(loss)
        self.diverged = loss > self._diverge_th * self.best
        return True

    def curve(self) -> Curve:
        """Return the points as they were measured, without those that came after the stop."""
        count = len(self._history["loss"])
        lrs, losses = self.lrs[:count], self.losses[:count]
        return Curve(
            lrs=lrs,
            losses=losses,
            smoothed=smooth(losses, "gaussian"),
            indices=self.indices[:count],
            stop_reason=StopReason.DIVERGED if self.diverged else self.stop_reason,
            stop_lr=float(lrs[-1]) if self.diverged else self.stop_lr,
        )


@dataclass(frozen=True)
class PairLoader:
    """A loader of the user, and how to iterate over it.

    Args:
        loader: A `DataLoader`, which is restored, or an iterator over pairs, which is consumed.
        make: Makes an iterator over pairs of a loader.
    """

    loader: Any
    make: Callable[[Any], Any]


@dataclass(kw_only=True)
class RangeTest:
    """One range test: trains, measures, restores.

    Args:
        model: The model, where the test runs.
        optimizer: The optimizer.
        loss: `loss(inputs, labels)`: forward pass and criterion.
        extra_modules: Modules that are captured beside the model, such as the criterion.
        lrs: What `lr_table` returned.
        sweep: Takes the losses.
        train: The training data.
        val: The data of the validation loss, or None.
        accumulation_steps: Micro-batches per step.
        autocast: Keyword arguments for `torch.autocast`, or None.
        grad_scaler: The gradient scaler, or None.
        total_steps: The length of the training that the suggestion is for.
        schedule: The schedule that the suggestion is for.
        progress: Show a progress bar.
    """

    model: nn.Module
    optimizer: Optimizer
    loss: Callable[[Any, Any], Tensor]
    extra_modules: Sequence[nn.Module]
    lrs: list[list[float]]
    sweep: ThresholdSweep
    train: PairLoader
    val: PairLoader | None = None
    accumulation_steps: int = 1
    autocast: dict[str, Any] | None = None
    grad_scaler: Any = None
    total_steps: int | None = None
    schedule: str = "one_cycle"
    progress: bool = True

    def run(self) -> RangeTestResult:
        """Run the test and restore everything.

        Returns:
            The result over the raw losses.

        Raises:
            ArgumentError: Several processes run this.
        """
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            raise ArgumentError(
                f"range_test works in one process, got a process group of {dist.get_world_size()}; use "
                "lrfinder.LRFinder(...).find(loader), which works in all of them."
            )
        begin = perf_counter()
        device = next(self.model.parameters()).device
        loaders = [pairs.loader for pairs in (self.train, self.val) if pairs is not None]
        with ExitStack() as stack:
            bar = stack.enter_context(Progress(enabled=self.progress, total=len(self.lrs)))
            snapshot = stack.enter_context(
                Snapshot(
                    [self.model, *self.extra_modules],
                    [self.optimizer],
                    grad_scaler=self.grad_scaler,
                    loaders=loaders,
                    devices=[device],
                )
            )
            stack.enter_context(forbid_other_optimizers(snapshot.optimizers))
            batches = Batches(self._iterate(stack, self.train))
            validate = None if self.val is None else self._validation(self._iterate(stack, self.val), device)
            self.model.train()
            run_sweep(
                self.sweep,
                _GroupRates(self.optimizer, self.lrs).write,
                self._step(device),
                batches,
                queue=LossQueue(len(self.lrs), device),
                ranks=ALONE,
                validate=validate,
                after_step=lambda _: bar.advance(),
            )
        return self._result(batches.batch_size, bar.steps, perf_counter() - begin)

    @staticmethod
    def _iterate(stack: ExitStack, pairs: PairLoader) -> Any:
        if hasattr(pairs.loader, "__next__"):
            return pairs.loader
        twin = clone(pairs.loader)
        iterator = pairs.make(twin)
        stack.callback(lambda: shut_down(twin, iterator._iterator))
        return iterator

    def _step(self, device: torch.device) -> TrainingStep:
        return TrainingStep(
            BatchLoss(self.model, None, lambda _, pair: self.loss(*pair), device, self.autocast),
            self.optimizer,
            grad_scaler=self.grad_scaler,
            accumulation_steps=self.accumulation_steps,
        )

    def _validation(self, pairs: Any, device: torch.device) -> Callable[[], Tensor]:
        def validate() -> Tensor:
            """Return the mean loss over all samples, in eval mode."""
            total = 0.0
            self.model.eval()
            with torch.no_grad():
                for inputs, labels in pairs:
                    inputs, labels = move((inputs, labels), device)
                    total += self.loss(inputs, labels).item() * len(labels)
            self.model.train()
            return torch.tensor(total / len(pairs.dataset), dtype=torch.float64)

        return validate

    def _result(self, batch_size: int | None, steps: int, seconds: float) -> RangeTestResult:
        optimizer = unwrap_optimizer(self.optimizer)
        group = optimizer.param_groups[0]
        context = Context(
            optimizer=type(optimizer).__name__,
            momentum=float(group.get("momentum", group.get("betas", (0.0,))[0])),
            total_steps=self.total_steps,
            schedule=self.schedule,
            val=self.val is not None,
            batch_size=batch_size,
        )
        curve, first = self.sweep.curve(), self.lrs[0]
        return RangeTestResult(
            curve=curve,
            context=context,
            group_ratios=tuple(lr / first[0] for lr in first),
            steps=steps,
            seconds=seconds,
            warnings=tuple(curve_warnings(curve, context)),
            meta={
                "optimizer": context.optimizer,
                "batch_size": batch_size,
                "accumulation_steps": self.accumulation_steps,
                "world_size": 1,
                "total_steps": self.total_steps,
                "versions": versions(),
            },
            optimizer=weakref.ref(self.optimizer),
        )


class _GroupRates:
    """Writes a row of the table to the optimizer's groups."""

    def __init__(self, optimizer: Optimizer, lrs: list[list[float]]) -> None:
        self._optimizer = optimizer
        self._rows = {row[0]: row for row in lrs}

    def write(self, lr: float) -> None:
        set_group_lrs(self._optimizer, self._rows[lr])
