"""FSDP2 (`fully_shard`): back to shards, also after an exception in a forward or backward pass."""

import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from lrfinder.errors import ArgumentError, RestoreError
from lrfinder.snapshot.error_collector import ErrorCollector

__all__ = ["FSDPPasses", "is_sharded", "reshard"]


class FSDPPasses:
    """The state of FSDP2 modules between two passes: they hold their shards, and no pass has begun.

    An exception within a pass leaves full weights in use, gradients in them that the next pass would add to, and flags
    with which the next pass fails. Nothing here communicates.

    Args:
        modules: Modules; only those to which `fully_shard` was applied are looked at.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._sharded = _sharded(modules)

    def restore(self, errors: ErrorCollector) -> None:
        """End the pass that has begun, drop its gradients, and free full weights.

        Args:
            errors: Collects what could not be reset.
        """
        errors.attempt("FSDP2", self._reset)

    def _reset(self) -> None:
        try:
            for module in self._sharded:
                _reset(module)
        except AttributeError as error:
            raise RestoreError(
                f"FSDP2 of torch {torch.__version__} keeps the state of a pass where LRFinder does not know it "
                f"({error}), so an interrupted pass cannot be undone. Build the model again."
            ) from error


def is_sharded(modules: Iterable[nn.Module]) -> bool:
    """Return whether `fully_shard` was applied to one of these modules, so that passes gather weights from other ranks.

    Args:
        modules: All modules of a model.

    Example:
        >>> is_sharded(nn.Linear(1, 1).modules())
        False
    """
    return bool(_sharded(modules))


def reshard(modules: Iterable[nn.Module]) -> None:
    """Free gathered weights, so that the modules hold the shards that the optimizer holds. Nothing is communicated.

    After a forward pass without a backward pass the root module still holds full weights: its `parameters()` are not
    the ones that are trained.

    Args:
        modules: All modules of a model; those that are not sharded are ignored.

    Raises:
        ArgumentError: A module holds gradients that were not reduced yet.
    """
    for module in _sharded(modules):
        module.reshard()
        if any(_unreduced(parameter) for parameter in _parameters(module)):
            raise ArgumentError(
                "LRFinder.find() needs a model without unreduced gradients, got an FSDP2 module with gradients that "
                "were not reduced (set_requires_gradient_sync(False)); finish the accumulation first."
            )


def _sharded(modules: Iterable[nn.Module]) -> list[Any]:
    # Looked up and not imported, which would take most of a second: a model that is sharded has imported it.
    fsdp = sys.modules.get("torch.distributed.fsdp")
    kind = getattr(fsdp, "FSDPModule", None)
    return [] if kind is None else [module for module in modules if isinstance(module, kind)]


def _groups(state: Any) -> list[Any]:
    if hasattr(state, "_fsdp_param_groups"):
        return list(state._fsdp_param_groups)
    return [] if state._fsdp_param_group is None else [state._fsdp_param_group]  # before torch 2.12


def _parameters(module: Any) -> list[Any]:
    return [parameter for group in _groups(module._get_fsdp_state()) for parameter in group.fsdp_params]


def _unreduced(parameter: Any) -> bool:
    full = getattr(parameter, "_unsharded_param", None)
    return parameter.unsharded_accumulated_grad is not None or (full is not None and full.grad is not None)


def _reset(module: Any) -> None:
    """Reset one module's private state as `reset_iter_state` of torch 2.13 does, and drop its full gradients."""
    state = module._get_fsdp_state()
    if state._is_root is None:  # no pass has begun
        return
    idle = type(state._training_state).IDLE
    _clear(state._state_ctx, ("iter_forward_root",))
    state._state_ctx.post_backward_final_callback_queued = False
    _clear(state._comm_ctx, ("all_gather_state", "post_forward_order"))
    _clear_if_there(state._comm_ctx, ("reduce_scatter_state", "reduce_scatter_states", "_last_post_reduce_events"))
    _clear_if_there(state, ("_modules_to_run_forward",))
    state._training_state = idle
    for group in _groups(state):
        group._training_state = idle
        _clear(group, ("_all_gather_result", "_post_reduce_event", "_reshard_after_forward_event"))
        _clear(group, ("_partial_reduce_output", "_post_forward_indices"))
        _clear_if_there(group, ("_all_reduce_state",))
        for parameter in group.fsdp_params:
            parameter.unsharded_accumulated_grad = None
            if hasattr(parameter, "_unsharded_param"):
                parameter._unsharded_param.grad = None
        group._to_sharded()


def _clear(owner: Any, names: Iterable[str]) -> None:
    """Empty the containers among these attributes, and set the others to None."""
    for name in names:
        value = getattr(owner, name)
        if isinstance(value, (list, set, dict)):
            value.clear()
        else:
            setattr(owner, name, None)


def _clear_if_there(owner: Any, names: Iterable[str]) -> None:
    _clear(owner, [name for name in names if hasattr(owner, name)])
