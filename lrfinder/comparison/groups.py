"""Parameter groups swept one by one."""

import html
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lrfinder.comparison.files import plain_results, read_results, write_results
from lrfinder.comparison.named import find_named
from lrfinder.comparison.table import result_table, suggested_lr
from lrfinder.display import lr_text
from lrfinder.errors import ArgumentError, NoSuggestionError
from lrfinder.finder import LRFinder
from lrfinder.optim import group_names
from lrfinder.result import RangeTestResult

if TYPE_CHECKING:  # matplotlib is loaded by the first plot
    from matplotlib.axes import Axes

__all__ = ["GroupResults", "find_each_group"]

ALL = "all groups"  # the name of the sweep of all groups together
KIND = "groups"  # in the JSON file


class GroupResults(dict[str, RangeTestResult]):
    """The results of `find_each_group` by the group's name; the first is the sweep of all groups together."""

    def group_lrs(self) -> list[float]:
        """Return the learning rate that was found for each group by its own sweep.

        Those of the sweep of all groups together are `results["all groups"].group_lrs()`, the safer choice.

        Returns:
            One per group, in the order of `optimizer.param_groups`; a group that was not swept keeps its own.

        Raises:
            NoSuggestionError: The sweep of a group shows no learning rate; the message names the group.
        """  # noqa: DOC502 - raised by _own_lr
        pairs = zip(self[ALL].group_names, _lrs_together(self[ALL]), strict=True)
        return [self._own_lr(name) if name in self else lr for name, lr in pairs]

    def _own_lr(self, name: str) -> float:
        try:
            return self[name].suggestion.lr
        except NoSuggestionError as error:
            raise NoSuggestionError(f"The sweep of {name!r} has no suggestion. {error}") from error

    def __str__(self) -> str:
        """Return a table, and the learning rates of the groups as found together and one by one."""
        return "\n".join([result_table("swept", self), *self._lines()])

    def _lines(self) -> list[str]:
        lines = []
        if suggested_lr(self[ALL]) is None:
            lines.append("together: no suggestion; each group was swept while the others kept their own lr")
        for title, lrs in (("together", self[ALL].group_lrs), ("one by one", self.group_lrs)):
            with suppress(NoSuggestionError):  # the table says that there is none
                pairs = zip(self[ALL].group_names, lrs(), strict=True)
                lines.append(f"{title}: {'   '.join(f'{name} {lr_text(lr)}' for name, lr in pairs)}")
        return lines

    def _repr_html_(self) -> str:
        """Return the same, for notebooks."""
        return f"<pre>{html.escape(str(self))}</pre>"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain numbers, strings, lists and dictionaries.

        Returns:
            What `save` writes.
        """
        return plain_results(KIND, self)

    def save(self, path: str | Path) -> None:
        """Write the results to a JSON file.

        Args:
            path: The file; it is overwritten.
        """
        write_results(path, KIND, self)

    @classmethod
    def load(cls, path: str | Path) -> "GroupResults":
        """Read results that `save` wrote.

        Args:
            path: The file.

        Returns:
            Equal results.

        Raises:
            ArgumentError: The file holds something else.
        """  # noqa: DOC502 - raised by read_results
        return cls(read_results(path, KIND, "GroupResults"))

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw all curves into one picture.

        Args:
            ax: Where to draw; a new figure by default.

        Returns:
            The Axes drawn on.
        """
        for name, result in self.items():
            ax = result.plot(ax, label=name)
        assert ax is not None  # there is at least one result
        ax.set_xlabel("learning rate")
        return ax


def find_each_group(finder: LRFinder, loader: Any, **find_options: Any) -> GroupResults:
    """Sweep all parameter groups together, then each on its own while the others train at the suggestion.

    Where the sweep of all groups has no suggestion, the others keep their own learning rates. A group whose learning
    rate is 0 is frozen and is not swept. Everything is restored after each find and after an exception. Warnings begin
    with the name of the group.

    The curves show which group limits the learning rate. Learning rates found one by one are no safe choice to train
    with: a group that is swept alone tolerates more, as the others lower the loss meanwhile. In the benchmark on
    fine-tuning they were the best choice for one network, and far too high for the other.

    Args:
        finder: The finder; its optimizer needs at least two parameter groups.
        loader: The training data, as for `LRFinder.find`.
        **find_options: For `LRFinder.find`.

    Returns:
        A dict of results by the group's name; the first entry is the sweep of all groups together.

    Raises:
        ArgumentError: The optimizer has a single group, two groups have the same name, the loader is an iterator, or
            `group` is among the options.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Linear(4, 1))
        >>> names = ("body", "head")
        >>> groups = [{"params": layer.parameters(), "name": name} for layer, name in zip(model, names)]
        >>> finder = LRFinder(model, torch.optim.SGD(groups, lr=0.1), torch.nn.MSELoss())
        >>> batches = [(x, x.sum(1, keepdim=True)) for x in torch.randn(4, 32, 2)]
        >>> list(find_each_group(finder, batches, progress=False))
        ['all groups', 'body', 'head']
    """
    names = group_names(finder.optimizer)
    if len(names) < 2 or len({ALL, *names}) <= len(names):
        raise ArgumentError(
            "find_each_group(finder=...) needs an optimizer with at least two parameter groups of different names, "
            f"none of them {ALL!r}, got {', '.join(map(repr, names))}; build it from groups: [{{'params': ..., "
            "'name': 'head'}, ...]."
        )
    if "group" in find_options:
        raise ArgumentError(
            f"find_each_group(group=...) sweeps every group, got group={find_options['group']!r}; leave it out."
        )
    if hasattr(loader, "__next__"):
        raise ArgumentError(
            f"find_each_group(loader=...) reads the same batches for each group, got the iterator "
            f"{type(loader).__name__}; pass a DataLoader or a list."
        )
    results = GroupResults({ALL: find_named(ALL, finder, loader, find_options)})
    lrs = _lrs_together(results[ALL])
    for index, (name, lr) in enumerate(zip(names, lrs, strict=True)):
        if lr > 0:
            with _at(finder.optimizer, lrs):
                results[name] = find_named(name, finder, loader, {**find_options, "group": index})
    return results


def _lrs_together(together: RangeTestResult) -> Sequence[float]:
    """Return each group's lr by the sweep of all groups, or its own where that has no suggestion."""
    return together.initial_lrs if suggested_lr(together) is None else together.group_lrs()


@contextmanager
def _at(optimizer: Any, lrs: Sequence[float]) -> Iterator[None]:
    """Within this context the groups have these learning rates; the very objects they had come back after it."""
    keys = ("lr", "initial_lr")
    saved = [(group, key, group[key]) for group in optimizer.param_groups for key in keys if key in group]
    try:
        for group, lr in zip(optimizer.param_groups, lrs, strict=True):
            base = lr / group.get("lr_scale", 1.0)
            for key in keys:
                if key in group:
                    before = group[key]
                    group[key] = before.new_full(before.shape, base) if isinstance(before, Tensor) else base
        yield
    finally:
        for group, key, before in saved:
            group[key] = before
