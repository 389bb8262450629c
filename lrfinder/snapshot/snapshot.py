"""A training setup at one moment, and the way back to it: bit for bit and in place."""

from collections.abc import Iterable, Sequence
from enum import Flag, auto
from types import TracebackType
from typing import Any
from warnings import warn

import torch
from torch import Tensor, nn

from lrfinder.errors import ArgumentError, LRFinderWarning, RestoreError
from lrfinder.snapshot.checksums import Checksums
from lrfinder.snapshot.ddp import DDPReducers
from lrfinder.snapshot.error_collector import ErrorCollector
from lrfinder.snapshot.fsdp import FSDPPasses
from lrfinder.snapshot.gradients import Gradients, NoGradients
from lrfinder.snapshot.interrupts import interrupts_deferred
from lrfinder.snapshot.loader_state import LoaderState
from lrfinder.snapshot.object_graph import LARGEST, MOST_OBJECTS, ObjectGraph
from lrfinder.snapshot.object_kinds import is_entered
from lrfinder.snapshot.part import Part
from lrfinder.snapshot.rng import RandomStreams
from lrfinder.snapshot.state_dicts import StateDicts
from lrfinder.snapshot.storage import StorageCopies, memory_regions
from lrfinder.snapshot.tensor_state import TensorState, TensorStates, version_of

__all__ = ["Snapshot"]


class _When(Flag):
    """On which calls a part is restored."""

    REWIND = auto()  # rewind(streams=False)
    REWIND_DATA = auto()  # rewind()
    RESTORE = auto()  # restore()
    REWINDS = REWIND | REWIND_DATA
    ALWAYS = REWIND | REWIND_DATA | RESTORE
    WITH_DATA = REWIND_DATA | RESTORE


class Snapshot:
    """Everything that training changes, captured when this is made, and put back by `restore` or at the end of `with`.

    Captured are the modules' tensors, attributes, flags and hooks; the optimizers' and the scaler's state and
    attributes; what functions and ordinary Python objects hold that these lead to; the random number generators; the
    state of loaders; and the extra state. No tensor and no container changes identity, neither when it is captured nor
    when it is put back. `ObjectGraph` says what is entered, and within which limits.

    All gradients are set aside: every `.grad` is None afterwards, until `restore` puts the same tensors back. (They are
    also put back if the snapshot is dropped before anything was trained, as when Ctrl-C arrives just before `with`.)

    Args:
        modules: The model, and what else a training step uses: a criterion, a loss function, a step function.
        optimizers: All optimizers that step.
        grad_scaler: A `torch.amp.GradScaler`, or None.
        extra_state: More that training changes: modules, optimizers, generators, objects with a `state_dict`, ordinary
            objects and containers.
        loaders: Loaders that will be read.
        parts: State that was captured elsewhere, put back last.
        skip: What attributes lead to and is kept by reference only, such as data sets.
        devices: Accelerators in use besides those of the tensors found; their random number generators are captured.
        snapshot_device: Where copies are kept; None keeps each on the device of its tensor. "cpu" is the host's memory,
            pinned if possible.
        snapshot_frozen: Whether frozen parameters (without `requires_grad` and in no optimizer) are copied, to the
            host's memory. If not, checksums detect whether they were written to.
        outer: A snapshot that is restored after this one. What it has copied and has not changed since is not copied
            again.

    Attributes:
        optimizers: Every torch optimizer that was captured: those given, and all that were found in other objects, such
            as the base optimizer of SAM.

    Raises:
        ArgumentError: A piece of extra state cannot be captured, or a lazy module is not initialised.

    Example:
        >>> model = torch.nn.Linear(2, 1)
        >>> before = model.weight.tolist()
        >>> with Snapshot([model]) as snapshot:
        ...     _ = torch.nn.init.zeros_(model.weight)
        ...     snapshot.rewind()
        ...     _ = torch.nn.init.ones_(model.weight)
        >>> model.weight.tolist() == before
        True
    """

    _used = True  # until gradients are set aside

    def __init__(
        self,
        modules: Iterable[Any] = (),
        optimizers: Iterable[Any] = (),
        *,
        grad_scaler: Any = None,
        extra_state: Iterable[Any] = (),
        loaders: Iterable[Any] = (),
        parts: Iterable[Part] = (),
        skip: Iterable[Any] = (),
        devices: Iterable[torch.device | str] = (),
        snapshot_device: torch.device | str | None = None,
        snapshot_frozen: bool = True,
        outer: "Snapshot | None" = None,
    ) -> None:
        self._copies: list[StorageCopies] = []
        self._parts: list[tuple[_When, Part]] = []
        self._checksums = Checksums([])
        self._gradients = Gradients([])
        self._large: list[tuple[str, Tensor, int]] = []
        self._restored = False
        self.optimizers: tuple[torch.optim.Optimizer, ...] = ()
        roots = [*modules, *optimizers, *([] if grad_scaler is None else [grad_scaler])]
        loaders = list(loaders)
        extras = [_checked_extra(extra) for extra in extra_state]
        device = None if snapshot_device is None else _checked_device(snapshot_device)
        try:
            with interrupts_deferred(), torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
                roots += filter(_is_captured_whole, extras)
                graph = ObjectGraph(roots, [*skip, *_data_of(loaders)])
                self.optimizers = tuple(graph.optimizers)
                self._large = [(name, tensor, version_of(tensor)) for name, tensor in graph.large_tensors]
                if graph.first_left_out is not None:
                    warn(_limit_message(graph.first_left_out), LRFinderWarning, stacklevel=2)
                state_dicts = StateDicts(extra for extra in extras if not _is_captured_whole(extra))
                earlier = [] if outer is None else outer._copies
                copies = self._copy_tensors(graph, device, earlier, copy_frozen=snapshot_frozen)
                streams = RandomStreams(graph.generators, [*devices, *{tensor.device for _, tensor in graph.tensors}])
                self._parts = self._ordered(graph, state_dicts, copies, streams, [*map(LoaderState, loaders), *parts])
                self._used = False
                self._gradients.set_aside()
        except BaseException:
            self._gradients.restore_if_untouched()
            raise

    def __enter__(self) -> "Snapshot":
        """Return the snapshot."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Put everything back; exceptions and interrupts pass through unchanged."""  # noqa: DOC501
        try:
            self.restore()
        except KeyboardInterrupt:  # it arrived before `restore` could delay it
            self.restore()
            raise

    def __del__(self) -> None:
        """Put the gradients back that were set aside, if nothing was trained."""
        if not self._used:
            self._gradients.restore_if_untouched()

    def rewind(self, *, streams: bool = True) -> None:
        """Put everything back as it was except the gradients, which stay set aside: ready for another training.

        Args:
            streams: Whether random number generators and the state of loaders are put back, too.

        Raises:
            RestoreError: Something could not be put back; everything else was.
        """
        if self._restored:
            raise RestoreError("`Snapshot.rewind` was called after `restore`, which ends a snapshot. Take a new one.")
        self._put_back(_When.REWIND_DATA if streams else _When.REWIND)

    def restore(self) -> None:
        """Put everything back as it was, including the gradients, and free the copies.

        Another call does nothing. An interrupt (Ctrl-C) that arrives meanwhile is raised when everything is done.

        Raises:
            RestoreError: Something could not be put back; everything else was.
        """  # noqa: DOC502 - raised by _put_back
        if not self._restored:
            self._put_back(_When.RESTORE)

    def verify(self) -> None:
        """Check that the frozen parameters that were not copied have not been written to.

        Raises:
            RestoreError: A frozen parameter has changed; the message names it.
        """
        with torch.no_grad():
            message = _changed_message(self._checksums)
        if message:
            raise RestoreError(message)

    def _copy_tensors(
        self, graph: ObjectGraph, device: torch.device | None, earlier: list[StorageCopies], *, copy_frozen: bool
    ) -> list[Part]:
        """Return what puts tensors back: the objects first, then their bits."""
        tensors = TensorStates(graph.tensors)
        self._gradients = Gradients(graph.tensors)
        regions = memory_regions(_tensors_to_copy(tensors, graph))
        frozen = [region for region in regions if region.frozen]
        self._copies.append(StorageCopies([region for region in regions if not region.frozen], device, earlier))
        if copy_frozen:
            self._copies.append(StorageCopies(frozen, torch.device("cpu"), earlier))
        else:
            self._checksums = Checksums(frozen)
        return [tensors, *self._copies]

    def _ordered(
        self, graph: ObjectGraph, others: Part, tensors: list[Part], streams: Part, data: list[Part]
    ) -> list[tuple[_When, Part]]:
        """Return all parts in the order in which they are put back.

        For one more kind of state, write a class with `restore`, and add it here.
        """
        return [
            # First, because modules in the middle of a pass use full weights, whatever is written to their shards.
            (_When.ALWAYS, FSDPPasses(graph.modules)),
            # Before the graph: load_state_dict may replace objects, which the graph then puts back.
            (_When.ALWAYS, others),
            # Which tensors the objects hold, then which memory the tensors point to, then the bits in it.
            (_When.ALWAYS, graph),
            *((_When.ALWAYS, part) for part in tensors),
            # After the tensors: a gradient must fit the shape, dtype and device of its tensor.
            (_When.REWINDS, NoGradients(self._gradients)),
            (_When.RESTORE, self._gradients),
            # After the modules and their flags, from which DDP builds its buckets.
            (_When.RESTORE, DDPReducers(graph.modules)),
            # After everything that might draw random numbers.
            (_When.WITH_DATA, streams),
            *((_When.WITH_DATA, part) for part in data),
        ]

    def _put_back(self, now: _When) -> None:
        self._used = True
        errors = ErrorCollector()
        with interrupts_deferred():
            with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
                for when, part in self._parts:
                    if now in when:
                        part.restore(errors)
                changed = _changed_message(self._checksums) if now is _When.RESTORE else ""
            errors.raise_if_any(changed)
            if now is _When.RESTORE:
                self._restored = True
                self._parts, self._copies = [], []
                self._checksums, self._gradients = Checksums([]), Gradients([])
                written = [name for name, tensor, version in self._large if version_of(tensor) != version]
                self._large = []
                if written:
                    warn(_written_message(written), LRFinderWarning, stacklevel=3)


def _checked_device(name: torch.device | str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ArgumentError(f"`snapshot_device` must name a device, like 'cpu', got {name!r}.") from error
    if device.type == "meta":
        raise ArgumentError(f"`snapshot_device` must have memory, got {name!r}. Use 'cpu'.")
    return device


def _data_of(loaders: Iterable[Any]) -> list[Any]:
    return [each for loader in loaders for each in (loader, getattr(loader, "dataset", None)) if each is not None]


def _is_captured_whole(extra: Any) -> bool:
    """Return whether the object graph captures an object; others are captured by their `state_dict`."""
    whole = (nn.Module, torch.optim.Optimizer, torch.amp.GradScaler)
    return isinstance(extra, whole) or not _has_state_dict(extra)


def _has_state_dict(extra: Any) -> bool:
    return callable(getattr(extra, "state_dict", None)) and callable(getattr(extra, "load_state_dict", None))


def _checked_extra(extra: Any) -> Any:
    if not (_has_state_dict(extra) or is_entered(extra)):
        raise ArgumentError(
            "`extra_state` takes modules, optimizers, generators, objects with `state_dict` and `load_state_dict`, and "
            f"ordinary objects, got {extra=!r}. Give the object these two methods, or leave it out."
        )
    return extra


def _tensors_to_copy(states: Sequence[TensorState], graph: ObjectGraph) -> list[tuple[str, Tensor, bool]]:
    """Return the plain tensors behind all tensors and behind those gradients that others may write to."""
    stepped = {id(tensor) for optimizer in graph.optimizers for tensor in _stepped(optimizer)}
    has_views = any(getattr(module, "gradient_as_bucket_view", False) for module in graph.modules)
    parts: list[tuple[str, Tensor, bool]] = []
    for state in states:
        tensor = state.tensor
        frozen = isinstance(tensor, nn.Parameter) and not tensor.requires_grad and id(tensor) not in stepped
        parts += [(state.name, part, frozen) for part in state.parts]
        if tensor.is_leaf and tensor.grad is not None and (has_views or _is_part(tensor.grad)):
            grad = TensorState(f"{state.name}.grad", tensor.grad)
            parts += [(grad.name, part, False) for part in grad.parts]
    return parts


def _stepped(optimizer: Any) -> list[Tensor]:
    """Return the parameters of an optimizer, read without its properties (those of a wrapper may do more)."""
    return [tensor for group in vars(optimizer).get("param_groups", ()) for tensor in group.get("params", ())]


def _is_part(tensor: Tensor) -> bool:
    """Return whether a gradient is a piece of a larger buffer."""
    if tensor.layout != torch.strided or hasattr(tensor, "__tensor_flatten__"):
        return False
    return tensor._is_view() or tensor.untyped_storage().nbytes() != tensor.numel() * tensor.element_size()


def _limit_message(name: str) -> str:
    return (
        f"The training leads to more than {MOST_OBJECTS:,} objects: {name} and what comes after it will not be "
        "restored. Pass what the training changes in extra_state, or hold less in its functions."
    )


def _written_message(names: list[str]) -> str:
    return (
        f"{', '.join(names)} changed and could not be restored: a tensor above {LARGEST >> 20} MiB outside of modules "
        "and optimizers is taken for data and not copied. If it is state of the training, pass it in extra_state."
    )


def _changed_message(checksums: Checksums) -> str:
    names = checksums.changed()
    if not names:
        return ""
    return (
        f"Frozen parameters were written to during the range test: {', '.join(names)}. With `snapshot_frozen=False` "
        "they were not copied and cannot be put back. Use `snapshot_frozen=True`."
    )
