"""A drop-in replacement for the package torch-lr-finder: its interface on this package's engine.

Change `from torch_lr_finder import LRFinder` to `from lrfinder.integrations.torch_lr_finder import LRFinder`. The range
test takes the same steps at the same learning rates and measures the same losses, bit for bit. In addition the model,
the optimizer, the loader and the random state are restored when `range_test` returns or raises, and
`LRFinder.result` holds a suggestion, its reason, and the schedulers.

Different from the original: nothing is printed; `plot` does not call `plt.show()`; a loss that is NaN or infinite ends
the test and is not in `history`; a step that the gradient scaler skips is not in `history`; apex is not supported.

Reference: https://github.com/davidtvs/pytorch-lr-finder
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from lrfinder.errors import ArgumentError
from lrfinder.integrations.pair_iterators import DataLoaderIter, TrainDataLoaderIter, ValDataLoaderIter
from lrfinder.integrations.saved_state import SavedState
from lrfinder.integrations.threshold_sweep import PairLoader, RangeTest, ThresholdSweep, lr_table
from lrfinder.result import RangeTestResult

if TYPE_CHECKING:  # matplotlib is loaded by the first plot
    from matplotlib.axes import Axes

__all__ = ["DataLoaderIter", "LRFinder", "TrainDataLoaderIter", "ValDataLoaderIter"]


class LRFinder:
    """The learning-rate range test with the interface of torch-lr-finder.

    Args:
        model: The model.
        optimizer: Its optimizer. Without `start_lr` the test begins at its learning rate.
        criterion: `criterion(outputs, labels)` returns a scalar loss.
        device: Where the test runs; by default where the model is. The model is moved back afterwards.
        memory_cache: Keep the copy for `reset` in host memory; otherwise in a file.
        cache_dir: The folder of that file; by default the system's folder for temporary files.
        amp_backend: `"torch"` for mixed precision with `torch.amp`, or None.
        amp_config: Keyword arguments for `torch.autocast`.
        grad_scaler: The gradient scaler; required with `amp_backend="torch"`.

    Attributes:
        history: Lists under `"lr"` and `"loss"`: the learning rate of the first parameter group, and the smoothed loss.
        best_loss: The lowest smoothed loss.
        result: The `RangeTestResult` of the last range test: suggestion, curve of raw losses, schedulers. None before.

    Raises:
        ArgumentError: `cache_dir` is no folder, or the arguments for mixed precision do not fit together.
        RuntimeError: The optimizer has a scheduler.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> _ = torch.manual_seed(0)
        >>> inputs = torch.randn(256, 4)
        >>> loader = DataLoader(TensorDataset(inputs, inputs.sum(1, keepdim=True)), batch_size=16, shuffle=True)
        >>> model = nn.Linear(4, 1)
        >>> lr_finder = LRFinder(model, torch.optim.SGD(model.parameters(), lr=1e-4), nn.MSELoss())
        >>> lr_finder.range_test(loader, end_lr=10, num_iter=60, progress=False)
        >>> 0.01 < lr_finder.result.suggestion.lr < 1.0
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
        amp_backend: str | None = None,
        amp_config: dict[str, Any] | None = None,
        grad_scaler: Any = None,
    ) -> None:
        check_no_scheduler(optimizer)
        _check_amp(amp_backend, grad_scaler)
        self.model = model
        self.optimizer = optimizer
        self.criterion = criterion
        self.history: dict[str, list[float]] = {"lr": [], "loss": []}
        self.best_loss: float | None = None
        self.result: RangeTestResult | None = None
        self.memory_cache = memory_cache
        self.cache_dir = cache_dir
        self.amp_backend = amp_backend
        self.amp_config = amp_config
        self.grad_scaler = grad_scaler
        self.model_device = next(model.parameters()).device
        self.device = device or self.model_device
        self._saved = SavedState([model, optimizer], in_memory=memory_cache, folder=cache_dir)

    def reset(self) -> None:
        """Put model and optimizer back to where they were when this object was made.

        `range_test` restores them by itself: this is for a model that has been trained since.
        """
        self._saved.restore([self.model, self.optimizer])
        self.model.to(self.model_device)

    def range_test(
        self,
        train_loader: Any,
        val_loader: Any = None,
        start_lr: float | None = None,
        end_lr: float = 10,
        num_iter: int = 100,
        step_mode: str = "exp",
        smooth_f: float = 0.05,
        diverge_th: float = 5,
        accumulation_steps: int = 1,
        non_blocking_transfer: bool = True,  # noqa: ARG002, FBT001 - the original's interface
        *,
        total_steps: int | None = None,
        schedule: str = "one_cycle",
        progress: bool = True,
    ) -> None:
        """Train `num_iter` steps at rising learning rates, then restore everything.

        Args:
            train_loader: A `DataLoader`, or a `TrainDataLoaderIter`, which is consumed.
            val_loader: A `DataLoader` or a `ValDataLoaderIter`: the loss is measured on all of it after each step.
            start_lr: The first learning rate; by default each parameter group begins at its own.
            end_lr: The last learning rate, of every group.
            num_iter: How many steps.
            step_mode: `"exp"` or `"linear"`.
            smooth_f: The weight of a new loss in the running mean of `history`, in [0, 1); 0 for no smoothing.
            diverge_th: Stop where the smoothed loss exceeds this multiple of the lowest one.
            accumulation_steps: Micro-batches per step.
            non_blocking_transfer: Accepted and ignored: copies to an accelerator never block.
            total_steps: How many optimizer steps the training will take; the suggestion depends on it.
            schedule: The schedule that the suggestion is for: one of `lrfinder.SCHEDULES`.
            progress: Show a progress bar.

        Raises:
            ArgumentError: An argument breaks a rule; nothing has been changed.
            RuntimeError: The optimizer has a scheduler.
        """  # noqa: DOC502 - raised by the parts
        train = _pairs("train_loader", train_loader, TrainDataLoaderIter)
        val = _pairs("val_loader", val_loader, ValDataLoaderIter) if val_loader else None
        sweep, lrs = self._begin(start_lr, end_lr, num_iter, step_mode, smooth_f, diverge_th)
        self._run(
            sweep,
            lrs=lrs,
            train=train,
            val=val,
            accumulation_steps=accumulation_steps,
            autocast=(self.amp_config or {}) if self.amp_backend == "torch" else None,
            grad_scaler=self.grad_scaler if self.amp_backend == "torch" else None,
            total_steps=total_steps,
            schedule=schedule,
            progress=progress,
        )

    def _begin(
        self,
        start_lr: float | None,
        end_lr: float,
        num_iter: int,
        step_mode: str,
        smooth_f: float,
        diverge_th: float,
    ) -> tuple[ThresholdSweep, list[list[float]]]:
        self.history, self.best_loss, self.result = {"lr": [], "loss": []}, None, None
        check_no_scheduler(self.optimizer)
        lrs = lr_table(self.optimizer, start_lr, end_lr, num_iter, step_mode)
        if not 0 <= smooth_f < 1:
            raise ArgumentError(f"smooth_f is outside the range [0, 1[, got {smooth_f!r}; 0.05 is the default.")
        return ThresholdSweep([row[0] for row in lrs], self.history, smooth_f, diverge_th), lrs

    def _run(self, sweep: ThresholdSweep, **options: Any) -> None:
        self.model.to(self.device)
        try:
            self.result = RangeTest(
                model=self.model,
                optimizer=self.optimizer,
                loss=lambda inputs, labels: self.criterion(self.model(inputs), labels),
                extra_modules=[self.criterion] if isinstance(self.criterion, nn.Module) else [],
                sweep=sweep,
                **options,
            ).run()
        finally:
            self.model.to(self.model_device)
            self.best_loss = sweep.best
        self.result.issue_warnings(stacklevel=3)

    def plot(
        self,
        skip_start: int = 10,
        skip_end: int = 5,
        log_lr: bool = True,  # noqa: FBT001 - the original's interface
        show_lr: float | None = None,
        ax: "Axes | None" = None,
        suggest_lr: bool = True,  # noqa: FBT001 - the original's interface
    ) -> "Axes | tuple[Axes, float]":
        """Draw the smoothed loss over the learning rate; `result.plot()` draws the suggestion of this package.

        Args:
            skip_start: How many points to leave out at the start.
            skip_end: How many points to leave out at the end.
            log_lr: Draw the learning rate on a logarithmic scale.
            show_lr: Mark this learning rate with a vertical line.
            ax: Where to draw; a new figure by default.
            suggest_lr: Also mark and return the learning rate of the steepest descent.

        Returns:
            The axes; with `suggest_lr` the axes and the learning rate of the steepest descent.

        Raises:
            ArgumentError: An argument breaks a rule.
            RuntimeError: There are too few points for a suggestion.
        """
        for name, value in (("skip_start", skip_start), ("skip_end", skip_end)):
            if value < 0:
                raise ArgumentError(f"{name} cannot be negative, got {value}.")
        if show_lr is not None and not isinstance(show_lr, float):
            raise ArgumentError(f"show_lr must be float, got {show_lr!r}.")
        points, needed = len(self.history["lr"]), skip_start + skip_end + 2
        if suggest_lr and points < needed:
            raise RuntimeError(f"Need at least {needed} iterations to suggest a learning rate. Got {points}.")
        kept = slice(skip_start, points - skip_end if points > skip_end else 0)
        lrs, losses = list(self.history["lr"][kept]), list(self.history["loss"][kept])
        ax = draw_history(lrs, losses, ax, log_lr=log_lr)
        if show_lr is not None:
            ax.axvline(x=show_lr, color="red")
        if not suggest_lr:
            return ax
        steepest = int(np.gradient(losses).argmin())
        mark_steepest(ax, lrs[steepest], losses[steepest])
        return ax, lrs[steepest]


def draw_history(lrs: list[float], losses: list[float], ax: "Axes | None", *, log_lr: bool) -> "Axes":
    """Draw losses over learning rates.

    Args:
        lrs: The learning rates.
        losses: The losses.
        ax: Where to draw; a new figure by default.
        log_lr: Draw the learning rate on a logarithmic scale.

    Returns:
        The axes.
    """
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.subplots()[1]
    ax.plot(lrs, losses)
    if log_lr:
        ax.set_xscale("log")
    ax.set_xlabel("Learning rate")
    ax.set_ylabel("Loss")
    return ax


def mark_steepest(ax: "Axes", lr: float, loss: float) -> None:
    """Mark the point of the steepest descent.

    Args:
        ax: Where the curve was drawn.
        lr: Its learning rate.
        loss: Its loss.
    """
    ax.scatter(lr, loss, s=75, marker="o", color="red", zorder=3, label="steepest gradient")
    ax.legend()


def check_no_scheduler(optimizer: Optimizer) -> None:
    """Check that no scheduler is attached to the optimizer.

    Args:
        optimizer: The optimizer.

    Raises:
        RuntimeError: One is.
    """
    if any("initial_lr" in group for group in optimizer.param_groups):
        raise RuntimeError("Optimizer already has a scheduler attached to it; make the scheduler after the range test.")


def _check_amp(backend: str | None, grad_scaler: Any) -> None:
    if backend and backend != "torch":
        raise ArgumentError(f"Unknown amp backend: {backend!r}; amp_backend must be 'torch' or None.")
    if backend == "torch" and grad_scaler is None:
        raise ArgumentError("`grad_scaler` is required when using `torch.amp`: pass torch.amp.GradScaler().")


def _pairs(name: str, loader: Any, kind: type[DataLoaderIter]) -> PairLoader:
    if not isinstance(loader, (DataLoader, kind)):
        raise ArgumentError(
            f"`{name}` has unsupported type: {type(loader)}. Expected types are `torch.utils.data.DataLoader` or a "
            f"child of `{kind.__name__}`."
        )
    return PairLoader(loader, kind)
