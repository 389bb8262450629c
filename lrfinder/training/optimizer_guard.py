"""Stops an optimizer that nobody captured before it writes to anything."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from lrfinder.errors import LRFinderError
from lrfinder.optim import optimizer_layers
from lrfinder.snapshot import interrupts_deferred

__all__ = ["forbid_other_optimizers"]


@contextmanager
def forbid_other_optimizers(optimizers: Iterable[Any]) -> Iterator[None]:
    """Let only the given optimizers step in the meantime; any other raises before its first write.

    What an optimizer changes can be put back only if it was captured. One that steps without having been
    handed over would leave its own state and its parameters changed, silently.

    Args:
        optimizers: Those that were captured. For a wrapper, the optimizer inside it counts as well.

    Yields:
        Nothing.

    Raises:
        LRFinderError: From within the step of an optimizer that is not among them.
    """  # noqa: DOC502 - raised by the hook
    allowed = {id(layer) for optimizer in optimizers for layer in optimizer_layers(optimizer)}

    def refuse(optimizer: Optimizer, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
        if id(optimizer) not in allowed:
            raise LRFinderError(
                f"An optimizer, {type(optimizer).__name__} with {len(optimizer.param_groups)} parameter groups, "
                "stepped during the range test, but nobody captured its state, so it was stopped before it wrote. "
                "Hand it over: LRFinder(..., extra_state=[that_optimizer])."
            )

    handle = None
    try:
        with interrupts_deferred():  # between the registration and the assignment, say
            handle = register_optimizer_step_pre_hook(refuse)
        yield
    finally:
        if handle is not None:
            handle.remove()
