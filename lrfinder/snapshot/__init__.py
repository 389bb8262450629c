"""Put any torch training state back, bit for bit. Nothing here knows of learning rates."""

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
