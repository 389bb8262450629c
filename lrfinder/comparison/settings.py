"""The same find with different settings: hyperparameters of the optimizer, loaders, or finders."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

from lrfinder.comparison.named import find_named
from lrfinder.comparison.outcome import Comparison
from lrfinder.errors import ArgumentError
from lrfinder.finder import LRFinder

__all__ = ["compare"]

Values: TypeAlias = Sequence[Any] | npt.NDArray[Any] | Tensor

ARRAYS = (np.ndarray, Tensor)  # such as np.geomspace returns
LONG = 10  # characters of a float, such as 0.00031622776601683794
FORBIDDEN = frozenset({"params", "lr", "initial_lr"})  # group keys that are no setting of a comparison


def compare(
    finder: LRFinder | Mapping[str, LRFinder],
    loader: Any,
    settings: Mapping[str, Values] | None = None,
    **find_options: Any,
) -> Comparison:
    """Run a range test for each of several settings, from the same start on the same batches.

    Compared are values of the optimizer's hyperparameters, or several loaders (batch sizes), or several finders
    (anything else). With several hyperparameters all their combinations are tried. Everything is restored after each
    find and after an exception. Warnings begin with the name of the setting. (Smith, "A disciplined approach to neural
    network hyper-parameters", 2018.)

    Args:
        finder: The finder, or several by name.
        loader: The training data, as for `LRFinder.find`, or several loaders by name.
        settings: By the name of a hyperparameter in the optimizer's groups (weight_decay, momentum, betas, eps), the
            values to compare; they are set in all groups that have it.
        **find_options: For `LRFinder.find`; with `refine` the settings are scored by the short trainings.

    Returns:
        The results by setting, with a table, the overlaid curves, and the setting that scored best.

    Raises:
        ArgumentError: There is nothing to compare, more than one kind of thing to compare, an unknown hyperparameter,
            an iterator as loader, or something else than a finder.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> batches = [(x, x.sum(1, keepdim=True)) for x in torch.randn(4, 32, 2)]
        >>> finder = LRFinder(model, optimizer, torch.nn.MSELoss())
        >>> found = compare(finder, batches, {"momentum": [0.0, 0.9]}, progress=False)
        >>> list(found.results), optimizer.param_groups[0]["momentum"]
        (['momentum=0.0', 'momentum=0.9'], 0.9)
    """
    _check_types(finder, settings)
    kinds = {
        "a dict of finders": isinstance(finder, Mapping),
        "a dict of loaders": isinstance(loader, Mapping),
        "settings": settings is not None,
    }
    given = [name for name, is_given in kinds.items() if is_given]
    if len(given) != 1:
        raise ArgumentError(
            f"compare(finder, loader, settings) compares one kind of thing, got {' and '.join(given) or 'none'}; "
            'pass settings={"weight_decay": [0, 1e-4]}, or a dict of loaders, or a dict of finders.'
        )
    if hasattr(loader, "__next__"):
        raise ArgumentError(
            f"compare(loader=...) reads the same batches for each setting, got the iterator {type(loader).__name__}; "
            "pass a DataLoader or a list."
        )
    if isinstance(finder, Mapping):
        _check_names("finder", finder)
        return Comparison(results={name: find_named(name, each, loader, find_options) for name, each in finder.items()})
    if isinstance(loader, Mapping):
        _check_names("loader", loader)
        return Comparison(results={name: find_named(name, finder, each, find_options) for name, each in loader.items()})
    results = {}
    lists = {key: values.tolist() if isinstance(values, ARRAYS) else values for key, values in (settings or {}).items()}
    for values in _combinations(finder.optimizer, lists):
        with _set_in_groups(finder.optimizer, values):
            name = ", ".join(f"{key}={_text(value)}" for key, value in values.items())
            results[name] = find_named(name, finder, loader, find_options)
    return Comparison(results=results)


def _check_types(finder: Any, settings: Any) -> None:
    for each in finder.values() if isinstance(finder, Mapping) else [finder]:
        if not callable(getattr(each, "find", None)):
            raise ArgumentError(
                f"compare(finder=...) must be an LRFinder, or a dict of several, got {type(each).__name__}."
            )
    if settings is not None and not isinstance(settings, Mapping):
        raise ArgumentError(
            f"compare(settings=...) must be a dict of values by hyperparameter, got {type(settings).__name__}; "
            'for example {"weight_decay": [0, 1e-4]}.'
        )


def _check_names(argument: str, given: Mapping[str, Any]) -> None:
    if len(given) < 2 or not all(isinstance(name, str) for name in given):
        raise ArgumentError(
            f"compare({argument}=...) must hold at least two entries with a string as name, got {list(given)!r}."
        )


def _combinations(optimizer: Any, settings: Mapping[str, Sequence[Any]]) -> Iterable[dict[str, Any]]:
    """Return all combinations of the values.

    Raises:
        ArgumentError: The groups have no such key, or there are no values.
    """
    known = sorted({key for group in optimizer.param_groups for key in group} - FORBIDDEN)
    for key, values in settings.items():
        if key not in known:
            hint = " The learning rate is what is searched." if key in FORBIDDEN else ""
            raise ArgumentError(
                f"compare(settings=...) takes hyperparameters of the optimizer's groups, {', '.join(known)}, "
                f"got {key!r}.{hint}"
            )
        if isinstance(values, (str, bytes)) or not isinstance(values, Sequence) or not values:
            raise ArgumentError(f"compare(settings=...) must give a list of values for {key!r}, got {values!r}.")
        if len(set(map(_text, values))) < len(values):
            raise ArgumentError(f"compare(settings=...) must give different values for {key!r}, got {values!r}.")
    if not settings:
        raise ArgumentError("compare(settings=...) must name at least one hyperparameter, got an empty dict.")
    combinations = [dict(zip(settings, values, strict=True)) for values in itertools.product(*settings.values())]
    if len(combinations) < 2:
        raise ArgumentError(
            f"compare(settings=...) must give at least two values, got {combinations[0]}; one setting alone needs no "
            "compare: call LRFinder.find."
        )
    return combinations


def _text(value: Any) -> str:
    """Return a value as it stands in the name of a setting; of a long float six digits."""
    return f"{value:.6g}" if isinstance(value, float) and len(str(value)) > LONG else str(value)


@contextmanager
def _set_in_groups(optimizer: Any, values: Mapping[str, Any]) -> Iterator[None]:
    """Within this context the groups have other hyperparameters; the very objects they had come back after it."""
    saved = [(group, key, group[key]) for group in optimizer.param_groups for key in values if key in group]
    try:
        for group, key, before in saved:
            value = values[key]
            group[key] = before.new_full(before.shape, value) if isinstance(before, Tensor) else value
        yield
    finally:
        for group, key, before in saved:
            group[key] = before
