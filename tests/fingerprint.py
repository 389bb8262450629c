"""A slow, obvious fingerprint of everything that is reachable from some objects, and of the process around them."""

import functools
import multiprocessing
import random
import signal
import threading
import types
import weakref
from collections import deque

import numpy as np
import torch
from torch import nn
from torch.optim import optimizer as optimizer_module
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data.dataloader import _BaseDataLoaderIter
from tqdm import TMonitor, tqdm

from lrfinder.snapshot.storage import StorageCopies

__all__ = ["Fingerprint", "bits", "bytes_copied", "differences", "process_state", "random_state"]

SIMPLE = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size, np.generic)
OPAQUE = (type, types.BuiltinFunctionType, types.ModuleType, types.GeneratorType)
OPAQUE_PACKAGES = ("torch._dynamo", "torch._C", "torch._inductor", "torch.distributed", "multiprocessing", "_thread")

# Threads of a worker's queue, which end some time after the worker, and torch.compile's; tqdm's is a TMonitor.
PASSING_THREADS = ("QueueFeederThread", "(_read_thread)")

# How the value of an object is read that isn't walked into.
VALUES = {
    torch.Generator: lambda value: bits(value.get_state()),
    random.Random: lambda value: repr(value.getstate()),
    np.random.RandomState: lambda value: legacy_state(value.get_state()),
    np.random.Generator: lambda value: repr(value.bit_generator.state),
    np.ndarray: lambda value: (value.shape, str(value.dtype), value.tobytes()),
    set: lambda value: sorted(_key(item) for item in value),
    frozenset: lambda value: sorted(_key(item) for item in value),
    weakref.ref: lambda value: id(value()),
    LRScheduler: lambda value: repr(value.state_dict()),
}


class Fingerprint:
    """Walks from named objects through everything they hold, and writes down identity and value of each part.

    Attributes:
        values: By path, what was found there.
    """

    def __init__(self, **roots):
        self.values = {}
        self._seen = set()
        self._alive = []  # so that no id is used again by another object
        for name, root in roots.items():
            self._walk(name, root)

    def _walk(self, path, value):
        if isinstance(value, SIMPLE):
            self.values[path] = (type(value).__name__, repr(value))
            return
        if isinstance(value, types.MethodType):
            self.values[path] = ("method", id(value.__self__), id(value.__func__))
            self._walk(f"{path}.__self__", value.__self__)
            return
        if isinstance(value, functools.partial):
            self._walk(f"{path}.func", value.func)
            self._walk(f"{path}.args", (*value.args, *value.keywords.values()))
            return
        if not isinstance(value, tuple):  # a tuple is as good as an equal one
            self.values[path] = (type(value).__name__, id(value))
            if id(value) in self._seen:
                return
            self._seen.add(id(value))
            self._alive.append(value)
        self._parts(path, value)

    def _parts(self, path, value):
        readers = {
            torch.Tensor: self._tensor,
            (dict, types.MappingProxyType): self._dict,
            (list, tuple, deque): self._row,
            _BaseDataLoaderIter: self._loader_iterator,
            nn.Module: self._attributes,
            types.FunctionType: self._function,
            tuple(VALUES): self._value,
        }
        for kinds, read in readers.items():
            if isinstance(value, kinds):
                read(path, value)
                return
        if not isinstance(value, OPAQUE) and not type(value).__module__.startswith(OPAQUE_PACKAGES):
            self._attributes(path, value)

    def _value(self, path, value):
        self.values[f"{path}:value"] = next(read(value) for kind, read in VALUES.items() if isinstance(value, kind))

    def _dict(self, path, value):
        self.values[f"{path}:keys"] = [_key(key) for key in value]
        for index, (key, item) in enumerate(list(value.items())):
            self._walk(f"{path}[{key if isinstance(key, SIMPLE) else index!r}]", item)

    def _row(self, path, value):
        self.values[f"{path}:len"] = len(value)
        for index, item in enumerate(value):
            self._walk(f"{path}[{index}]", item)

    def _loader_iterator(self, path, value):
        for name in ("_num_yielded", "_base_seed", "_send_idx", "_rcvd_idx", "_tasks_outstanding", "_shutdown"):
            self.values[f"{path}.{name}"] = repr(getattr(value, name, None))

    def _attributes(self, path, value):
        attributes = getattr(value, "__dict__", {})
        self.values[f"{path}:attributes"] = list(attributes)
        for name, item in list(attributes.items()):
            self._walk(f"{path}.{name}", item)
        for cls in type(value).__mro__:
            for name, slot in vars(cls).items():
                if isinstance(slot, types.MemberDescriptorType) and "__slots__" in vars(cls):
                    self._walk(f"{path}.{name}", getattr(value, name, "not set"))

    def _function(self, path, function):
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            is_set = cell != types.CellType()  # an empty cell has no contents to read
            self._walk(f"{path}.{name}", cell.cell_contents if is_set else "not set")
        self._walk(f"{path}.__defaults__", function.__defaults__)
        self._walk(f"{path}.__kwdefaults__", function.__kwdefaults__)
        self._attributes(path, function)

    def _tensor(self, path, tensor):
        self.values[f"{path}:value"] = bits(tensor)
        if tensor.layout == torch.strided:
            self.values[f"{path}:storage"] = (tensor.data_ptr(), tuple(tensor.stride()))
        self.values[f"{path}:flags"] = (tensor.requires_grad, tensor.is_inference(), str(tensor.device))
        self.values[f"{path}:hooks"] = [id(hook) for hook in (tensor._backward_hooks or {}).values()]
        if tensor.is_leaf:
            self._walk(f"{path}.grad", tensor.grad)
        for name, item in vars(tensor).items():
            if not name.startswith("_dynamo"):  # torch.compile's marks
                self._walk(f"{path}.{name}", item)


def _key(key):
    return repr(key) if isinstance(key, SIMPLE) else f"{type(key).__name__} {id(key)}"


def bits(tensor):
    """Return what distinguishes one tensor's value from another's: shape, dtype, and each bit."""
    tensor = getattr(tensor, "_local_tensor", tensor).detach()  # of a DTensor, the shard
    if hasattr(tensor, "__tensor_flatten__"):  # a wrapper, such as quantized state
        return (type(tensor).__name__, *(bits(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0]))
    if tensor.is_sparse:
        return ("sparse", tuple(tensor.shape), tensor.is_coalesced(), bits(tensor._indices()), bits(tensor._values()))
    data = tensor.cpu().contiguous().reshape(-1)
    return (tuple(tensor.shape), str(tensor.dtype), data.view(torch.uint8).numpy().tobytes())


def bytes_copied(snapshot):
    """Return how many bytes of tensors a snapshot has copied."""
    copies = [part for _, part in snapshot._parts if isinstance(part, StorageCopies)]
    return sum(saved.numel() * saved.element_size() for each in copies for saved in each._saved)


def legacy_state(state):
    """Return the state of NumPy's legacy generator as plain values; to print its array takes long."""
    if isinstance(state, dict):  # of another bit generator, without a long array
        return repr(state)
    name, key, *rest = state
    return (name, key.tobytes(), *rest)


def random_state():
    """Return the states of all global random generators."""
    state = {
        "python": repr(random.getstate()),
        "numpy": legacy_state(np.random.get_state()),  # noqa: NPY002 - the global stream is what is watched
        "torch": bits(torch.get_rng_state()),
    }
    if torch.cuda.is_available():
        state["cuda"] = [bits(each) for each in torch.cuda.get_rng_state_all()]
    return state


def process_state():
    """Return what a range test could leave behind in the process, outside the objects that it was given."""
    return {
        **random_state(),
        "workers": sorted(process.pid for process in multiprocessing.active_children()),
        "threads": sorted(
            thread.name
            for thread in threading.enumerate()
            if not thread.name.endswith(PASSING_THREADS) and not isinstance(thread, TMonitor)
        ),
        "optimizer hooks": [
            list(hooks)
            for hooks in (
                optimizer_module._global_optimizer_pre_hooks,
                optimizer_module._global_optimizer_post_hooks,
            )
        ],
        "module hooks": [
            list(getattr(nn.modules.module, name))
            for name in dir(nn.modules.module)
            if name.startswith("_global_") and isinstance(getattr(nn.modules.module, name), dict)
        ],
        "signal handlers": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)],
        "bars": len(tqdm._instances),
        "modes": (
            torch.is_grad_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.is_anomaly_enabled(),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_default_dtype(),
            torch.get_num_threads(),
        ),
    }


def differences(before, after):
    """Return, for two dicts, the keys under which they differ."""
    return [key for key in {**before, **after} if before.get(key, "absent") != after.get(key, "absent")]
