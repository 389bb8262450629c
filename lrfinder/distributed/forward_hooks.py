"""Hooks before each forward pass in which DDP communicates."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["before_forward"]


@contextmanager
def before_forward(model: nn.Module, meet: Callable[[], None]) -> Iterator[None]:
    """Call `meet` before each forward pass in which DDP communicates: to copy buffers, or to rebuild its buckets.

    A compiled model is left alone, as a hook would have it compiled again.

    Args:
        model: A module that may be one of DDP, or contain some.
        meet: What to call.
    """
    is_compiled = hasattr(model, "_orig_mod") or getattr(model, "_compiled_call_impl", None) is not None
    found = [] if is_compiled else [module for module in model.modules() if isinstance(module, DistributedDataParallel)]

    def before(ddp: Any, _inputs: Any) -> None:
        if ddp.will_sync_module_buffers() or not ddp._has_rebuilt_buckets:
            meet()

    handles = [ddp.register_forward_pre_hook(before) for ddp in found]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
