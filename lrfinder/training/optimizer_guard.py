"""Stops an optimizer whose state was not captured, before it writes to anything."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from lrfinder.errors import LRFinderError
from lrfinder.snapshot import interrupts_deferred

__all__ = ["forbid_other_optimizers"]


@contextmanager
def forbid_other_optimizers(optimizers: Iterable[Any], parameters: Iterable[Tensor] = ()) -> Iterator[None]:
    """Within this context only the given optimizers may step; any other raises before its first write.

    What an optimizer changes can be restored only if it was captured. An unknown one would leave its own state and its
    parameters changed, silently. A training in another thread that has nothing to do with these parameters goes on.

    Args:
        optimizers: The captured optimizers.
        parameters: The parameters that no other optimizer may step in any thread.

    Raises:
        LRFinderError: From within the step of an optimizer that is not among them.
    """  # noqa: DOC502 - raised by the hook
    thread = threading.get_ident()
    captured = {id(parameter) for parameter in parameters}
    allowed = {id(optimizer) for optimizer in optimizers}

    def refuse(optimizer: Optimizer, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
        if id(optimizer) in allowed:
            return
        held = (parameter for group in optimizer.param_groups for parameter in group["params"])
        if threading.get_ident() == thread or any(id(parameter) in captured for parameter in held):
            raise LRFinderError(
                f"An optimizer, {type(optimizer).__name__} with {len(optimizer.param_groups)} parameter groups, "
                "stepped during the range test, but its state was not captured, so it was stopped before it wrote. "
                "Pass it with extra_state=[that_optimizer]."
            )

    handle = None
    try:
        with interrupts_deferred():  # between the registration and the assignment, say
            handle = register_optimizer_step_pre_hook(refuse)
        yield
    finally:
        if handle is not None:
            handle.remove()
