"""The loss on a fixed set of validation batches."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lrfinder.distributed import ALONE, Ranks
from lrfinder.errors import ArgumentError
from lrfinder.training.loss import BatchLoss, SkippedBatchError
from lrfinder.training.moving import move

__all__ = ["VAL_MODES", "Validation"]

VAL_MODES = ("eval", "train")


class Validation:
    """The mean loss on a fixed set of batches; the model is as before when it has been measured.

    Args:
        batch_loss: How a batch becomes a loss.
        batches: The batches; they are moved to the device once and kept there.
        ranks: The ranks that validate at the same time.
        mode: `"eval"` for eval mode without gradients; `"train"` for the mode that the model is in, with gradients, as
            needed by models that return no loss in eval mode and by losses that differentiate.

    Example:
        >>> validation = Validation(BatchLoss(nn.Linear(1, 1), nn.MSELoss()), [(torch.ones(2, 1), torch.ones(2, 1))])
        >>> validation().requires_grad
        False
    """

    def __init__(
        self, batch_loss: BatchLoss, batches: Sequence[Any], ranks: Ranks = ALONE, *, mode: str = "eval"
    ) -> None:
        self._batch_loss = batch_loss
        self._ranks = ranks
        self._mode = mode
        self._batches = [move(batch, batch_loss.device) for batch in batches]

    def __call__(self) -> Tensor:
        """Return the mean over the batches of the batches' losses, as a scalar on the device.

        Returns:
            The loss, detached.
        """
        model = self._batch_loss.model
        with _eval_mode(model) if self._mode == "eval" else _train_mode(model, self._batch_loss.device):
            return torch.stack(self._losses()).mean()

    def check(self) -> None:
        """Compute the loss of the first batch, to find out before a sweep whether that works.

        Raises:
            ArgumentError: It raised something; the message says in which mode, and the remedy.
        """
        first = Validation(self._batch_loss, self._batches[:1], self._ranks, mode=self._mode)
        try:
            first()
        except Exception as error:
            how = "in eval mode and under torch.no_grad()" if self._mode == "eval" else "in training mode"
            remedy = (
                "If the loss needs training mode (a model that returns predictions in eval mode) or gradients "
                '(torch.autograd.grad), pass val_mode="train"'
                if self._mode == "eval"
                else "Change loss_fn so that it works for a batch without an optimizer step"
            )
            raise ArgumentError(
                f"The validation loss is computed {how}, where it raised {type(error).__name__}: {error}. {remedy}; "
                "without val_loader and refine no validation loss is needed."
            ) from error

    def _losses(self) -> list[Tensor]:
        """Return the losses of the batches that have one.

        Raises:
            SkippedBatchError: None has one, or one of several ranks has none.
        """
        losses: list[Tensor] = []
        for index, batch in enumerate(self._batches, start=1):
            try:
                losses.append(self._loss(batch))
            except SkippedBatchError:  # noqa: PERF203
                if self._ranks.is_distributed or (index == len(self._batches) and not losses):
                    raise
        return losses

    def _loss(self, batch: Any) -> Tensor:
        loss = self._batch_loss(batch).detach()
        self._ranks.after_validation_batch()
        return loss.to(torch.promote_types(loss.dtype, torch.float32))  # a mean in half precision has three digits


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _train_mode(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Keep the model's mode; put back what its forward pass changes: buffers and torch's random state."""
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    devices = [] if device.type in {"cpu", "meta"} else [device]
    try:
        with torch.random.fork_rng(devices, device_type=device.type if devices else "cuda"), torch.enable_grad():
            yield
    finally:
        with torch.no_grad():
            for buffer, saved in buffers:
                buffer.copy_(saved)
