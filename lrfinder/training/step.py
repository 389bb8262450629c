"""One optimizer step on one or several micro-batches, which returns the loss, still on its device."""

from collections.abc import Callable, Sequence
from functools import partial
from numbers import Real
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lrfinder.distributed import ALONE, Ranks
from lrfinder.errors import ArgumentError
from lrfinder.optim import asks_for_closure, has_two_passes, needs_closure
from lrfinder.training.grad_norm import full_norm, total_grad_norm
from lrfinder.training.loss import BatchLoss, SkippedBatchError, scalar_loss
from lrfinder.training.moving import move

__all__ = ["Step", "TrainingStep", "UserStep"]


class Step(Protocol):
    """What takes an optimizer step.

    Attributes:
        accumulation_steps: How many micro-batches a step takes.
        skipped: Whether the last call left the parameters as they were, as when a GradScaler finds an overflow.
        record_grad_norm: Set to True to have `grad_norm`; a step that cannot know it leaves this None.
        grad_norm: The norm of the last call's gradients before clipping, if it is recorded.
    """

    accumulation_steps: int
    skipped: bool
    record_grad_norm: bool | None
    grad_norm: Tensor | None

    def __call__(self, micro_batches: Sequence[Any]) -> Tensor:
        """Take one optimizer step on these micro-batches and return their mean loss, detached."""


class TrainingStep:
    """Forward, backward, clipping and the optimizer's step over one or several micro-batches.

    An integration overrides `forward_backward`, `clip_or_measure` or `update` where its framework has a way of its own.

    Args:
        batch_loss: How a batch becomes a loss.
        optimizer: The optimizer whose learning rate is swept.
        grad_scaler: A `GradScaler`, used as in torch's examples.
        accumulation_steps: Micro-batches per step; the loss is their mean, and so is the gradient.
        max_grad_norm: The gradients' norm is clipped to this, once a step and after unscaling.
        backward: Called with each micro-batch's loss in place of `loss.backward()`. It divides by
            `accumulation_steps` itself; with a `grad_scaler` it receives the scaled loss.
        closure: Whether the optimizer's `step` gets a closure; None for where it needs one.
        ranks: The ranks that take the same step: none begins its backward pass before all have a loss.

    Attributes:
        skipped: Whether the scaler kept the last call from stepping.
        batch_loss: As given.
        accumulation_steps: As given.
        max_grad_norm: As given.
        ranks: As given.
        clip_grad_norm: `clip_grad_norm(parameters, max_norm)` clips the gradients and returns their norm.
        record_grad_norm: Whether `grad_norm` is wanted.
        grad_norm: The norm of the last call's gradients, unscaled and before clipping; with a closure, of its first
            call.
    """

    def __init__(
        self,
        batch_loss: BatchLoss,
        optimizer: Optimizer,
        *,
        grad_scaler: torch.amp.GradScaler | None = None,
        accumulation_steps: int = 1,
        max_grad_norm: float | None = None,
        backward: Callable[[Tensor], Any] | None = None,
        closure: bool | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.skipped = False
        self.record_grad_norm: bool | None = False
        self.grad_norm: Tensor | None = None
        self.accumulation_steps = accumulation_steps
        self.ranks = ranks
        self.batch_loss = batch_loss
        self._move = partial(move, device=batch_loss.device)
        self._optimizer = optimizer
        self._scaler = grad_scaler
        self.max_grad_norm = max_grad_norm
        self._backward = backward
        # Held from the start: after a fault in the middle of a step FSDP2 would enumerate other parameters.
        self._parameters = [p for p in batch_loss.model.parameters() if p.requires_grad]
        required, two_passes = needs_closure(optimizer), has_two_passes(optimizer)
        self._closure = required or two_passes if closure is None else closure
        self._gradients_first = two_passes or not required  # LBFGS computes all of them by the closure
        self.clip_grad_norm: Callable[..., Any] = nn.utils.clip_grad_norm_

    def __call__(self, micro_batches: Sequence[Any]) -> Tensor:
        """Take one optimizer step.

        Args:
            micro_batches: As many batches as `accumulation_steps` says.

        Returns:
            The mean loss before the step, detached; of several evaluations, the first one's.

        Raises:
            SkippedBatchError: None of the micro-batches has a loss; no step was taken.
        """  # noqa: DOC502 - raised by _accumulate
        batches = list(map(self._move, micro_batches))
        if self._closure:
            return self._step_with_closure(batches)
        self._optimizer.zero_grad()
        loss = self._accumulate(batches)
        self.update()
        return loss

    def _accumulate(self, batches: Sequence[Any]) -> Tensor:
        count = len(batches)
        if count == 1:
            return self.forward_backward(batches[0], 1, last=True)
        shares = []
        for index, batch in enumerate(batches):
            try:
                shares.append(self.forward_backward(batch, count, last=index == count - 1))
            except SkippedBatchError:  # noqa: PERF203
                if self.ranks.is_distributed or (index == count - 1 and not shares):
                    raise
        total = sum(shares[1:], shares[0])
        return total if len(shares) == count else total * (count / len(shares))

    def forward_backward(self, batch: Any, count: int, *, last: bool) -> Tensor:  # noqa: ARG002 - for integrations
        """Add the gradients of one micro-batch.

        Args:
            batch: The micro-batch.
            count: How many there are in this step.
            last: Whether it is the last one; before that, a framework may keep the gradients to its rank.

        Returns:
            Its share of the step's loss, detached.

        Raises:
            ArgumentError: The loss has no gradient.
            SkippedBatchError: There is no loss.
        """  # noqa: DOC502 - raised by batch_loss
        loss = self.batch_loss(batch)
        if not loss.requires_grad:
            raise ArgumentError(
                "The loss must depend on trainable parameters, got a loss without a gradient; "
                "it was detached, computed under torch.no_grad(), or turned into a number on the way."
            )
        share = loss.detach()
        if count > 1:
            share = share / count
        elif loss.is_leaf or loss._is_view():
            share = share.clone()  # of a parameter, say, which the step will change
        self.ranks.before_backward()
        if count > 1 and self._backward is None:
            loss = loss / count
        if self._scaler is not None:
            loss = self._scaler.scale(loss)
        if self._backward is None:
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        else:
            self._backward(loss)
        self.ranks.after_backward()
        return share

    def update(self) -> None:
        """Clip the gradients and take the optimizer's step."""
        if self._scaler is None:
            self.clip_or_measure()
            self._step_without_closure()
        else:
            self._step_scaled(self._scaler)

    def clip_or_measure(self, scale: float = 1.0) -> None:
        """Clip the gradients if that is asked for, and record their norm if it is wanted.

        Args:
            scale: What the gradients are multiplied by, where they are not clipped.
        """
        if self.max_grad_norm is not None:
            norm = self._clip(self.max_grad_norm)
        elif self.record_grad_norm:
            norm = total_grad_norm(self._parameters) / scale
        else:
            return
        self.grad_norm = full_norm(norm) if self.record_grad_norm else None

    def _step_without_closure(self) -> None:
        try:
            self._optimizer.step()
        except Exception as error:
            remedy = _remedy(error)
            if not remedy:
                raise
            raise ArgumentError(
                f"LRFinder(optimizer=...) must step after loss.backward(), {type(self._optimizer).__name__} does not "
                f"({type(error).__name__}: {error}); {remedy}, or take the step yourself with step=... in place of a "
                "criterion."
            ) from error

    def _clip(self, max_norm: float) -> Any:
        if any(p.grad is not None and p.grad.is_sparse for p in self._parameters):
            raise ArgumentError(
                f"LRFinder(max_grad_norm={max_norm}) cannot clip sparse gradients, which torch has no norm "
                "for; use Embedding(sparse=False), or leave max_grad_norm out."
            )
        return self.clip_grad_norm(self._parameters, max_norm)

    def _step_scaled(self, scaler: torch.amp.GradScaler) -> None:
        if self.max_grad_norm is not None:
            scaler.unscale_(self._optimizer)
        # Reads the scale from the device, as the scaler itself reads whether a gradient overflowed.
        before = scaler.get_scale()
        self.clip_or_measure(before)
        scaler.step(self._optimizer)
        scaler.update()
        self.skipped = self.ranks.any_skipped(scaler.get_scale() < before)

    def _step_with_closure(self, batches: Sequence[Any]) -> Tensor:
        losses: list[Tensor] = []
        norms: list[Tensor | None] = []

        @torch.enable_grad()
        def closure() -> Tensor:
            self._optimizer.zero_grad()
            loss = self._accumulate(batches)
            self.clip_or_measure()
            losses.append(loss)
            norms.append(self.grad_norm)
            return loss

        if self._gradients_first:
            closure()
        self._optimizer.step(closure)  # type: ignore[arg-type]  # typed for float closures, used with tensors
        self.grad_norm = norms[0]
        return losses[0]


def _remedy(error: Exception) -> str:
    """Return what to do about an error that an optimizer's `step()` has raised, "" where it is not known."""
    if asks_for_closure(error):
        return "pass closure=True"
    if "does not require grad" in str(error):  # torch's message where a graph is missing
        return "if it needs the graph of the gradients, pass backward=lambda loss: loss.backward(create_graph=True)"
    if isinstance(error, NotImplementedError):  # LOMO steps within the backward pass
        return "use the method that it has for a step"
    return ""


class UserStep:
    """The user's own forward pass, backward pass and optimizer step.

    Args:
        step: `step(batch) -> loss`; the loss may be detached, or a number.
        device: Where the batch is moved before the call.

    Attributes:
        skipped: Always False: what the user's own scaler does is not seen.
        accumulation_steps: Always 1: the user's step accumulates by itself.
        record_grad_norm: Always None: the gradients are not seen.
        grad_norm: Always None.
    """

    def __init__(self, step: Callable[[Any], Any], device: torch.device) -> None:
        self.skipped = False
        self.record_grad_norm: bool | None = None
        self.grad_norm: Tensor | None = None
        self.accumulation_steps = 1
        self._step = step
        self._device = device

    def __call__(self, micro_batches: Sequence[Any]) -> Tensor:
        """Let the user's step train on one batch.

        Args:
            micro_batches: One batch.

        Returns:
            The loss that it returned, detached.
        """
        loss = self._step(move(micro_batches[0], self._device))
        if not isinstance(loss, bool) and isinstance(loss, Real):
            return torch.tensor(float(loss), dtype=torch.float64)
        return scalar_loss(loss, "step(batch)").detach()
