"""DistributedDataParallel: the buckets of its reducer are state that training changes."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lrfinder.snapshot.error_collector import ErrorCollector

__all__ = ["DDPReducers"]


class DDPReducers:
    """Whether the reducers of DDP modules have already reduced gradients.

    After its first backward pass DDP sorts its buckets once and for all. Other buckets add gradients in another order,
    which gives other bits. A reducer that was unused is therefore built again when the state is put back. A reducer
    that was in use keeps its buckets; if an exception left it in the middle of a backward pass, that pass is ended, and
    equal buckets take their place.
    Nothing here communicates.

    Args:
        modules: Modules; only those that are `DistributedDataParallel` are looked at.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        found = [module for module in modules if isinstance(module, DistributedDataParallel)]
        self._unused = [ddp for ddp in found if not any(ddp.reducer.get_backward_stats())]
        self._used = [ddp for ddp in found if any(ddp.reducer.get_backward_stats())]

    def restore(self, errors: ErrorCollector) -> None:
        """Make the reducers what they were; the modules' own attributes must have been put back before.

        Args:
            errors: Collects what could not be put back.
        """
        errors.attempt("DistributedDataParallel", self._restore)

    def _restore(self) -> None:
        for ddp in self._unused:
            _build_again(ddp)
        for ddp in self._used:
            if _in_backward(ddp):
                _end_backward(ddp)


def _in_backward(ddp: Any) -> bool:
    try:
        ddp.reducer._check_reducer_finalized()
    except RuntimeError:  # "Expected to have finished reduction in the prior iteration"
        return True
    return False


def _end_backward(ddp: Any) -> None:
    """End a backward pass that an exception has left.

    An all-reduce may still be under way, and writes to the memory of its bucket when it ends. So the next backward pass
    gets new buckets with the same parameters in them, where torch tells which these are.
    """
    buckets = ddp._get_ddp_logging_data().get("rebuilt_per_bucket_param_indices")
    if buckets:
        with _buckets_of([[int(index) for index in bucket.split()] for bucket in buckets.split(",")], ddp):
            _build_again(ddp)
    elif hasattr(ddp.reducer, "_reset_state"):
        ddp.reducer._reset_state()
    else:
        _build_again(ddp)


@contextmanager
def _buckets_of(indices: list[list[int]], ddp: Any) -> Iterator[None]:
    """Let `DistributedDataParallel` put these parameters into its buckets; it has no argument for that."""
    looked_up: Any = dist
    original = looked_up._compute_bucket_assignment_by_size
    # Reversed: it reverses what it gets.
    looked_up._compute_bucket_assignment_by_size = lambda *_: (
        indices[::-1],
        [int(ddp.bucket_bytes_cap)] * len(indices),
    )
    try:
        yield
    finally:
        looked_up._compute_bucket_assignment_by_size = original


def _build_again(ddp: Any) -> None:
    """Do what `DistributedDataParallel.__setstate__` does, but with the module's own process group and hooks."""
    if hasattr(ddp.reducer, "_remove_autograd_hooks"):
        ddp.reducer._remove_autograd_hooks()  # the old reducer must not reduce any more
    others = {name: value for name, value in vars(ddp).items() if name not in {"reducer", "logger"}}
    parameters, expect_sparse = ddp._build_params_for_reducer()
    names = ddp._build_debug_param_to_name_mapping(parameters)
    ddp._ddp_init_helper(parameters, expect_sparse, names, ddp.static_graph)
    if ddp.static_graph:
        ddp.reducer._set_static_graph()
        ddp.logger._set_static_graph()
    for hook, state in ddp._comm_hooks:
        ddp.logger._set_comm_hook_name(hook.__qualname__)
        dist._register_comm_hook(ddp.reducer, state, hook)  # type: ignore[attr-defined]  # DDP itself calls it there
    vars(ddp).update(others)  # the lists of buffers were replaced by equal ones
