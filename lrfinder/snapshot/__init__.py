"""Put any torch training state back, bit for bit. Nothing here knows of learning rates.

A snapshot captures the modules, the optimizers, and what they lead to; what the functions of the training hold (the
variables of their closures, defaults, the object of a bound method); ordinary Python objects; and the random number
generators, also those in data sets, transforms, samplers and collate functions.

It does not enter data sets and loaders (besides their generators), iterators, files, sockets, locks, threads and
processes, Python modules, classes and global variables (besides random number generators that the code names), objects
of frameworks such as trainers and loggers, `torch.distributed`, and state that C extensions hide from Python. Beyond
modules and optimizers it does not copy tensors above 64 MiB that are larger than all of those, nor enter containers of
more than 2,000 items, nor more than 20,000 objects. What training changes there can be passed as `extra_state`.
"""

from lrfinder.snapshot.error_collector import ErrorCollector
from lrfinder.snapshot.fsdp import is_sharded, reshard
from lrfinder.snapshot.interrupts import interrupts_deferred
from lrfinder.snapshot.loader_state import LoaderState, samplers
from lrfinder.snapshot.object_graph import ObjectGraph
from lrfinder.snapshot.part import Part
from lrfinder.snapshot.rng import RandomStreams
from lrfinder.snapshot.snapshot import Snapshot

__all__ = [
    "ErrorCollector",
    "LoaderState",
    "ObjectGraph",
    "Part",
    "RandomStreams",
    "Snapshot",
    "interrupts_deferred",
    "is_sharded",
    "reshard",
    "samplers",
]
