"""What a range test measured and what is known of the training, as frozen data."""

import dataclasses
from functools import cached_property

import numpy as np
import numpy.typing as npt

from lrfinder.curve import features
from lrfinder.curve.arrays import Floats
from lrfinder.curve.stop_rule import StopReason
from lrfinder.errors import ArgumentError

__all__ = ["NOTHING_KNOWN", "Context", "Curve"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """The measured points of one sweep.

    Its features (`unit_losses` and what follows) are for rules. They depend on neither the loss's scale nor its offset,
    need at least one point, and are computed when they are first read.

    Args:
        lrs: Learning rates, positive and strictly increasing, not necessarily evenly spaced, shape (T,).
        losses: The loss at each learning rate, finite, shape (T,).
        smoothed: The losses without their noise, shape (T,).
        indices: The index of each point in the sweep's grid, shape (T,); skipped steps leave gaps.
        stop_reason: Why the sweep ended, None where an exception cut it short.
        stop_lr: The learning rate at which it was stopped: the first one that was not finite, or the last point's.
        grad_norms: The norm of the gradients of each step before clipping, infinite where it overflowed, shape (T,);
            None where it was not recorded.

    Example:
        >>> lrs = np.geomspace(1e-4, 1.0, 41)
        >>> losses = 2 + 1 / (1 + lrs / 0.01)
        >>> curve = Curve(lrs=lrs, losses=losses, smoothed=losses, indices=np.arange(41), stop_reason=None)
        >>> curve.has_clear_descent, curve.lowest_index
        (True, 39)
    """

    lrs: Floats
    losses: Floats
    smoothed: Floats
    indices: npt.NDArray[np.intp]
    stop_reason: StopReason | None
    stop_lr: float | None = None
    grad_norms: Floats | None = None

    def __post_init__(self) -> None:
        """Copy the arrays, check them and make them read-only.

        Raises:
            ArgumentError: If the arrays differ in length or hold values that no sweep gives.
        """
        for name in ("lrs", "losses", "smoothed"):
            self._freeze(name, np.array(getattr(self, name), dtype=np.float64))
        self._freeze("indices", np.array(self.indices, dtype=np.intp))
        if self.grad_norms is not None:
            norms = np.array(self.grad_norms, dtype=np.float64)
            self._freeze("grad_norms", np.where(np.isfinite(norms), norms, np.inf), finite=False)
        if (self.lrs <= 0).any() or (self.lrs[1:] <= self.lrs[:-1]).any():
            raise ArgumentError(f"Curve(lrs=...) must be positive and strictly increasing, got lrs={self.lrs}.")

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.lrs)

    @property
    def unit_losses(self) -> Floats:
        """The losses on a scale where the lowest is 0 and three quarters lie below 1, shape (T,)."""
        return self._normalized[0]

    @property
    def unit_smoothed(self) -> Floats:
        """The smoothed losses on the scale of `unit_losses`, shape (T,)."""
        return self._normalized[1]

    @cached_property
    def lowest_index(self) -> int:
        """The index of the lowest smoothed loss; the first and last points are not searched."""
        return features.lowest_index(self.unit_smoothed)

    @property
    def lowest(self) -> float:
        """The lowest smoothed loss, on the scale of `unit_losses`."""
        return float(self.unit_smoothed[self.lowest_index])

    @cached_property
    def plateau(self) -> float:
        """The median of the first losses, on the scale of `unit_losses`."""
        return features.plateau(self.unit_losses)

    @property
    def depth(self) -> float:
        """How far the smoothed loss falls from the plateau, not negative, on the scale of `unit_losses`."""
        return max(self.plateau - self.lowest, 0.0)

    @cached_property
    def noise(self) -> float:
        """The standard deviation of a single loss, on the scale of `unit_losses`."""
        return features.noise(self.unit_losses, self.lowest_index)

    @cached_property
    def has_clear_descent(self) -> bool:
        """Whether the loss falls by more than its noise explains."""
        return features.descends(self.unit_losses, self.lowest_index, self.noise)

    @cached_property
    def _normalized(self) -> tuple[Floats, Floats]:
        return features.normalize(self.losses, self.smoothed)

    def _freeze(self, name: str, array: npt.NDArray[np.generic], *, finite: bool = True) -> None:
        if array.ndim != 1 or array.shape != np.shape(self.lrs):
            raise ArgumentError(
                f"Curve({name}=...) must have the shape of lrs={np.shape(self.lrs)}, one axis, got shape {array.shape}."
            )
        if finite and not np.isfinite(array).all():
            raise ArgumentError(f"Curve({name}=...) must be finite, got {array}; a Sweep cuts what is not.")
        array.flags.writeable = False
        object.__setattr__(self, name, array)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Context:
    """What is known of the training beside the curve.

    Args:
        optimizer: The optimizer's class name, `""` where unknown.
        momentum: SGD's momentum, or Adam's first beta; 0 without.
        total_steps: The length of the training in optimizer steps, None where unknown.
        schedule: The schedule that the learning rate is for, by its name in `lrfinder.SCHEDULES`.
        end_lr: The last learning rate that the user asked for, None where a scout chose it.
        val: Whether each loss was measured after its step, on held-out data.
        batch_size: Samples in a batch, None where unknown.
        epoch_points: Optimizer steps in an epoch of the loader, None where no epoch ended, where they are no whole
            number, and in several processes, whose epochs may differ.
    """

    optimizer: str = ""
    momentum: float = 0.0
    total_steps: int | None = None
    schedule: str = "one_cycle"
    end_lr: float | None = None
    val: bool = False
    batch_size: int | None = None
    epoch_points: int | None = None


NOTHING_KNOWN = Context()
