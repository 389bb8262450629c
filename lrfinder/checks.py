"""Rules that a training setup must meet, checked before anything is touched."""

import inspect
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from lrfinder.errors import ArgumentError
from lrfinder.optim import base_lrs, has_two_passes, needs_closure, unwrap_optimizer

__all__ = [
    "check_minimizes",
    "check_model",
    "check_optimizer",
    "check_positive",
    "check_recording",
    "check_step_options",
    "check_ways_to_a_loss",
    "extra_states",
    "positive_int",
]


def positive_int(call: str, value: Any, hint: str = "") -> int:
    """Return `value` if it is an integer of at least 1.

    Args:
        call: Call and argument, for the message: `LRFinder.find(repeats=...)`.
        value: What was given.
        hint: What to do about it, for the message.

    Returns:
        The value, as a plain int.

    Raises:
        ArgumentError: It is not.
    """
    try:
        count = 0 if isinstance(value, bool) else operator.index(value)  # NumPy's integers too
    except TypeError:
        count = 0
    if count < 1:
        raise ArgumentError(f"{call} must be an integer of at least 1, got {value!r}.{f' {hint}' if hint else ''}")
    return count


def check_ways_to_a_loss(
    criterion: Callable[..., Any] | None,
    loss_fn: Callable[..., Any] | None,
    step: Callable[..., Any] | None,
    replaced_by_step: Mapping[str, bool],
) -> None:
    """Check that there is at most one way from a batch to a loss, and that it can be called as it will be.

    Args:
        criterion: As given to `LRFinder`.
        loss_fn: As given to `LRFinder`.
        step: As given to `LRFinder`.
        replaced_by_step: By name, whether an option was given that has no meaning beside `step`.

    Raises:
        ArgumentError: Two ways were given, or one that is not callable or takes other arguments.
    """
    ways = {"criterion": criterion, "loss_fn": loss_fn, "step": step}
    for name, way in ways.items():
        if way is not None and not callable(way):
            raise ArgumentError(f"LRFinder({name}=...) must be callable, got {type(way).__name__}.")
        if isinstance(way, type):
            raise ArgumentError(
                f"LRFinder({name}=...) must be a function or a module, got the class {way.__name__}; "
                f"make an object of it: {way.__name__}()."
            )
    given = [name for name, way in ways.items() if way is not None]
    if len(given) > 1:
        raise ArgumentError(
            f"LRFinder takes one of criterion, loss_fn and step, got {' and '.join(given)}; each says how a batch "
            "becomes a loss, so leave out all but one."
        )
    clashing = [name for name, is_given in replaced_by_step.items() if is_given]
    if step is not None and clashing:
        raise ArgumentError(
            f"LRFinder(step=...) replaces forward, backward and optimizer step, so {', '.join(clashing)} would have no "
            f"effect, got step and {clashing[0]}; do it inside of step, or use loss_fn."
        )
    for name in given:
        _check_signature(name, ways[name])


_CALLS = {"criterion": ("outputs", "targets"), "loss_fn": ("model", "batch"), "step": ("batch",)}
_MODEL_NAMES = {"model", "module", "net", "network"}


def _check_signature(name: str, way: Any) -> None:
    """Check that a callable takes the arguments that it will be given.

    Raises:
        ArgumentError: It takes others.
    """
    try:
        signature = inspect.signature(way.forward if isinstance(way, nn.Module) else way)
        takes = tuple(signature.parameters)
    except (ValueError, TypeError):  # some callables written in C have no signature
        return
    call = f"{name}({', '.join(_CALLS[name])})"
    if name == "criterion" and len(takes) > 1 and takes[0] in _MODEL_NAMES:
        raise ArgumentError(
            f"LRFinder(criterion=...) is called as {call}, got a function of ({', '.join(takes)}); "
            "pass it as loss_fn, which is called as loss_fn(model, batch)."
        )
    try:
        signature.bind(*_CALLS[name])
    except TypeError as error:
        raise ArgumentError(
            f"LRFinder({name}=...) is called as {call}, got a function of ({', '.join(takes)}) ({error}); "
            "wrap it in a function that takes these arguments."
        ) from None


def check_recording() -> None:
    """Check that gradients can be recorded.

    Raises:
        ArgumentError: The call stands under `torch.inference_mode()`.
    """
    if torch.is_inference_mode_enabled():
        raise ArgumentError(
            "LRFinder.find(...) trains for some steps, which torch forbids under torch.inference_mode(); "
            "call it outside of that block."
        )


def check_model(model: nn.Module) -> None:
    """Check that a model can be trained.

    Args:
        model: As given to `LRFinder`.

    Raises:
        ArgumentError: It is no module, has parameters that are not initialised yet or that were made under
            `torch.inference_mode()`, or none that is trainable.
    """
    if isinstance(model, (Mapping, list, tuple)):
        raise ArgumentError(
            f"LRFinder(model=...) must be one torch.nn.Module, got a {type(model).__name__} of {len(model)}; put them "
            "into one, nn.ModuleDict or nn.ModuleList, and say how a batch becomes a loss with loss_fn, or how to "
            "train on a batch with step."
        )
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"LRFinder(model=...) must be a torch.nn.Module, got {type(model).__name__}.")
    for module in model.modules():
        if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():
            name = next(name for name, each in model.named_modules() if each is module)
            raise ArgumentError(
                f"LRFinder(model=...) must be initialised, got the lazy module {name or type(module).__name__!r} "
                "without its parameters; run one batch through the model first, then build the optimizer."
            )
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise ArgumentError(
            "LRFinder(model=...) must be a model that can be trained, got parameters that were made under "
            "torch.inference_mode(); build or load the model outside of that block."
        )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ArgumentError(
            "LRFinder(model=...) must have trainable parameters, got a model in which none requires a gradient; "
            "unfreeze some with requires_grad_(True)."
        )


def check_optimizer(optimizer: Any, model: nn.Module, grad_scaler: Any) -> None:
    """Check that an optimizer's learning rate can be swept.

    Args:
        optimizer: As given to `LRFinder`.
        model: The model that it should train.
        grad_scaler: As given to `LRFinder`.

    Raises:
        ArgumentError: It is none, holds none of the model's parameters, or cannot be swept (Rprop, a closure
            together with a scaler).
    """
    if isinstance(optimizer, (Mapping, list, tuple)):
        raise ArgumentError(
            f"LRFinder(optimizer=...) must be one torch optimizer, got a {type(optimizer).__name__} of "
            f"{len(optimizer)}; pass the one whose learning rate is wanted, the others as extra_state=[...], and train "
            "with all of them in step=... ."
        )
    groups = getattr(optimizer, "param_groups", None)
    if not isinstance(groups, Sequence) or not callable(getattr(optimizer, "step", None)):
        raise ArgumentError(f"LRFinder(optimizer=...) must be a torch optimizer, got {type(optimizer).__name__}.")
    base_lrs(optimizer)  # each group has one
    inner = unwrap_optimizer(optimizer)
    if isinstance(inner, torch.optim.Rprop):
        raise ArgumentError(
            "LRFinder(optimizer=...) must read its learning rate at every step, got Rprop, which reads it once and "
            "then adapts one per weight; a range test of it would measure nothing. Use its default learning rate."
        )
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    found = [parameter for parameter in model.parameters() if id(parameter) in held]
    if not found:
        raise ArgumentError(
            "LRFinder(optimizer=...) must hold parameters of the model, got an optimizer that holds none of them; "
            "build it from model.parameters(), after moving, compiling or replacing layers of the model."
        )
    if not any(parameter.requires_grad for parameter in found):
        raise ArgumentError(
            "LRFinder(optimizer=...) must hold trainable parameters of the model, got an optimizer that holds only "
            "frozen ones; build it from those that require a gradient."
        )
    if grad_scaler is not None and not all(hasattr(grad_scaler, name) for name in ("scale", "step", "update")):
        raise ArgumentError(
            f"LRFinder(grad_scaler=...) must be the GradScaler of the training, got {type(grad_scaler).__name__}."
        )
    if grad_scaler is not None and (needs_closure(optimizer) or has_two_passes(optimizer)):
        raise ArgumentError(
            f"LRFinder(grad_scaler=...) does not work with optimizers that call a closure, got {type(inner).__name__}; "
            "torch has no way to unscale between the calls. Leave the scaler out, bf16 needs none."
        )


def check_minimizes(optimizer: Any) -> None:
    """Check that a falling loss is what the optimizer aims at.

    Args:
        optimizer: As given to `LRFinder`.

    Raises:
        ArgumentError: A parameter group has `maximize=True`.
    """
    for index, group in enumerate(optimizer.param_groups):
        if group.get("maximize"):
            raise ArgumentError(
                f"LRFinder(optimizer=...) must minimise the loss, got maximize=True in param_groups[{index}]; the "
                "sweep looks for a loss that falls. Make the loss the negative objective and leave maximize out, which "
                "trains the same; or use LRFinder(step=...) with a step that returns the negative objective."
            )


def check_positive(call: str, value: Any) -> float:
    """Return `value` if it is a positive, finite number.

    Args:
        call: Call and argument, for the message.
        value: What was given.

    Returns:
        The value, as a float.

    Raises:
        ArgumentError: It is not.
    """
    if isinstance(value, torch.Tensor) and value.dim() == 0 and not value.is_complex() and value.dtype != torch.bool:
        value = value.item()
    number = float(value) if not isinstance(value, bool) and isinstance(value, Real) else math.nan
    if not (number > 0 and math.isfinite(number)):
        raise ArgumentError(f"{call} must be a positive, finite number, got {value!r}.")
    return number


def check_step_options(autocast: Any, max_grad_norm: Any, backward: Any, *, closure: Any, grad_scaler: Any) -> None:
    """Check the options of the finder's own step, each None where it was not given.

    Args:
        autocast: A floating-point dtype, or keyword arguments for `torch.autocast`.
        max_grad_norm: A positive number.
        backward: A callable.
        closure: A bool.
        grad_scaler: The `GradScaler`, which does not work with a closure.

    Raises:
        ArgumentError: One of them is something else.
    """
    is_dtype = isinstance(autocast, torch.dtype) and autocast.is_floating_point
    if autocast is not None and not is_dtype and not isinstance(autocast, Mapping):
        raise ArgumentError(
            "LRFinder(autocast=...) must be a floating-point dtype, such as torch.bfloat16, or a dict of keyword "
            f"arguments for torch.autocast, got {autocast!r}."
        )
    if max_grad_norm is not None:
        check_positive("LRFinder(max_grad_norm=...)", max_grad_norm)
    if backward is not None and not callable(backward):
        raise ArgumentError(f"LRFinder(backward=...) must be callable, got {type(backward).__name__}.")
    if closure is not None and not isinstance(closure, bool):
        raise ArgumentError(
            f"LRFinder(closure=...) must be True, False or None, got {type(closure).__name__}; the finder makes the "
            "closure. To take steps in your own way, pass step=..."
        )
    if closure and grad_scaler is not None:
        raise ArgumentError(
            "LRFinder(closure=True) does not work with a grad_scaler, got both; torch has no way to unscale between "
            "the calls of a closure. Leave the scaler out, bf16 needs none."
        )


def extra_states(value: Any) -> tuple[Any, ...]:
    """Return the objects in `LRFinder(extra_state=...)`.

    Args:
        value: What was given.

    Returns:
        The objects; whether each has a state is checked when it is captured.

    Raises:
        ArgumentError: It is no list or tuple, such as the one object itself.
    """
    if not isinstance(value, Iterable) or isinstance(value, (nn.Module, Mapping, str)):
        raise ArgumentError(
            f"LRFinder(extra_state=...) must be a list of objects, got {type(value).__name__}; "
            "put it into one: extra_state=[...]."
        )
    return tuple(value)
