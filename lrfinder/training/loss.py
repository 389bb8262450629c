"""How a batch becomes a loss."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from lrfinder.errors import ArgumentError

__all__ = ["BatchLoss", "SkippedBatchError"]


class SkippedBatchError(ArgumentError):
    """A batch that the user's code wants to leave out. It reaches the user only where that is impossible.

    Args:
        reason: How the user's code said so.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"A batch cannot be skipped here, but {reason}; in several processes all ranks need a loss for each step, "
            "and at least one batch in a thousand must have one. Leave such batches out in the loader."
        )


class BatchLoss:
    """How a batch becomes a loss: forward pass and criterion, under autocast where it is asked for.

    Args:
        model: The model.
        criterion: `criterion(outputs, targets) -> loss`, or None for a model that returns its loss.
        loss_fn: `loss_fn(model, batch) -> loss` in place of both.
        device: Where batches belong; by default where the model is.
        autocast: A dtype, or keyword arguments, for `torch.autocast`.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: Callable[[Any, Any], Tensor] | None = None,
        loss_fn: Callable[[Any, Any], Tensor] | None = None,
        device: torch.device | None = None,
        autocast: torch.dtype | Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model
        self._criterion = criterion
        self._loss_fn = loss_fn
        self._device = device
        self._autocast = {"dtype": autocast} if isinstance(autocast, torch.dtype) else autocast

    @property
    def device(self) -> torch.device:
        """The device that batches are moved to."""
        return self._device if self._device is not None else next(self.model.parameters()).device

    def __call__(self, batch: Any) -> Tensor:
        """Return the loss of one batch.

        Args:
            batch: A batch that is on the device already.

        Returns:
            A scalar loss.

        Raises:
            SkippedBatchError: The batch is None, or `loss_fn` returned None for it.
        """  # noqa: DOC502 - raised by _compute
        if self._autocast is None:
            return self._compute(batch)
        with torch.autocast(**{"device_type": self.device.type, **self._autocast}):
            return self._compute(batch)

    def _compute(self, batch: Any) -> Tensor:
        if self._loss_fn is not None:
            loss = self._loss_fn(self.model, batch)
            if loss is None:
                raise SkippedBatchError("loss_fn returned None")
            return scalar_loss(loss, "loss_fn(model, batch)")
        if batch is None:  # as a collate function returns it for samples that it cannot use
            raise SkippedBatchError("the loader gave None")
        if self._criterion is not None:
            return self._criterion_loss(self._criterion, batch)
        return _own_loss(self._outputs(batch))

    def _criterion_loss(self, criterion: Callable[[Any, Any], Tensor], batch: Any) -> Tensor:
        if not _is_sequence(batch) or len(batch) < 2:
            raise _no_pair(batch)
        try:
            outputs = self.model(*batch[:-1])
        except TypeError as error:
            if _accepts(self.model, batch[:-1], {}):
                raise
            _raise_wrong_call(batch, "model(*batch[:-1])", batch[:-1], error)
        try:
            return scalar_loss(criterion(outputs, batch[-1]), "criterion(outputs, targets)")
        except (TypeError, AttributeError) as error:
            if isinstance(outputs, Tensor) or not _is_torchs(criterion):
                raise
            _raise_wrong_call(batch, "criterion(outputs, targets)", (outputs, batch[-1]), error)

    def _outputs(self, batch: Any) -> Any:
        # Of a model that computes its own loss.
        given: Sequence[Any] = batch if _is_sequence(batch) else (batch,)
        named: Mapping[str, Any] = {}
        if isinstance(batch, Mapping):
            given, named = (), batch
        try:
            return self.model(*given, **named)
        except TypeError as error:
            if _accepts(self.model, given, named):
                raise
            call = "model(*batch)" if _is_sequence(batch) else "model(batch)"
            if isinstance(batch, Mapping):
                call, given = "model(**batch)", [f"{name}={_describe(value)}" for name, value in batch.items()]
            _raise_wrong_call(batch, call, given, error)


def _accepts(model: Any, given: Sequence[Any], named: Mapping[str, Any]) -> bool:
    """Return whether the signature of a model's forward takes these arguments; True where it has none."""
    for wrapper in ("module", "_orig_mod"):  # of DistributedDataParallel, of torch.compile
        model = getattr(model, wrapper, model)
    try:
        inspect.signature(model.forward).bind(*given, **named)
    except TypeError:
        return False
    except ValueError:
        return True
    return True


def _is_torchs(criterion: Any) -> bool:
    where = type(criterion) if isinstance(criterion, nn.Module) else criterion
    return str(getattr(where, "__module__", "")).partition(".")[0] == "torch"


def _raise_wrong_call(batch: Any, call: str, given: Sequence[Any], error: Exception) -> NoReturn:
    """Raise the error that shows what was called with what.

    Raises:
        ArgumentError: Always.
    """
    shown = ", ".join(each if isinstance(each, str) else _describe(each) for each in given)
    remedy = "say how such a batch becomes a loss with loss_fn=lambda model, batch: ..."
    if call == "model(*batch)":
        remedy = f"if the last part of a batch holds the targets, pass a criterion; else {remedy}"
    raise ArgumentError(
        f"LRFinder called {call} with ({shown}) for a {_describe(batch)} as batch, which failed ({error}); {remedy}"
    ) from error


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"Tensor of shape {tuple(value.shape)}"
    return f"{type(value).__name__} of {len(value)}" if _is_sequence(value) else type(value).__name__


def _no_pair(batch: Any) -> ArgumentError:
    return ArgumentError(
        f"LRFinder(criterion=...) needs (inputs, targets) batches, got a {_describe(batch)}; "
        "say how such a batch becomes a loss with loss_fn=lambda model, batch: ..."
    )


def _is_sequence(batch: Any) -> bool:
    return isinstance(batch, (tuple, list)) and not isinstance(batch, PackedSequence)  # which is one input, not four


def _own_loss(outputs: Any) -> Tensor:
    loss = outputs
    if not isinstance(outputs, Tensor):
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else getattr(outputs, "loss", None)
    if loss is None or (isinstance(outputs, Tensor) and outputs.numel() != 1):
        raise ArgumentError(
            "Without a criterion the model must return its loss, or an output with a `.loss`, got "
            f"a {_describe(outputs)}; pass a criterion, LRFinder(model, optimizer, criterion), or loss_fn, or put the "
            "labels into the batch."
        )
    return scalar_loss(loss, "the model, which has no criterion here,")


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
