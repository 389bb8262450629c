"""Which objects are entered is decided by their type."""

import argparse
import array
import collections
import enum
import functools
import io
import logging
import multiprocessing
import queue
import random
import socket
import subprocess
import threading
import types
import weakref
from dataclasses import dataclass
from typing import Generic, TypeVar
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, TensorDataset

from lrfinder import LRFinder
from lrfinder.snapshot.object_kinds import Kind, is_entered, kind_of

T = TypeVar("T")


class Plain:
    pass


class Slotted:
    __slots__ = ("x",)


class Derived(Slotted):
    __slots__ = ()


class Empty:
    __slots__ = ()


class OfAType(Generic[T]):
    pass


class Callback(threading.Thread):
    pass


class Rows(Dataset):
    pass


@dataclass
class RowsOfADataclass(Dataset):
    n: int = 0


@dataclass(slots=True)
class SlottedRecord:
    n: int = 0


class Stream:
    def __iter__(self):
        return self

    def __next__(self):
        return 1


class Color(enum.Enum):
    RED = 1


class Noisy(random.Random):
    pass


KINDS = {
    Kind.OBJECT: [
        Plain, Slotted, Derived, OfAType, collections.UserDict, collections.ChainMap, argparse.Namespace,
        torch.optim.lr_scheduler.StepLR, torch.distributions.Normal,
    ],
    Kind.RECORD: [types.SimpleNamespace, SlottedRecord, torch.amp.GradScaler],
    Kind.DICT: [dict, collections.OrderedDict, collections.Counter, collections.defaultdict],
    Kind.SEQUENCE: [list, tuple, collections.deque],
    Kind.SET: [set, frozenset],
    Kind.ARRAY: [np.ndarray, bytearray, array.array],
    Kind.TENSOR: [torch.Tensor, nn.Parameter],
    Kind.GENERATOR: [
        torch.Generator, random.Random, Noisy, np.random.RandomState, np.random.Generator, np.random.PCG64,
    ],
    Kind.MODULE: [nn.Linear],
    Kind.SCRIPT_MODULE: [torch.jit.ScriptModule],
    Kind.OPTIMIZER: [torch.optim.Adam],
    Kind.FUNCTION: [types.FunctionType],
    Kind.METHOD: [types.MethodType, types.BuiltinMethodType],
    Kind.PARTIAL: [functools.partial],
    Kind.DATA: [Rows, RowsOfADataclass, IterableDataset, TensorDataset, DataLoader, Sampler, Stream, np.memmap, zip,
                types.GeneratorType],
    Kind.FRAMEWORK: [LRFinder],
    Kind.RESOURCE: [
        Callback, threading.Thread, type(threading.Lock()), io.StringIO, socket.socket, subprocess.Popen, queue.Queue,
        logging.Logger, type(multiprocessing.Queue()), mock.Mock, types.ModuleType, weakref.WeakKeyDictionary,
        torch.cuda.Stream, torch.profiler.profile, torch.distributed.ProcessGroup,
    ],
    Kind.SIMPLE: [
        int, str, type(None), type, Empty, Color, np.float32, random.SystemRandom, torch.dtype, slice, object,
        property,
    ],
}  # fmt: skip


@pytest.mark.parametrize(("kind", "cls"), [(kind, cls) for kind, classes in KINDS.items() for cls in classes])
def test_kinds(kind, cls):
    assert kind_of(cls) is kind


def test_no_code_of_the_object_is_run():
    class Trap:
        def __getattribute__(self, name):
            raise AssertionError

    assert is_entered(Trap())


@pytest.mark.parametrize("module", ["lightning.pytorch.callbacks", "transformers.trainer", "wandb", "accelerate.state"])
def test_objects_of_frameworks_and_classes_derived_from_them_are_not_entered(module):
    callback = type("Callback", (), {"__module__": module})
    assert kind_of(callback) is Kind.FRAMEWORK
    assert kind_of(type("Own", (callback,), {})) is Kind.FRAMEWORK
    assert kind_of(type("Own", (callback, nn.Module), {})) is Kind.MODULE
