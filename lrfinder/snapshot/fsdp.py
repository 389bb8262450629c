"""FSDP2 (`fully_shard`): back to shards, also out of a forward or backward pass that an exception broke off."""

import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from lrfinder.errors import ArgumentError, RestoreError

__all__ = ["is_sharded", "reset", "reshard"]


def is_sharded(modules: Iterable[nn.Module]) -> bool:
    """Tell whether `fully_shard` was applied to one of these modules.

    Args:
        modules: All modules of a model.

    Returns:
        True if its passes gather weights from other ranks.

    Example:
        >>> is_sharded(nn.Linear(1, 1).modules())
        False
    """
    return bool(_sharded(modules))


def reshard(modules: Iterable[nn.Module]) -> None:
    """Free gathered weights and let the modules hold their shards, as an optimizer does; nothing is communicated.

    After a forward pass without a backward the root still holds full weights: its `parameters()` are not the ones that
    are trained.

    Args:
        modules: All modules of a model; those that are not sharded are passed over.

    Raises:
        ArgumentError: Gradients that were not reduced yet are waiting in a module.
    """
    for module in _sharded(modules):
        module.reshard()
        if any(_unreduced(parameter) for parameter in _parameters(module)):
            raise ArgumentError(
                "LRFinder.find() needs a model without gradients under way, got an FSDP2 module with gradients that "
                "were not reduced (set_requires_gradient_sync(False)); finish the accumulation first."
            )


def reset(modules: Iterable[nn.Module]) -> None:
    """Forget the pass that is under way, its gradients too, and reshard; nothing is communicated.

    An exception in the middle of a pass leaves full weights in use, gradients in them that the next pass would add to,
    and flags with which the next pass fails.

    Args:
        modules: All modules of a model; those that are not sharded are passed over.

    Raises:
        RestoreError: This version of torch keeps its state in another way.
    """
    try:
        for module in _sharded(modules):
            _reset(module)
    except AttributeError as error:
        raise RestoreError(
            f"FSDP2 of torch {torch.__version__} keeps the state of a pass where LRFinder does not know it "
            f"({error}), so a pass that was broken off cannot be undone. Build the model anew."
        ) from error


def _sharded(modules: Iterable[nn.Module]) -> list[Any]:
    # Importing it takes most of a second; whoever shards has done so.
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
    """Reset one module's private state as torch 2.13's `reset_iter_state` does, and its gradients, without waiting."""
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
    """Empty the containers and drop the objects that the owner has under these names."""
    for name in names:
        value = getattr(owner, name)
        if isinstance(value, (list, set, dict)):
            value.clear()
        else:
            setattr(owner, name, None)


def _clear_if_there(owner: Any, names: Iterable[str]) -> None:
    _clear(owner, [name for name in names if hasattr(owner, name)])
