"""Which Python objects hold state of a training. It is decided by their type alone, so that no code of theirs is run.

Entered are modules, optimizers, gradient scalers, tensors and arrays, containers, functions (what their closures, their
defaults and their attributes hold), and ordinary objects: those of a class that is written in Python. Not entered are

- data: data sets, loaders and samplers of torch and of data libraries, and iterators;
- resources of the process: files, sockets, locks, threads, processes, queues, pools, loggers, database connections, and
  all else from Python's standard library except containers, namespaces and helpers for functions;
- modules, classes, and the global variables of functions;
- internals of torch: compiled code, autograd graphs, distributed groups, streams and events, profilers;
- objects of frameworks: trainers, accelerators, callbacks, loggers, configurations, tokenizers.

An object of a class that derives from one of these is not entered either. Modules and optimizers are always entered.
"""

import array
import functools
import random
import sys
import types
import weakref
from collections import deque
from dataclasses import is_dataclass
from enum import Enum, auto
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lrfinder.snapshot.rng import GENERATORS

__all__ = ["NOT_ENTERED", "SIMPLE_TYPES", "TORCH_INTERNALS", "Kind", "is_entered", "is_library", "kind_of"]


class Kind(Enum):
    """What an object is to a walk through state."""

    SIMPLE = auto()  # holds nothing that could change
    DICT = auto()
    SEQUENCE = auto()
    SET = auto()
    ARRAY = auto()
    TENSOR = auto()
    GENERATOR = auto()  # of random numbers
    MODULE = auto()
    SCRIPT_MODULE = auto()
    OPTIMIZER = auto()
    RECORD = auto()  # gradient scalers, dataclasses, namespaces
    FUNCTION = auto()
    METHOD = auto()
    PARTIAL = auto()
    OBJECT = auto()
    DATA = auto()
    FRAMEWORK = auto()
    RESOURCE = auto()


SIMPLE_TYPES: frozenset[type] = frozenset({
    bool, bytes, complex, float, int, str, range, slice, type, types.NoneType, weakref.ref,
    torch.device, torch.dtype, torch.layout, torch.memory_format, torch.Size,
})  # fmt: skip
"""The most frequent types that hold nothing to restore; a walk ignores them at once."""

_KINDS: tuple[tuple[Any, Kind], ...] = (
    (GENERATORS, Kind.GENERATOR),
    (Tensor, Kind.TENSOR),
    (torch.jit.ScriptModule, Kind.SCRIPT_MODULE),
    (nn.Module, Kind.MODULE),
    (torch.optim.Optimizer, Kind.OPTIMIZER),
    (dict, Kind.DICT),
    ((list, tuple, deque), Kind.SEQUENCE),
    ((set, frozenset), Kind.SET),
    (np.memmap, Kind.DATA),
    ((np.ndarray, bytearray, array.array), Kind.ARRAY),
    ((torch.amp.GradScaler, types.SimpleNamespace), Kind.RECORD),
    (types.FunctionType, Kind.FUNCTION),
    ((types.MethodType, types.BuiltinMethodType), Kind.METHOD),
    (functools.partial, Kind.PARTIAL),
    ((types.ModuleType, weakref.ref), Kind.RESOURCE),
    ((type, Enum, np.generic, random.SystemRandom), Kind.SIMPLE),
)

_TORCH_DATA = "torch.utils.data"
TORCH_INTERNALS = (
    "torch._C", "torch._dynamo", "torch._functorch", "torch._higher_order_ops", "torch._inductor", "torch._ops",
    "torch._subclasses", "torch.autograd", "torch.backends", "torch.cuda", "torch.distributed", "torch.export",
    "torch.futures", "torch.fx", "torch.jit", "torch.mps", "torch.multiprocessing", "torch.package", "torch.profiler",
    "torch.utils.benchmark", "torch.utils.tensorboard", "torch.xpu",
)  # fmt: skip
# The standard library without the classes that people derive ordinary ones from, or use as such.
_RESOURCES = sys.stdlib_module_names - {
    "_collections_abc", "abc", "argparse", "builtins", "collections", "contextlib", "dataclasses", "functools",
    "numbers", "types", "typing",
}  # fmt: skip
_DATA_LIBRARIES = frozenset({
    "PIL", "cv2", "dask", "datasets", "duckdb", "h5py", "lmdb", "netCDF4", "pandas", "polars", "pyarrow", "pyspark",
    "tables", "torchdata", "webdataset", "xarray", "zarr",
})  # fmt: skip
_FRAMEWORKS = frozenset({
    "IPython", "accelerate", "aim", "bitsandbytes", "clearml", "comet_ml", "composer", "dash", "deepspeed", "fastai",
    "fastprogress", "huggingface_hub", "hydra", "ignite", "ipykernel", "ipywidgets", "lightning", "lightning_fabric",
    "loguru", "lrfinder", "matplotlib", "mlflow", "monai", "neptune", "nltk", "omegaconf", "optuna", "plotly",
    "pydantic", "pytorch_lightning", "ray", "rich", "sentence_transformers", "sentencepiece", "spacy", "structlog",
    "tensorboard", "tensorboardX", "tiktoken", "tokenizers", "torch_tensorrt", "tqdm", "transformers", "wandb",
})  # fmt: skip


NOT_ENTERED = frozenset({Kind.SIMPLE, Kind.DATA, Kind.FRAMEWORK, Kind.RESOURCE})


def is_entered(value: Any) -> bool:
    """Return whether an object holds state that can be captured and put back.

    Args:
        value: Any object.

    Example:
        >>> is_entered([1]), is_entered(1), is_entered(sys.stdout)
        (True, False, False)
    """
    return kind_of(type(value)) not in NOT_ENTERED


def is_library(package: str) -> bool:
    """Return whether a top-level package is a known library, so that its code does not belong to the training.

    Args:
        package: Its name.

    Example:
        >>> is_library("transformers"), is_library("__main__")
        (True, False)
    """
    known = sys.stdlib_module_names | _DATA_LIBRARIES | _FRAMEWORKS
    return package in known or package in {"torch", "numpy", "scipy"}


def kind_of(cls: type) -> Kind:
    """Return what the objects of a class are to a walk through state.

    Args:
        cls: The class.

    Example:
        >>> import collections, io
        >>> kind_of(collections.UserDict).name, kind_of(list).name, kind_of(io.StringIO).name
        ('OBJECT', 'SEQUENCE', 'RESOURCE')
    """
    if cls in SIMPLE_TYPES or issubclass(cls, random.SystemRandom):
        return Kind.SIMPLE
    if str(cls.__module__).startswith("torch._subclasses"):
        return Kind.RESOURCE  # fake tensors, among others
    for classes, kind in _KINDS:
        if issubclass(cls, classes):
            return kind
    modules = [str(getattr(each, "__module__", "")) for each in cls.__mro__]  # of the classes that it derives from, too
    packages = {module.partition(".")[0] for module in modules}
    if packages & _DATA_LIBRARIES or any(module.startswith(_TORCH_DATA) for module in modules):
        return Kind.DATA
    if is_dataclass(cls):
        return Kind.RECORD
    if packages & _RESOURCES or any(module.startswith(TORCH_INTERNALS) for module in modules):
        return Kind.RESOURCE
    if hasattr(cls, "__next__"):
        return Kind.DATA
    if packages & _FRAMEWORKS:
        return Kind.FRAMEWORK
    has_attributes = cls.__dictoffset__ != 0 or any(vars(each).get("__slots__") for each in cls.__mro__)
    return Kind.OBJECT if has_attributes else Kind.SIMPLE
