"""A drop-in replacement for `monai.optimizers.LearningRateFinder`: its interface on this package's engine.

Change the import to `from lrfinder.integrations.monai import LearningRateFinder`. What is said in
`lrfinder.integrations.torch_lr_finder` holds here too: same learning rates, same losses, everything restored, and a
suggestion in `LearningRateFinder.result`. Nothing is printed. MONAI itself is not needed.

Reference: https://github.com/Project-MONAI/MONAI
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from lrfinder.errors import ArgumentError
from lrfinder.integrations import torch_lr_finder
from lrfinder.integrations.pair_iterators import DataLoaderIter, TrainDataLoaderIter, ValDataLoaderIter
from lrfinder.integrations.threshold_sweep import PairLoader
from lrfinder.integrations.torch_lr_finder import draw_history, mark_steepest

if TYPE_CHECKING:  # matplotlib is loaded by the first plot
    from matplotlib.axes import Axes

__all__ = ["LearningRateFinder"]

_Extractor = Callable[[Any], Any]


def _image(batch: Any) -> Any:
    return batch["image"] if isinstance(batch, dict) else batch[0]


def _label(batch: Any) -> Any:
    return batch["label"] if isinstance(batch, dict) else batch[1]


class LearningRateFinder(torch_lr_finder.LRFinder):
    """The learning-rate range test with the interface of MONAI.

    Args:
        model: The model.
        optimizer: Its optimizer. Without `start_lr` the test begins at its learning rate.
        criterion: `criterion(outputs, labels)` returns a scalar loss.
        device: Where the test runs; by default where the model is. The model is moved back afterwards.
        memory_cache: Keep the copy for `reset` in host memory; otherwise in a file.
        cache_dir: The folder of that file; by default the system's folder for temporary files.
        amp: Must be False: MONAI means apex, which is not supported.
        pickle_module: Accepted and ignored.
        pickle_protocol: Accepted and ignored.
        verbose: Show a progress bar.

    Raises:
        ArgumentError: `cache_dir` is no folder, or `amp` is asked for.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> samples = [{"image": x, "label": x.sum(0, keepdim=True)} for x in torch.randn(256, 4)]
        >>> model = nn.Linear(4, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
        >>> finder = LearningRateFinder(model, optimizer, nn.MSELoss(), verbose=False)
        >>> finder.range_test(DataLoader(samples, batch_size=16, shuffle=True), num_iter=60)
        >>> 0.01 < finder.result.suggestion.lr < 1.0
        True
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        criterion: Callable[[Any, Any], Tensor],
        device: torch.device | str | None = None,
        memory_cache: bool = True,  # noqa: FBT001 - the original's interface
        cache_dir: str | None = None,
        amp: bool = False,  # noqa: FBT001 - the original's interface
        pickle_module: Any = None,  # noqa: ARG002 - the original's interface
        pickle_protocol: int | None = None,  # noqa: ARG002 - the original's interface
        verbose: bool = True,  # noqa: FBT001 - the original's interface
    ) -> None:
        if amp:
            raise ArgumentError(
                "LearningRateFinder(amp=True) means apex, which is not supported; use lrfinder.LRFinder(autocast=...)."
            )
        super().__init__(model, optimizer, criterion, device, memory_cache, cache_dir)
        self.verbose = verbose

    def range_test(  # type: ignore[override]  # MONAI's order of arguments
        self,
        train_loader: Any,
        val_loader: Any = None,
        image_extractor: _Extractor = _image,
        label_extractor: _Extractor = _label,
        start_lr: float | None = None,
        end_lr: float = 10.0,
        num_iter: int = 100,
        step_mode: str = "exp",
        smooth_f: float = 0.05,
        diverge_th: float = 5,
        accumulation_steps: int = 1,
        non_blocking_transfer: bool = True,  # noqa: ARG002, FBT001 - the original's interface
        auto_reset: bool = True,  # noqa: ARG002, FBT001 - the original's interface
        *,
        total_steps: int | None = None,
        schedule: str = "one_cycle",
    ) -> None:
        """Train `num_iter` steps at rising learning rates, then restore everything.

        Args:
            train_loader: A `DataLoader`.
            val_loader: A `DataLoader`: the loss is measured on all of it after each step.
            image_extractor: Returns the inputs of a batch; by default its entry `"image"` or its first item.
            label_extractor: Returns the labels of a batch; by default its entry `"label"` or its second item.
            start_lr: The first learning rate; by default each parameter group begins at its own.
            end_lr: The last learning rate, of every group.
            num_iter: How many steps.
            step_mode: `"exp"` or `"linear"`.
            smooth_f: The weight of a new loss in the running mean of `history`, in [0, 1); 0 for no smoothing.
            diverge_th: Stop where the smoothed loss exceeds this multiple of the lowest one.
            accumulation_steps: Micro-batches per step.
            non_blocking_transfer: Accepted and ignored: copies to an accelerator never block.
            auto_reset: Accepted and ignored: model and optimizer are always restored.
            total_steps: How many optimizer steps the training will take; the suggestion depends on it.
            schedule: The schedule that the suggestion is for: one of `lrfinder.SCHEDULES`.
        """
        extract = image_extractor, label_extractor
        sweep, lrs = self._begin(start_lr, end_lr, num_iter, step_mode, smooth_f, diverge_th)
        self._run(
            sweep,
            lrs=lrs,
            train=_pairs("train_loader", train_loader, _TrainIter, extract),
            val=_pairs("val_loader", val_loader, _ValIter, extract) if val_loader else None,
            accumulation_steps=accumulation_steps,
            total_steps=total_steps,
            schedule=schedule,
            progress=self.verbose,
        )

    def get_lrs_and_losses(self, skip_start: int = 0, skip_end: int = 0) -> tuple[list[float], list[float]]:
        """Return learning rates and smoothed losses, without the last point (as in MONAI).

        Args:
            skip_start: How many points to leave out at the start.
            skip_end: How many further points to leave out at the end.

        Returns:
            The learning rates and the losses.

        Raises:
            ArgumentError: A number is negative.
        """
        for name, value in (("skip_start", skip_start), ("skip_end", skip_end)):
            if value < 0:
                raise ArgumentError(f"{name} cannot be negative, got {value}.")
        kept = slice(skip_start, len(self.history["lr"]) - skip_end - 1)
        return self.history["lr"][kept], self.history["loss"][kept]

    def get_steepest_gradient(self, skip_start: int = 0, skip_end: int = 0) -> tuple[float, float] | tuple[None, None]:
        """Return the point of the steepest descent.

        Args:
            skip_start: How many points to leave out at the start.
            skip_end: How many further points to leave out at the end.

        Returns:
            Its learning rate and its loss; None and None where there are fewer than two points.
        """
        lrs, losses = self.get_lrs_and_losses(skip_start, skip_end)
        if len(losses) < 2:
            return None, None
        steepest = int(np.gradient(losses).argmin())
        return lrs[steepest], losses[steepest]

    def plot(  # type: ignore[override]  # MONAI's arguments
        self,
        skip_start: int = 0,
        skip_end: int = 0,
        log_lr: bool = True,  # noqa: FBT001 - the original's interface
        ax: "Axes | None" = None,
        steepest_lr: bool = True,  # noqa: FBT001 - the original's interface
    ) -> "Axes":
        """Draw the smoothed loss over the learning rate; `result.plot()` draws the suggestion of this package.

        Args:
            skip_start: How many points to leave out at the start.
            skip_end: How many further points to leave out at the end.
            log_lr: Draw the learning rate on a logarithmic scale.
            ax: Where to draw; a new figure by default.
            steepest_lr: Mark the steepest descent.

        Returns:
            The axes.
        """
        ax = draw_history(*self.get_lrs_and_losses(skip_start, skip_end), ax, log_lr=log_lr)
        lr, loss = self.get_steepest_gradient(skip_start, skip_end)
        if steepest_lr and lr is not None and loss is not None:
            mark_steepest(ax, lr, loss)
        return ax


class _Extracting(DataLoaderIter):
    """An iterator whose pairs two functions take out of each batch."""

    def __init__(self, data_loader: Any, extract: tuple[_Extractor, _Extractor]) -> None:
        super().__init__(data_loader)
        self._extract = extract

    def inputs_labels_from_batch(self, batch_data: Any) -> tuple[Any, Any]:
        image, label = self._extract
        return image(batch_data), label(batch_data)


class _TrainIter(_Extracting, TrainDataLoaderIter):
    pass


class _ValIter(_Extracting, ValDataLoaderIter):
    pass


def _pairs(name: str, loader: Any, kind: type[_Extracting], extract: tuple[_Extractor, _Extractor]) -> PairLoader:
    if not isinstance(loader, DataLoader):
        raise ArgumentError(
            f"`{name}` has unsupported type: {type(loader)}. Expected type is `torch.utils.data.DataLoader`."
        )
    return PairLoader(loader, partial(kind, extract=extract))
