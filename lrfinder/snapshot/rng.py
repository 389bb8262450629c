"""Streams of random numbers: Python's, NumPy's, torch's on each device, and generator objects of the user."""

import random
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch

from lrfinder.snapshot.error_collector import ErrorCollector

__all__ = ["GENERATORS", "RandomStreams"]

GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)

_Stream = tuple[str, Callable[[Any], object], Any]  # name, how to put a state back, the state


class RandomStreams:
    """The states of the random streams at one moment.

    Python's ``random``, NumPy's global stream and torch's CPU stream are always kept, those of accelerators where they
    are in use: the stream of a device that nobody has initialised is left alone, since asking for it initialises it.

    Args:
        generators: Pairs of a name and a generator object (one of `GENERATORS`) to keep beside the global streams.
        devices: The accelerators in use; CPU and meta devices are passed over.

    Example:
        >>> streams = RandomStreams()
        >>> drawn = random.random()
        >>> streams.restore(ErrorCollector())
        >>> random.random() == drawn
        True
    """

    def __init__(self, generators: Iterable[tuple[str, Any]] = (), devices: Iterable[torch.device | str] = ()) -> None:
        """Capture the states; nothing is drawn."""
        numpys = np.random.get_state(legacy=False)  # noqa: NPY002 - the global stream is what is kept
        self._streams: list[_Stream] = [
            ("Python's random", random.setstate, random.getstate()),
            ("NumPy's global random state", np.random.set_state, numpys),
            ("torch's CPU random state", torch.set_rng_state, torch.get_rng_state()),
        ]
        self._streams += [_device_stream(device) for device in _devices_in_use(devices)]
        self._streams += [_generator_stream(name, generator) for name, generator in generators]

    def restore(self, failures: ErrorCollector) -> None:
        """Put every stream back where it was; may be called any number of times.

        Args:
            failures: Takes note of what could not be put back.
        """
        for name, put_back, state in self._streams:
            failures.attempt(name, partial(put_back, state))


def _devices_in_use(devices: Iterable[torch.device | str]) -> list[torch.device]:
    found = {torch.device(device) for device in devices}
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call] # torch leaves it without types
        found = {device for device in found if device.type != "cuda"}
        found |= {torch.device("cuda", index) for index in range(torch.cuda.device_count())}
    return sorted((device for device in found if device.type not in {"cpu", "meta"}), key=str)


def _device_stream(device: torch.device) -> _Stream:
    module = torch.get_device_module(device)
    if device.type == "mps":  # one device, and its functions take no index
        return "torch's mps random state", module.set_rng_state, module.get_rng_state()
    return (
        f"torch's {device} random state",
        lambda state: module.set_rng_state(state, device),
        module.get_rng_state(device),
    )


def _generator_stream(name: str, generator: Any) -> _Stream:
    if isinstance(generator, torch.Generator):
        return name, generator.set_state, generator.get_state()
    if isinstance(generator, random.Random):
        return name, generator.setstate, generator.getstate()
    if isinstance(generator, np.random.RandomState):
        return name, generator.set_state, generator.get_state(legacy=False)
    bits = generator.bit_generator
    return name, lambda state: setattr(bits, "state", state), bits.state
