"""Iterators over the (inputs, labels) pairs of a loader, with the interface of torch-lr-finder."""

from collections.abc import Iterator
from typing import Any

from typing_extensions import Self  # typing has it from 3.11 on; torch brings this package

from lrfinder.errors import ArgumentError

__all__ = ["DataLoaderIter", "TrainDataLoaderIter", "ValDataLoaderIter"]

_END = object()  # what a loader that has ended gives


class DataLoaderIter(Iterator[tuple[Any, Any]]):
    """An iterator over `(inputs, labels)` pairs of a loader.

    Override `inputs_labels_from_batch` in a subclass of `TrainDataLoaderIter` or `ValDataLoaderIter` for batches of
    another form.

    Args:
        data_loader: The loader.
    """

    def __init__(self, data_loader: Any) -> None:
        self.data_loader = data_loader
        self._iterator = iter(data_loader)

    @property
    def dataset(self) -> Any:
        """The data set of the loader."""
        return self.data_loader.dataset

    def inputs_labels_from_batch(self, batch_data: Any) -> tuple[Any, Any]:
        """Return the inputs and the labels of one batch.

        Args:
            batch_data: What the loader gave: a list or a tuple that begins with inputs and labels.

        Returns:
            Inputs and labels.

        Raises:
            ArgumentError: The batch has another type.
        """
        if not isinstance(batch_data, (list, tuple)):
            raise ArgumentError(
                f"Your batch type is not supported: {type(batch_data)}. Inherit from `TrainDataLoaderIter` or "
                "`ValDataLoaderIter` and override `inputs_labels_from_batch`."
            )
        inputs, labels, *_ = batch_data
        return inputs, labels

    def __iter__(self) -> Self:
        """Return the iterator itself."""
        return self

    def __next__(self) -> tuple[Any, Any]:
        """Return inputs and labels of the next batch."""
        return self.inputs_labels_from_batch(next(self._iterator))


class TrainDataLoaderIter(DataLoaderIter):
    """An iterator over training batches that starts the loader again where it ends.

    Args:
        data_loader: The loader.
        auto_reset: Whether to start again; if not, the range test ends with the data.
    """

    def __init__(self, data_loader: Any, auto_reset: bool = True) -> None:  # noqa: FBT001 - the original's interface
        super().__init__(data_loader)
        self.auto_reset = auto_reset

    def __next__(self) -> tuple[Any, Any]:
        """Return inputs and labels of the next batch."""  # noqa: DOC501 - the way every iterator ends
        batch = next(self._iterator, _END)
        if batch is _END and self.auto_reset:
            self._iterator = iter(self.data_loader)
            batch = next(self._iterator, _END)
        if batch is _END:
            raise StopIteration
        return self.inputs_labels_from_batch(batch)


class ValDataLoaderIter(DataLoaderIter):
    """An iterator over validation batches; `iter()` starts it again once it has given all of them.

    Args:
        data_loader: The loader; it must have a length.
    """

    def __init__(self, data_loader: Any) -> None:
        super().__init__(data_loader)
        self.run_limit = len(self.data_loader)
        self.run_counter = 0

    def __iter__(self) -> Self:
        """Return the iterator itself, started again if it has ended."""
        if self.run_counter >= self.run_limit:
            self._iterator = iter(self.data_loader)
            self.run_counter = 0
        return self

    def __next__(self) -> tuple[Any, Any]:
        """Return inputs and labels of the next batch."""
        self.run_counter += 1
        return super().__next__()
