"""Accelerate: a finder for what `Accelerator.prepare` returned."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from lrfinder.integrations.base import needs

with needs("accelerate"):
    from accelerate import Accelerator

from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import DistributedType
from torch import Tensor, nn

from lrfinder.distributed import Ranks
from lrfinder.errors import ArgumentError
from lrfinder.finder import LRFinder
from lrfinder.training import BatchLoss, TrainingStep

__all__ = ["captured", "check_strategy", "finder_for"]

_UNSUPPORTED = {DistributedType.DEEPSPEED, DistributedType.FSDP, DistributedType.MEGATRON_LM, DistributedType.XLA}
_GIVEN_BY_THE_ACCELERATOR = ("accumulation_steps", "backward", "device", "grad_scaler", "step")


def captured(accelerator: Accelerator) -> tuple[Any, ...]:
    """Return the objects of Accelerate that training changes: all that is captured and restored.

    Args:
        accelerator: The one of the training.

    Returns:
        The accelerator: what it has prepared, its count of steps, the scaler. The state that it shares with its
        loaders and optimizers: which loader is read, whether gradients are synchronised.
    """
    return accelerator, accelerator.gradient_state


def finder_for(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: Any,
    criterion: Callable[[Any, Any], Tensor] | None = None,
    **options: Any,
) -> LRFinder:
    """Return a finder that trains as a loop with this accelerator does.

    Backward passes go through `accelerator.backward`, accumulation is as in `accelerator.accumulate`, clipping as in
    `accelerator.clip_grad_norm_`; precision is what the model was prepared with, and a step that the scaler skips is a
    gap in the curve. `find` then takes the prepared loader, and leaves nothing behind in it or in the accelerator.

    Args:
        accelerator: The accelerator of the training.
        model: The model, as `accelerator.prepare` returned it.
        optimizer: The optimizer, as `accelerator.prepare` returned it.
        criterion: As for `LRFinder`.
        **options: Further arguments of `LRFinder`: `loss_fn`, `max_grad_norm`, `autocast` and `extra_state` among
            them. What the accelerator decides (accumulation, backward, device, scaler) is not among them.

    Returns:
        The finder; call its `find(loader, ...)`, on every process.

    Raises:
        ArgumentError: Something was not prepared, the accelerator's strategy is not supported, or an option is the
            accelerator's to decide.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
        >>> model = torch.nn.Linear(4, 1)
        >>> data = torch.utils.data.TensorDataset(*(lambda x: (x, x.sum(1, keepdim=True)))(torch.randn(64, 4)))
        >>> model, optimizer, loader = accelerator.prepare(
        ...     model, torch.optim.SGD(model.parameters(), lr=0.1), torch.utils.data.DataLoader(data, batch_size=8)
        ... )
        >>> finder = finder_for(accelerator, model, optimizer, torch.nn.MSELoss())
        >>> result = finder.find(loader, start_lr=1e-4, end_lr=10.0, num_iter=40, progress=False)
        >>> 0.01 < result.suggestion.lr < 1.0, accelerator.gradient_state.active_dataloader is None
        (True, True)
    """
    if not isinstance(accelerator, Accelerator):
        raise ArgumentError(f"finder_for(accelerator=...) must be an Accelerator, got {type(accelerator).__name__}.")
    check_strategy(accelerator, "finder_for")
    for name, each, prepared in (
        ("model", model, _is_prepared(accelerator, model)),
        ("optimizer", optimizer, isinstance(optimizer, AcceleratedOptimizer)),
    ):
        if not prepared:
            raise ArgumentError(
                f"finder_for({name}=...) must be what accelerator.prepare(...) returned, got a {type(each).__name__} "
                "that is not prepared; call it after prepare."
            )
    for name in _GIVEN_BY_THE_ACCELERATOR:
        if name in options:
            raise ArgumentError(
                f"finder_for({name}=...) is the accelerator's to decide, got {options[name]!r}; leave it out, or use "
                "LRFinder itself."
            )
    steps = accelerator.gradient_accumulation_steps
    plain = LRFinder(
        model, optimizer, criterion, accumulation_steps=steps, backward=accelerator.backward, **options
    ).setup
    if plain.batch_loss is None:
        raise ArgumentError("finder_for(step=...) is not supported; use loss_fn, or LRFinder itself.")
    batch_loss = plain.batch_loss

    def make_step(ranks: Ranks) -> _AcceleratedStep:
        return _AcceleratedStep(
            accelerator,
            batch_loss,
            optimizer,
            accumulation_steps=steps,
            max_grad_norm=options.get("max_grad_norm"),
            backward=accelerator.backward,
            closure=options.get("closure"),
            ranks=ranks,
        )

    objects = (*plain.captured, *captured(accelerator))
    return LRFinder.from_setup(replace(plain, make_step=make_step, captured=objects))


def _is_prepared(accelerator: Accelerator, model: nn.Module) -> bool:
    inner = getattr(model, "module", model)  # before accelerate 1.14 a model in DistributedDataParallel has no mark
    return getattr(model, "_is_accelerate_prepared", False) or any(inner is each for each in accelerator._models)


def check_strategy(accelerator: Accelerator, caller: str) -> None:
    """Check that parameters can be captured and restored under the accelerator's strategy.

    Args:
        accelerator: The accelerator of the training.
        caller: The function that was called, for the message.

    Raises:
        ArgumentError: The strategy is DeepSpeed, version 1 of FSDP, Megatron-LM or XLA.
    """
    if accelerator.distributed_type in _UNSUPPORTED and not getattr(accelerator, "is_fsdp2", False):
        remedy = "run the range test without it, on a smaller model or batch if necessary"
        if accelerator.distributed_type is DistributedType.FSDP:
            remedy = "use version 2 of it: FullyShardedDataParallelPlugin(fsdp_version=2)"
        raise ArgumentError(
            f"{caller} works on one device, with DistributedDataParallel and with FSDP2, got an accelerator for "
            f"{accelerator.distributed_type.value}, which keeps parameters and optimizer state elsewhere; {remedy}."
        )


class _AcceleratedStep(TrainingStep):
    """A step as in a loop over `with accelerator.accumulate(model):`."""

    def __init__(self, accelerator: Accelerator, batch_loss: BatchLoss, optimizer: Any, **options: Any) -> None:
        super().__init__(batch_loss, optimizer, **options)
        self._accelerator = accelerator
        self._accelerated = optimizer
        self.clip_grad_norm = accelerator.clip_grad_norm_  # unscales first

    def __call__(self, micro_batches: Sequence[Any]) -> Tensor:
        self._accelerator.sync_gradients = True  # the optimizer does nothing without: it would keep old gradients
        return super().__call__(micro_batches)

    def forward_backward(self, batch: Any, count: int, *, last: bool) -> Tensor:
        self._accelerator.sync_gradients = last
        if last or self._accelerator.gradient_state.plugin_kwargs.get("sync_each_batch", False):
            return super().forward_backward(batch, count, last=last)
        with self._accelerator.no_sync(self.batch_loss.model):
            return super().forward_backward(batch, count, last=last)

    def clip_or_measure(self, scale: float = 1.0) -> None:
        if self.record_grad_norm and self.max_grad_norm is None:
            self._accelerator.unscale_gradients(self._accelerated)  # clipping does it by itself
        super().clip_or_measure(scale)

    def update(self) -> None:
        super().update()
        self.skipped = self.ranks.any_skipped(self._accelerated.step_was_skipped)
