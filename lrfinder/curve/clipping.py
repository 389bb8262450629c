"""A threshold for gradient clipping, from the gradient norms of a sweep."""

import dataclasses
import math

import numpy as np

from lrfinder.curve.curve import NOTHING_KNOWN, Context, Curve
from lrfinder.curve.landmarks import find_landmarks
from lrfinder.curve.suggestion import Suggestion
from lrfinder.errors import NoSuggestionError

__all__ = ["ClipSuggestion", "clip_threshold", "norms_explode", "norms_overflow"]

QUANTILE = 0.9  # of the norms up to the learning rate of the training
ABOVE_QUANTILE = 3.5  # the threshold as a multiple of it: norms grow while a training goes on
PEAK_QUANTILE = 0.98  # of the norms below divergence; the threshold is not lower
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
    """Return a threshold for gradient clipping, above the norms of a healthy training.

    It is the larger of 3.5 times the 90% quantile of the norms up to `lr`, and of the 98% quantile of all norms below
    divergence, where the loss has fallen further and gradients have grown. Clipping there leaves most steps of a
    healthy training as they are, and bounds the large ones that end an unstable training.

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
        5.08
    """
    if curve.grad_norms is None:
        raise NoSuggestionError("clip_norm needs the gradient norms. Call find(grad_norms=True).")
    norms = _stable_norms(curve, lr, context)
    if len(norms) < FEWEST_NORMS:
        raise NoSuggestionError(
            f"clip_norm needs {FEWEST_NORMS} gradient norms at stable learning rates up to {lr:.1e}, got {len(norms)}. "
            "Lower start_lr, or raise num_iter."
        )
    quantile, peak = float(np.quantile(norms, QUANTILE)), _peak_norm(curve, context)
    max_norm = max(ABOVE_QUANTILE * quantile, peak)
    if max_norm == 0:
        raise NoSuggestionError(
            "clip_norm needs gradients, got norms of 0. Look for a loss that does not depend on the parameters."
        )
    share = float(np.mean(norms > max_norm))
    rule = f"{ABOVE_QUANTILE:g} times the {QUANTILE:.0%} quantile"
    if max_norm == peak:
        rule = f"the {PEAK_QUANTILE:.0%} quantile of the gradient norms below divergence, above {rule}"
    reason = f"{rule} of the {len(norms)} gradient norms up to {lr:.1e}, of which {share:.0%} are higher than it"
    index = int(np.argmin(np.abs(np.log(curve.lrs) - math.log(lr))))
    return ClipSuggestion(lr=lr, rule="clip_norm", reason=reason, index=index, max_norm=max_norm, share=share)


def norms_explode(curve: Curve, lr: float, context: Context = NOTHING_KNOWN) -> bool:
    """Return whether a gradient norm at a stable learning rate is far above the others.

    Args:
        curve: The measured sweep.
        lr: The learning rate of the training.
        context: What is known of the training.

    Returns:
        True if a finite one is more than 100 times the median.
    """
    norms = _stable_norms(curve, lr, context)
    return len(norms) >= FEWEST_NORMS and bool(np.max(norms) > EXPLOSION * np.median(norms))


def norms_overflow(curve: Curve, context: Context = NOTHING_KNOWN) -> bool:
    """Return whether a gradient was NaN or infinite while the loss had not blown up.

    Args:
        curve: The measured sweep.
        context: What is known of the training.

    Returns:
        True if the norm of one below divergence is not finite.
    """
    if curve.grad_norms is None or not len(curve):
        return False
    first = float(np.max(curve.losses[:FEWEST_NORMS]))
    usual = curve.losses <= first + (first - float(np.min(curve.losses)))
    return bool(np.any(_is_stable(curve, math.inf, context) & usual & ~np.isfinite(curve.grad_norms)))


def _peak_norm(curve: Curve, context: Context) -> float:
    """Return a high quantile of the norms below divergence, 0 where the curve shows none."""
    seen = find_landmarks(curve, context).divergence is not None
    return float(np.quantile(_stable_norms(curve, math.inf, context), PEAK_QUANTILE)) if seen else 0.0


def _stable_norms(curve: Curve, lr: float, context: Context) -> np.ndarray:
    if curve.grad_norms is None:
        return np.empty(0)
    return curve.grad_norms[_is_stable(curve, lr, context) & np.isfinite(curve.grad_norms)]


def _is_stable(curve: Curve, lr: float, context: Context) -> np.ndarray:
    divergence = find_landmarks(curve, context).divergence
    return curve.lrs <= (lr if divergence is None else min(lr, divergence))
