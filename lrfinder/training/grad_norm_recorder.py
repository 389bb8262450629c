"""The gradient norms of a sweep."""

import numpy as np
import numpy.typing as npt
import torch

from lrfinder.errors import ArgumentError
from lrfinder.training.loss_queue import LossQueue
from lrfinder.training.step import Step

__all__ = ["GradNormRecorder"]


class GradNormRecorder:
    """Records the gradient norm of each step of a sweep, read by the host as late as the losses.

    Args:
        step: Takes the steps; it records its norm from here on.
        capacity: The largest number of steps.
        device: Where the norms are.

    Raises:
        ArgumentError: The step does not know its gradients.
    """

    def __init__(self, step: Step, capacity: int, device: torch.device) -> None:
        if step.record_grad_norm is None:
            raise ArgumentError(
                "LRFinder.find(grad_norms=True) needs a step that LRFinder takes, got LRFinder(step=...), whose "
                "gradients it does not see; use loss_fn, or record the norms within step."
            )
        step.record_grad_norm = True
        self._step = step
        self._queue = LossQueue(capacity, device)
        self._norms: list[float | None] = []

    def record(self) -> None:
        """Record the norm of the step that was just taken."""
        self._norms += self._queue.put(self._step.grad_norm)

    def read(self, indices: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        """Return the norms of some steps; this waits for the device.

        Args:
            indices: The numbers of the steps, from 0, shape (T,).

        Returns:
            Their norms, infinite where a gradient overflowed, shape (T,).
        """
        self._norms += self._queue.drain()
        norms = np.array([np.inf if norm is None else norm for norm in self._norms])
        return norms[indices]
