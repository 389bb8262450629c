"""The loss on a fixed set of validation batches."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
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
            ArgumentError: It raised something in eval mode, but not in training mode; the message says so.
            Exception: What the user's code raised otherwise, unchanged.
        """  # noqa: DOC502 - raised by the user's code
        try:
            self._first(self._mode)
        except Exception as error:
            if self._mode == "eval" and not self._ranks.is_distributed and self._works("train", not_in="eval"):
                raise ArgumentError(
                    "The validation loss is computed in eval mode and under torch.no_grad(), where it raised "
                    f'{type(error).__name__}: {error} In training mode it works: pass val_mode="train", or a loss_fn '
                    "that works in eval mode; without val_loader and refine no validation loss is needed."
                ) from error
            raise

    def _works(self, mode: str, *, not_in: str) -> bool:
        """Return whether the first batch has a loss in one mode, and again none in the other."""
        with suppress(Exception):
            self._first(mode)
            try:
                self._first(not_in)
            except Exception:  # noqa: BLE001 - this is the answer
                return True
        return False

    def _first(self, mode: str) -> None:
        Validation(self._batch_loss, self._batches[:1], self._ranks, mode=mode)()

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
