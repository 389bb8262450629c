"""How a batch becomes a loss."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from lrfinder.distributed import Ranks
from lrfinder.errors import ArgumentError
from lrfinder.training.moving import move

__all__ = ["BatchLoss", "Validation"]


class BatchLoss:
    """How a batch becomes a loss: forward pass and criterion, under autocast where it is asked for.

    Args:
        model: The model.
        criterion: `criterion(outputs, targets) -> loss`, or None for a model that returns its loss.
        loss_fn: `loss_fn(model, batch) -> loss` in place of both.
        device: Where the model is; batches are moved there.
        autocast: A dtype, or keyword arguments, for `torch.autocast`.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: Callable[[Any, Any], Tensor] | None,
        loss_fn: Callable[[Any, Any], Tensor] | None,
        device: torch.device,
        autocast: torch.dtype | Mapping[str, Any] | None = None,
    ) -> None:
        """Choose the way from a batch to a loss."""
        self.model = model
        self.device = device
        self._criterion = criterion
        self._loss_fn = loss_fn
        options = {"dtype": autocast} if isinstance(autocast, torch.dtype) else autocast
        self._precision: AbstractContextManager[Any] | None = None
        if options is not None:
            self._precision = torch.autocast(**{"device_type": device.type, **options})

    def __call__(self, batch: Any) -> Tensor:
        """Return the loss of one batch, which is on the device already.

        Args:
            batch: What the loader gave, moved.

        Returns:
            A scalar loss.
        """
        if self._precision is None:
            return self._compute(batch)
        with self._precision:
            return self._compute(batch)

    def _compute(self, batch: Any) -> Tensor:
        if self._criterion is not None:
            if not _is_sequence(batch) or len(batch) < 2:
                raise _no_pair(batch)
            return scalar_loss(self._criterion(self.model(*batch[:-1]), batch[-1]), "criterion(outputs, targets)")
        if self._loss_fn is not None:
            return scalar_loss(self._loss_fn(self.model, batch), "loss_fn(model, batch)")
        return scalar_loss(_own_loss(_call(self.model, batch)), "the model, which has no criterion here,")


def _no_pair(batch: Any) -> ArgumentError:
    size = f" of {len(batch)}" if _is_sequence(batch) else ""
    return ArgumentError(
        f"LRFinder(criterion=...) needs (inputs, targets) batches, got a {type(batch).__name__}{size}; "
        "say how such a batch becomes a loss with loss_fn=lambda model, batch: ..."
    )


def _call(model: nn.Module, batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if _is_sequence(batch) else model(batch)


def _is_sequence(batch: Any) -> bool:
    return isinstance(batch, (tuple, list)) and not isinstance(batch, PackedSequence)  # which is one input, not four


def _own_loss(outputs: Any) -> Any:
    if isinstance(outputs, Tensor):
        return outputs
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else getattr(outputs, "loss", None)
    if loss is None:
        raise ArgumentError(
            "Without a criterion the model must return its loss, or an output with a `.loss`, got "
            f"{type(outputs).__name__}; pass a criterion or loss_fn, or put the labels into the batch."
        )
    return loss


def scalar_loss(loss: Any, origin: str) -> Tensor:
    if isinstance(loss, Tensor) and loss.dim() == 0:
        return loss
    if not isinstance(loss, Tensor):
        raise ArgumentError(f"{origin} must return a scalar tensor, got {type(loss).__name__}.")
    if loss.numel() != 1:
        raise ArgumentError(
            f"{origin} must return a scalar loss, got a tensor of shape {tuple(loss.shape)}; reduce it with .mean()."
        )
    return loss.reshape(())


def _at_least_single(loss: Tensor) -> Tensor:
    return loss.to(torch.promote_types(loss.dtype, torch.float32))  # a mean in half precision has three digits


class Validation:
    """The mean loss on a fixed set of batches, in eval mode, with the training flags put back after it.

    Args:
        batch_loss: How a batch becomes a loss.
        batches: The batches, kept on the device.
        ranks: Those that validate at the same time.
    """

    def __init__(self, batch_loss: BatchLoss, batches: Sequence[Any], ranks: Ranks | None = None) -> None:
        """Move the batches to the device."""
        self._batch_loss = batch_loss
        self._ranks = ranks
        self._batches = [move(batch, batch_loss.device) for batch in batches]

    def __call__(self) -> Tensor:
        """Return the mean loss over the batches, as a scalar on the device.

        Returns:
            The mean over batches of the batches' losses.
        """
        training = [module for module in self._batch_loss.model.modules() if module.training]
        self._batch_loss.model.eval()
        try:
            with torch.no_grad():
                return torch.stack([self._loss(batch) for batch in self._batches]).mean()
        finally:
            for module in training:
                module.training = True

    def _loss(self, batch: Any) -> Tensor:
        loss = _at_least_single(self._batch_loss(batch))
        if self._ranks is not None:
            self._ranks.after_validation_batch()
        return loss
