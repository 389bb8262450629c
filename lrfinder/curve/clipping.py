"""A threshold for gradient clipping, from the gradient norms of a sweep."""

import dataclasses
import math

import numpy as np

from lrfinder.curve.curve import NOTHING_KNOWN, Context, Curve
from lrfinder.curve.landmarks import find_landmarks
from lrfinder.curve.suggestion import Suggestion
from lrfinder.errors import NoSuggestionError

__all__ = ["ClipSuggestion", "clip_threshold", "norms_explode"]

QUANTILE = 0.9  # of the norms on the stable part of the sweep
ABOVE_QUANTILE = 3.0  # the threshold as a multiple of the quantile: norms grow while a training goes on
FEWEST_NORMS = 10  # fewer norms have no high quantile
EXPLOSION = 100.0  # a norm that is this many times the median on the stable part


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipSuggestion(Suggestion):
    """A threshold for gradient clipping, and the learning rate that it is for.

    Args:
        max_norm: The threshold, for `torch.nn.utils.clip_grad_norm_` or `LRFinder(max_grad_norm=...)`.
        share: The share of the steps on the stable part of the sweep that it would have clipped.
    """

    max_norm: float
    share: float


def clip_threshold(curve: Curve, lr: float, context: Context = NOTHING_KNOWN) -> ClipSuggestion:
    """Return a threshold for gradient clipping: three times a high quantile of the norms at stable learning rates.

    Stable are the learning rates up to `lr` and below divergence. Clipping there leaves most steps of a healthy
    training as they are, and bounds the rare large ones that end an unstable training.

    Args:
        curve: The measured sweep, with its gradient norms.
        lr: The learning rate of the training.
        context: What is known of the training.

    Returns:
        The threshold, and the share of steps that it would have clipped.

    Raises:
        NoSuggestionError: No gradient norms were recorded, or too few at stable learning rates.

    Example:
        >>> lrs = np.geomspace(1e-4, 1.0, 41)
        >>> losses, norms = 1 / (1 + lrs), np.linspace(1.0, 2.0, 41)
        >>> curve = Curve(lrs=lrs, losses=losses, smoothed=losses, indices=np.arange(41), stop_reason=None,
        ...               grad_norms=norms)
        >>> round(clip_threshold(curve, 1e-2).max_norm, 2)
        4.35
    """
    if curve.grad_norms is None:
        raise NoSuggestionError("clip_norm needs the gradient norms. Call find(grad_norms=True).")
    norms = _stable_norms(curve, lr, context)
    if len(norms) < FEWEST_NORMS:
        raise NoSuggestionError(
            f"clip_norm needs {FEWEST_NORMS} gradient norms at stable learning rates up to {lr:.1e}, got {len(norms)}. "
            "Lower start_lr, or raise num_iter."
        )
    max_norm = ABOVE_QUANTILE * float(np.quantile(norms, QUANTILE))
    share = float(np.mean(norms > max_norm))
    reason = (
        f"{ABOVE_QUANTILE:.2g} times the {QUANTILE:.0%} quantile of the {len(norms)} gradient norms at stable learning "
        f"rates up to {lr:.1e}, of which {share:.0%} are higher"
    )
    index = int(np.argmin(np.abs(np.log(curve.lrs) - math.log(lr))))
    return ClipSuggestion(lr=lr, rule="clip_norm", reason=reason, index=index, max_norm=max_norm, share=share)


def norms_explode(curve: Curve, lr: float, context: Context = NOTHING_KNOWN) -> bool:
    """Return whether a gradient norm at a stable learning rate is far above the others.

    Args:
        curve: The measured sweep.
        lr: The learning rate of the training.
        context: What is known of the training.

    Returns:
        True if one is infinite, or more than 100 times the median.
    """
    if curve.grad_norms is None:
        return False
    norms = _stable_norms(curve, lr, context, finite=False)
    return len(norms) >= FEWEST_NORMS and bool(np.max(norms) > EXPLOSION * np.median(norms))


def _stable_norms(curve: Curve, lr: float, context: Context, *, finite: bool = True) -> np.ndarray:
    divergence = find_landmarks(curve, context).divergence
    stable = curve.lrs <= (lr if divergence is None else min(lr, divergence))
    norms = np.asarray(curve.grad_norms)[stable]
    return norms[np.isfinite(norms)] if finite else norms
