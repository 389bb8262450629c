"""Random number generators: Python's, NumPy's and torch's global ones, and generator objects."""

import random
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch

from lrfinder.snapshot.error_collector import ErrorCollector

__all__ = ["GENERATORS", "RandomStreams", "is_generator", "rewinder"]

GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random)
"""The classes of random number generators whose state can be captured."""


def is_generator(value: Any) -> bool:
    """Return whether a value is a random number generator with a state that can be captured.

    Args:
        value: Any object.

    Example:
        >>> is_generator(random.Random(0)), is_generator(random.SystemRandom())
        (True, False)
    """
    return issubclass(type(value), GENERATORS) and not isinstance(value, random.SystemRandom)


def rewinder(generator: Any) -> Callable[[], object]:
    """Return a function that puts a generator back to the state that it has now.

    Args:
        generator: An object for which `is_generator` is true.

    Example:
        >>> generator = np.random.RandomState(0)
        >>> rewind = rewinder(generator)
        >>> drawn = generator.random()
        >>> _ = rewind()
        >>> generator.random() == drawn
        True
    """
    if isinstance(generator, torch.Generator):
        return partial(generator.set_state, generator.get_state())
    if isinstance(generator, random.Random):
        return partial(generator.setstate, generator.getstate())
    if isinstance(generator, np.random.RandomState):
        return partial(generator.set_state, generator.get_state(legacy=False))
    bits = generator.bit_generator if isinstance(generator, np.random.Generator) else generator
    return partial(setattr, bits, "state", bits.state)


class RandomStreams:
    """The states of random number generators at one moment.

    Python's `random`, NumPy's global generator and torch's CPU generator are always captured, those of accelerators
    where they are in use: reading the state of a device that is not initialised would initialise it.

    Args:
        generators: Pairs of a name and a generator object to capture beside the global ones.
        devices: The accelerators in use; CPU and meta devices are ignored.

    Example:
        >>> streams = RandomStreams()
        >>> drawn = random.random()
        >>> streams.restore(ErrorCollector())
        >>> random.random() == drawn
        True
    """

    def __init__(self, generators: Iterable[tuple[str, Any]] = (), devices: Iterable[torch.device | str] = ()) -> None:
        numpys = np.random.get_state(legacy=False)  # noqa: NPY002 - the global generator is what is captured
        self._rewinders: list[tuple[str, Callable[[], object]]] = [
            ("Python's random", partial(random.setstate, random.getstate())),
            ("NumPy's global random state", partial(np.random.set_state, numpys)),
            ("torch's CPU random state", partial(torch.set_rng_state, torch.get_rng_state())),
        ]
        self._rewinders += [_device_rewinder(device) for device in _devices_in_use(devices)]
        self._rewinders += [(name, rewinder(generator)) for name, generator in generators]

    def restore(self, errors: ErrorCollector) -> None:
        """Put every generator back to its captured state; may be called any number of times.

        Args:
            errors: Collects what could not be put back.
        """
        for name, rewind in self._rewinders:
            errors.attempt(name, rewind)


def _devices_in_use(devices: Iterable[torch.device | str]) -> list[torch.device]:
    found = {torch.device(device) for device in devices}
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call] # torch leaves it without types
        found = {device for device in found if device.type != "cuda"}
        found |= {torch.device("cuda", index) for index in range(torch.cuda.device_count())}
    return sorted((device for device in found if device.type not in {"cpu", "meta"}), key=str)


def _device_rewinder(device: torch.device) -> tuple[str, Callable[[], object]]:
    module = torch.get_device_module(device)
    if device.type == "mps":  # there is one device, and its functions take no index
        return "torch's mps random state", partial(module.set_rng_state, module.get_rng_state())
    state = module.get_rng_state(device)
    return f"torch's {device} random state", partial(module.set_rng_state, state, device)
