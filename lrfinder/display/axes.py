"""What a picture shows of a result: its limits, a thinned line, the kind of its axis. NumPy only."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from lrfinder.curve import RULES, Curve, Floats, Landmarks, StopReason, Suggestion
from lrfinder.errors import ArgumentError

__all__ = ["Probes", "diverged_from", "is_linear", "loss_at", "loss_limits", "marked_rules", "probe_arrays", "thin"]

Probes: TypeAlias = tuple[ArrayLike, ArrayLike] | tuple[()]
"""Learning rates and losses of refine's short trainings, each of shape (K,), or nothing."""

BUCKETS = 1000
"""A long line is drawn as the lowest and highest point of so many stretches: more than a picture has columns."""

LARGEST = 1e300
"""Losses count as no larger, so that limits never overflow."""


def diverged_from(curve: Curve, suggestions: Mapping[str, Suggestion]) -> float | None:
    """Return the rate from which on training diverged.

    Args:
        curve: The curve.
        suggestions: The suggestions by rule.

    Returns:
        The divergence that the rule found, or else the rate at which the sweep had to stop; None without either.
    """
    if "divergence" in suggestions:
        return suggestions["divergence"].lr
    return curve.stop_lr if curve.stop_reason in {StopReason.DIVERGED, StopReason.NONFINITE} else None


def marked_rules(suggestions: Mapping[str, Suggestion], rules: Sequence[str] | None) -> dict[str, Suggestion]:
    """Return the suggestions to mark, by the name that the picture gives them.

    Args:
        suggestions: The suggestions by rule.
        rules: The rules to mark, the main one first; those that do not apply are left out. By default `refine`, or else
            `auto`, with `steepest` and `divergence`.

    Returns:
        The suggestions; the main one, if it is `auto` or `refine`, is called "suggestion".

    Raises:
        ArgumentError: A rule is unknown.

    Example:
        >>> marked_rules({"auto": Suggestion(lr=1e-3, rule="auto", reason="Half a decade down.", index=3)}, None).keys()
        dict_keys(['suggestion'])
    """
    if rules is None:
        rules = ("refine" if "refine" in suggestions else "auto", "steepest", "divergence")
    known = {*RULES, *suggestions, *(field.name for field in fields(Landmarks))}
    for rule in rules:
        if rule not in known:
            raise ArgumentError(f"plot(rules=...) takes rules among {', '.join(sorted(known))}, got {rule=}.")
    marked = {rule: suggestions[rule] for rule in rules if rule in suggestions}
    return {"suggestion" if rule == rules[0] and rule in {"auto", "refine"} else rule: marked[rule] for rule in marked}


def probe_arrays(probes: Probes) -> tuple[Floats, Floats]:
    """Check probes and return them as arrays.

    Args:
        probes: Learning rates and losses, or nothing.

    Returns:
        Rates and losses, shape (K,) each, sorted by rate; empty without probes.

    Raises:
        ArgumentError: The two differ in shape.
    """
    rates, scores = (np.asarray(part, dtype=np.float64) for part in (probes or ((), ())))
    if rates.shape != scores.shape or rates.ndim != 1:
        shapes = rates.shape, scores.shape
        raise ArgumentError(f"plot_curve(probes=...) takes as many rates as losses, one axis each, got {shapes=}.")
    order = np.argsort(rates)
    return rates[order], scores[order]


def loss_at(curve: Curve, lr: float) -> float:
    """Return the smoothed loss at a rate, between points by the logarithm of the rate.

    Args:
        curve: The curve, at least one point.
        lr: The rate; beyond an end the loss there counts.

    Returns:
        The loss.
    """
    return float(np.interp(np.log(lr), np.log(curve.lrs), curve.smoothed))


def is_linear(curve: Curve) -> bool:
    """Tell whether the grid was linear: steps of the rate vary less than steps of its logarithm.

    Args:
        curve: The curve; fewer than three points count as exponential.

    Returns:
        Whether a linear axis shows the points evenly spaced.
    """
    if len(curve) < 3:
        return False
    gaps = np.diff(curve.indices)
    linear, log = (np.diff(rates) / gaps for rates in (curve.lrs, np.log(curve.lrs)))
    return bool(np.std(linear) / np.mean(linear) < np.std(log) / np.mean(log))


def loss_limits(curve: Curve, past: float | None, scores: Floats, *, raw: bool = True) -> tuple[float, float]:
    """Return the lowest and the highest loss that must be seen; a blow-up and single outliers need not.

    They come from the part before divergence. Should that hold a blow-up all the same, losses count up to four times
    as far above the lowest as the median is. Measured losses count up to six times the median noise, or half the
    height, above and below.

    Args:
        curve: The curve, at least one point.
        past: The rate from which on training diverged, if it did.
        scores: Further losses to be seen unless they lie far above, shape (K,).
        raw: Whether the measured losses are drawn.

    Returns:
        The lowest and the highest loss.
    """
    losses, smoothed = np.clip([curve.losses, curve.smoothed], -LARGEST, LARGEST)
    before = curve.lrs <= past if past is not None and past >= curve.lrs[0] else np.ones(len(curve), dtype=bool)
    low, middle = smoothed[before].min(), np.median(smoothed[before])
    high = max(smoothed[0], min(smoothed[before].max(), middle + 3 * (middle - low)))
    if raw:
        noise = max(6 * np.median(np.abs(losses - smoothed)[before & (smoothed <= high)]), (high - low) / 2)
        low = min(low, max(losses[before].min(), low - noise))
        high = max(high, min(losses[before].max(), high + noise))
    near = scores[np.isfinite(scores) & (scores <= high + (high - low))]
    return float(min([low, *near])), float(max([high, *near]))


def thin(lrs: Floats, losses: Floats) -> tuple[Floats, Floats]:
    """Return the lowest and the highest point of each stretch of a long line: it looks the same and draws fast.

    Args:
        lrs: Rates, shape (T,).
        losses: Losses, shape (T,).

    Returns:
        Rates and losses of the points to draw, at most two for each of `BUCKETS` and the ends; a short line as it is.
    """
    if len(lrs) <= 2 * BUCKETS:
        return lrs, losses
    edges = np.linspace(0, len(lrs), BUCKETS + 1).astype(int)
    kept = {0, len(lrs) - 1}
    for start, stop in pairwise(edges):
        kept |= {start + int(losses[start:stop].argmin()), start + int(losses[start:stop].argmax())}
    index = sorted(kept)
    return lrs[index], losses[index]
