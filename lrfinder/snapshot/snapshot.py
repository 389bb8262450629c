"""A training setup at one moment, and the way back to it, bit for bit and in place."""

import copy
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lrfinder.errors import ArgumentError, RestoreError
from lrfinder.snapshot.checksums import Checksums
from lrfinder.snapshot.ddp import Reducers
from lrfinder.snapshot.error_collector import ErrorCollector
from lrfinder.snapshot.fsdp import reset, reshard
from lrfinder.snapshot.interrupts import interrupts_deferred
from lrfinder.snapshot.object_graph import ObjectGraph
from lrfinder.snapshot.rng import GENERATORS, RandomStreams
from lrfinder.snapshot.storage import Copies, regions
from lrfinder.snapshot.tensor_state import TensorState

__all__ = ["Capture", "Snapshot", "preserved"]


class Capture(Protocol):
    """State that something else captured, such as a loader's."""

    def restore(self) -> None:
        """Put the state back; called once for every rewind and for the restore."""


class Snapshot:
    """Everything that training changes, as it was when the snapshot was taken; see `Snapshot.take`."""

    _contents: ObjectGraph
    _reducers: Reducers
    _states: list[TensorState]
    _copies: list[Copies]
    _checksums: Checksums
    _foreign: list["_StateDict"]
    _streams: RandomStreams
    _first: tuple[Capture, ...]
    _last: tuple[Capture, ...]
    _done = True  # until something is captured there is nothing to restore

    @classmethod
    def take(
        cls,
        modules: Iterable[nn.Module] = (),
        optimizers: Iterable[Any] = (),
        *,
        grad_scaler: Any = None,
        extra_state: Iterable[Any] = (),
        leave: Iterable[Any] = (),
        first: Iterable[Capture] = (),
        last: Iterable[Capture] = (),
        devices: Iterable[torch.device | str] = (),
        snapshot_device: torch.device | str | None = None,
        snapshot_frozen: bool = True,
    ) -> "Snapshot":
        """Take a snapshot, and set all gradients aside: every ``.grad`` is None afterwards.

        Kept are the modules' tensors, attributes, flags and hooks; the optimizers' and the scaler's state and
        attributes; the random streams; and the extra state. No tensor and no container changes identity, neither now
        nor when it is restored.

        Args:
            modules: The model, and a criterion that is a module.
            optimizers: All optimizers that step.
            grad_scaler: A ``torch.amp.GradScaler``, or None.
            extra_state: More that training changes: modules, optimizers and scalers are kept whole, generators by
                their state, anything else by its ``state_dict``.
            leave: What attributes lead to and is not entered, such as data sets.
            first: Captures made before this call, restored before the random streams.
            last: Captures made before this call, restored after everything else.
            devices: Accelerators in use beside those of the tensors found; their random streams are kept.
            snapshot_device: Where copies live; None keeps each beside its tensor. "cpu" is the host's memory, pinned
                where it can be.
            snapshot_frozen: Whether frozen parameters (without ``requires_grad`` and in no optimizer) are copied, to
                the host's memory. If not, checksums prove that nobody wrote to them.

        Returns:
            The snapshot.

        Raises:
            ArgumentError: A piece of extra state has no ``state_dict``, or a lazy module is uninitialised.

        Example:
            >>> model = torch.nn.Linear(2, 1)
            >>> snapshot = Snapshot.take([model])
            >>> before = model.weight.tolist()
            >>> _ = torch.nn.init.zeros_(model.weight)
            >>> snapshot.restore()
            >>> model.weight.tolist() == before
            True
        """  # noqa: DOC502 - raised by the parts
        self = cls()
        self._capture(
            modules,
            optimizers,
            grad_scaler=grad_scaler,
            extra_state=extra_state,
            leave=leave,
            first=first,
            last=last,
            devices=devices,
            snapshot_device=snapshot_device,
            snapshot_frozen=snapshot_frozen,
        )
        return self

    def rewind(self, *, streams: bool = True) -> None:
        """Put everything back as it was, but leave the gradients aside: ready for another sweep.

        Args:
            streams: Whether random streams and captures of loaders go back as well.

        Raises:
            RestoreError: Something could not be put back; everything else was.
        """
        if self._done:
            raise RestoreError("`Snapshot.rewind` was called after `restore`, which ends a snapshot. Take a new one.")
        self._put_back(streams=streams, gradients=False)

    def restore(self) -> None:
        """Put everything back as it was, gradients included, and give the copies up.

        Another call does nothing. An interrupt (Ctrl-C) that arrives meanwhile is raised when all is done.

        Raises:
            RestoreError: Something could not be put back; everything else was.
        """  # noqa: DOC502 - raised by _put_back
        if not self._done:
            self._put_back(streams=True, gradients=True)

    def verify(self) -> None:
        """Check that nobody wrote to the frozen parameters that were not copied.

        Raises:
            RestoreError: A frozen parameter changed; it is named.
        """
        with torch.no_grad():
            changed = self._checksums.changed()
        if changed:
            raise RestoreError(_changed_message(changed))

    def _capture(
        self,
        modules: Iterable[nn.Module],
        optimizers: Iterable[Any],
        *,
        grad_scaler: Any = None,
        extra_state: Iterable[Any] = (),
        leave: Iterable[Any] = (),
        first: Iterable[Capture] = (),
        last: Iterable[Capture] = (),
        devices: Iterable[torch.device | str] = (),
        snapshot_device: torch.device | str | None = None,
        snapshot_frozen: bool = True,
    ) -> None:
        self._first, self._last = tuple(first), tuple(last)
        self._contents = ObjectGraph(leave)
        device = None if snapshot_device is None else _device(snapshot_device)
        self._states = []
        try:
            with interrupts_deferred(), torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
                self._collect(list(modules), list(optimizers), grad_scaler, list(extra_state))
                self._copy_bits(device, copy_frozen=snapshot_frozen)
                found = {state.tensor.device for state in self._states}
                self._streams = RandomStreams(self._contents.generators, {*map(torch.device, devices), *found})
                self._done = False
                for state in self._states:
                    state.set_grad_aside()
        except BaseException:
            for state in self._states:
                if state.grad is not None:
                    state.put_grad_back()
            self._done = True
            raise

    def _collect(self, modules: list[Any], optimizers: list[Any], grad_scaler: Any, extras: list[Any]) -> None:
        for extra in extras:
            _check_extra(extra)
        roots = [root for root in [*modules, *extras] if isinstance(root, nn.Module)]
        reshard(module for root in roots for module in root.modules())
        for root in [*modules, *optimizers, *([] if grad_scaler is None else [grad_scaler])]:
            self._contents.add(type(root).__name__, root)
        self._foreign = []
        for extra in extras:
            if _is_kept_whole(extra) or isinstance(extra, GENERATORS):
                self._contents.add(type(extra).__name__, extra)
            else:
                self._foreign.append(_StateDict(extra))
        self._states = [TensorState(name, tensor) for name, tensor in self._contents.tensors]
        self._reducers = Reducers(self._contents.modules)

    def _copy_bits(self, device: torch.device | None, *, copy_frozen: bool) -> None:
        stepped = {id(tensor) for optimizer in self._contents.optimizers for tensor in _stepped(optimizer)}
        views = any(getattr(module, "gradient_as_bucket_view", False) for module in self._contents.modules)
        parts: list[tuple[str, Tensor, bool]] = []
        for state in self._states:
            tensor = state.tensor
            frozen = isinstance(tensor, nn.Parameter) and not tensor.requires_grad and id(tensor) not in stepped
            parts += [(state.name, part, frozen) for part in state.parts]
            if tensor.is_leaf and tensor.grad is not None and (views or _is_part(tensor.grad)):
                kept = TensorState(f"{state.name}.grad", tensor.grad)
                parts += [(kept.name, part, False) for part in kept.parts]
        found = regions(parts)
        frozen_regions = [region for region in found if region.frozen]
        self._copies = [Copies([region for region in found if not region.frozen], device)]
        if copy_frozen:
            self._copies.append(Copies(frozen_regions, torch.device("cpu")))
        self._checksums = Checksums([] if copy_frozen else frozen_regions)

    def _put_back(self, *, streams: bool, gradients: bool) -> None:
        failures = ErrorCollector()
        with interrupts_deferred():
            with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
                self._put_state_back(failures, streams=streams, gradients=gradients)
                changed = self._checksums.changed() if gradients else []
            if failures or changed:
                raise _restore_error(failures, changed) from (failures[0][1] if failures else None)
            if gradients:
                self._done = True
                self._contents, self._states, self._copies, self._checksums = ObjectGraph(), [], [], Checksums([])

    def _put_state_back(self, failures: ErrorCollector, *, streams: bool, gradients: bool) -> None:
        # First of all: a pass of FSDP2 that was broken off goes on with full weights, whatever is written to shards.
        failures.attempt("FSDP2", lambda: reset(self._contents.modules))
        for foreign in self._foreign:
            failures.attempt(foreign.name, foreign.restore)
        self._contents.restore(failures)
        for state in self._states:
            failures.attempt(state.name, state.restore)
        for copies in self._copies:
            copies.restore(failures)
        for state in self._states:
            failures.attempt(f"{state.name}.grad", state.put_grad_back if gradients else state.clear_grad)
        if gradients:
            failures.attempt("DistributedDataParallel", self._reducers.restore)
        if streams:
            for capture in self._first:
                failures.attempt(type(capture).__name__, capture.restore)
            self._streams.restore(failures)
            for capture in self._last:
                failures.attempt(type(capture).__name__, capture.restore)


@contextmanager
def preserved(
    modules: Iterable[nn.Module] = (), optimizers: Iterable[Any] = (), **options: Any
) -> Generator[Snapshot, None, None]:
    """Take a snapshot and restore it on every way out; an exception of the user passes through unchanged.

    Args:
        modules: As for `Snapshot.take`.
        optimizers: As for `Snapshot.take`.
        **options: As for `Snapshot.take`.

    Yields:
        The snapshot.

    Example:
        >>> model = torch.nn.Linear(2, 1)
        >>> before = model.bias.tolist()
        >>> with preserved([model]):
        ...     _ = torch.nn.init.ones_(model.bias)
        >>> model.bias.tolist() == before
        True
    """  # noqa: DOC501 - an interrupt is only passed on
    snapshot = Snapshot()
    try:
        # Not `take`: an interrupt after it returned and before `try` would find the gradients set aside for good.
        snapshot._capture(modules, optimizers, **options)
        yield snapshot
    finally:
        try:
            snapshot.restore()
        except KeyboardInterrupt:  # arrived before interrupts were deferred
            snapshot.restore()
            raise


class _StateDict:
    """The state of an object that has a ``state_dict``."""

    def __init__(self, owner: Any) -> None:
        self.name = type(owner).__name__
        self._owner = owner
        self._saved = copy.deepcopy(owner.state_dict())

    def restore(self) -> None:
        self._owner.load_state_dict(copy.deepcopy(self._saved))  # the owner may keep what it is given


def _device(name: torch.device | str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ArgumentError(f"`snapshot_device` must name a device, like 'cpu', got {name!r}.") from error
    if device.type == "meta":
        raise ArgumentError(f"`snapshot_device` must have memory, got {name!r}. Use 'cpu'.")
    return device


def _is_kept_whole(extra: Any) -> bool:
    return isinstance(extra, (nn.Module, torch.optim.Optimizer, torch.amp.GradScaler))


def _check_extra(extra: Any) -> None:
    has_state = callable(getattr(extra, "state_dict", None)) and callable(getattr(extra, "load_state_dict", None))
    if not (_is_kept_whole(extra) or isinstance(extra, GENERATORS) or has_state):
        raise ArgumentError(
            "`extra_state` takes modules, optimizers, generators, and objects with `state_dict` and "
            f"`load_state_dict`, got {extra=!r}. Give the object these two methods, or leave it out."
        )


def _stepped(optimizer: Any) -> list[Tensor]:
    """Return the parameters that an optimizer holds, read without its properties (a wrapper's may do more)."""
    return [tensor for group in vars(optimizer).get("param_groups", ()) for tensor in group.get("params", ())]


def _is_part(tensor: Tensor) -> bool:
    """Return whether a gradient is a piece of a larger buffer that others may write to."""
    if tensor.layout != torch.strided or hasattr(tensor, "__tensor_flatten__"):
        return False
    return tensor._is_view() or tensor.untyped_storage().nbytes() != tensor.numel() * tensor.element_size()


def _changed_message(names: list[str]) -> str:
    return (
        f"Frozen parameters were written to during the range test: {', '.join(names)}. With `snapshot_frozen=False` "
        "they were not copied and cannot be put back. Use `snapshot_frozen=True`."
    )


def _restore_error(failures: ErrorCollector, changed: list[str]) -> RestoreError:
    parts = [f"{name} ({type(error).__name__}: {error})" for name, error in failures]
    message = f"Could not put back: {'; '.join(parts)}. Everything else is as it was." if parts else ""
    return RestoreError(" ".join(filter(None, [message, _changed_message(changed) if changed else ""])))
