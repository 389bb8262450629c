"""What a plot shows of a result: its marks, its limits, thinned lines, the kind of its axis. NumPy only."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from lrfinder.curve import RULES, Curve, Floats, Landmarks, StopReason, Suggestion
from lrfinder.errors import ArgumentError

__all__ = [
    "Mark",
    "Probes",
    "choose_marks",
    "diverged_from",
    "is_linear",
    "loss_at",
    "loss_limits",
    "power_of_ten",
    "probe_arrays",
    "thin",
]

Probes: TypeAlias = tuple[ArrayLike, ArrayLike] | tuple[()]  # learning rates and losses, each (K,), or nothing

BUCKETS = 1000  # a long line is drawn as the extremes of this many parts: more than a plot has columns
LARGEST = 1e300  # larger losses count as this, so that limits never overflow
MOST_ABOVE = 3.0  # limits reach above the first loss by at most this multiple of the fall

MAIN_MARKER, OTHER_MARKER = "o", "P"
LANDMARK_MARKERS = {"onset": "s", "steepest": "^", "minimum": "v", "divergence": "X"}


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A learning rate that the plot marks on the curve.

    Args:
        name: What the legend calls it.
        lr: The learning rate.
        marker: The Matplotlib marker.
        spread: The lowest and highest value over repeated sweeps, None for a single one.
    """

    name: str
    lr: float
    marker: str
    spread: tuple[float, float] | None = None


def choose_marks(
    suggestions: Mapping[str, Suggestion], landmarks: Landmarks, names: Sequence[str] | None = None
) -> list[Mark]:
    """Return the marks of a plot.

    Args:
        suggestions: The suggestions by rule, the main one first.
        landmarks: The landmarks of the curve.
        names: The rules and landmarks to mark; those that are not on this curve are left out. By default the main
            suggestion, `steepest` and `divergence`.

    Returns:
        The marks; the main suggestion is called "suggestion".

    Raises:
        ArgumentError: A name is unknown.

    Example:
        >>> made = {"auto": Suggestion(lr=1e-3, rule="auto", reason="Half a decade down.", index=3)}
        >>> [mark.name for mark in choose_marks(made, Landmarks(divergence=0.1))]
        ['suggestion', 'divergence']
    """
    places, main = asdict(landmarks), next(iter(suggestions), None)
    if names is None:
        names = [*([] if main is None else [main]), *(name for name in ("steepest", "divergence") if name != main)]
    known = {*RULES, *suggestions, *places}
    marks = []
    for name in dict.fromkeys(names):
        if name not in known:
            raise ArgumentError(f"plot(rules=...) takes names among {', '.join(sorted(known))}, got {name!r}.")
        if name in suggestions:
            found = suggestions[name]
            marker = MAIN_MARKER if name == main else RULES[name].marker if name in RULES else OTHER_MARKER
            marks.append(
                Mark(name="suggestion" if name == main else name, lr=found.lr, marker=marker, spread=found.spread)
            )
        elif places.get(name) is not None:
            marks.append(Mark(name=name, lr=places[name], marker=LANDMARK_MARKERS.get(name, OTHER_MARKER)))
    return marks


def diverged_from(curve: Curve, landmarks: Landmarks) -> float | None:
    """Return the learning rate from which on training diverged.

    Args:
        curve: The curve.
        landmarks: Its landmarks.

    Returns:
        The landmark, or else the learning rate at which the sweep was stopped; None without either.
    """
    if landmarks.divergence is not None:
        return landmarks.divergence
    return curve.stop_lr if curve.stop_reason in {StopReason.DIVERGED, StopReason.NONFINITE} else None


def probe_arrays(probes: Probes) -> tuple[Floats, Floats]:
    """Return checked probes as arrays.

    Args:
        probes: Learning rates and losses, or nothing.

    Returns:
        Learning rates and losses, shape (K,) each, sorted by learning rate; empty without probes.

    Raises:
        ArgumentError: The two differ in shape.
    """
    lrs, scores = (np.asarray(part, dtype=np.float64) for part in (probes or ((), ())))
    if lrs.shape != scores.shape or lrs.ndim != 1:
        shapes = lrs.shape, scores.shape
        raise ArgumentError(f"plot_curve(probes=...) takes as many lrs as losses, one axis each, got {shapes=}.")
    order = np.argsort(lrs)
    return lrs[order], scores[order]


def loss_at(curve: Curve, lr: float) -> float:
    """Return the smoothed loss at a learning rate, interpolated along the logarithm of the learning rate.

    Args:
        curve: The curve, at least one point.
        lr: The learning rate; beyond an end the loss there counts.

    Returns:
        The loss.
    """
    return float(np.interp(np.log(lr), np.log(curve.lrs), curve.smoothed))


def is_linear(curve: Curve) -> bool:
    """Return whether the grid was linear: steps of the learning rate vary less than steps of its logarithm.

    Args:
        curve: The curve; fewer than three points count as exponential.

    Returns:
        Whether a linear axis shows the points evenly spaced.
    """
    if len(curve) < 3:
        return False
    gaps = np.diff(curve.indices)
    linear, log = (np.diff(lrs) / gaps for lrs in (curve.lrs, np.log(curve.lrs)))
    return bool(np.std(linear) / np.mean(linear) < np.std(log) / np.mean(log))


def loss_limits(curve: Curve, past: float | None, also: Floats, *, raw: bool = True) -> tuple[float, float]:
    """Return the lowest and the highest loss that the plot must show.

    The fall decides: from the highest smoothed loss before the lowest one down to the lowest. A rise after it, however
    large, changes nothing; neither do single outliers. Raw losses count up to six times their median noise, or half of
    the height, above and below.

    Args:
        curve: The curve, at least one point.
        past: The learning rate from which on training diverged, if it did.
        also: Further losses to be seen unless they lie far above, shape (K,).
        raw: Whether the raw losses are drawn.

    Returns:
        The lowest and the highest loss.
    """
    losses, smoothed = np.clip([curve.losses, curve.smoothed], -LARGEST, LARGEST)
    if past is not None:
        before = max(int(np.count_nonzero(curve.lrs <= past)), 1)
        losses, smoothed = losses[:before], smoothed[:before]
    lowest = int(smoothed.argmin())
    low, first = smoothed[lowest], smoothed[0]
    high = min(smoothed[: lowest + 1].max(), first + MOST_ABOVE * (first - low))
    high = max(high, np.median(smoothed))  # where the loss only rises
    if raw:
        shown = losses[smoothed <= high]
        noise = max(6 * np.median(np.abs(losses - smoothed)[smoothed <= high]), (high - low) / 2)
        low = min(low, max(shown.min(), low - noise))
        high = max(high, min(shown.max(), high + noise))
    near = also[np.isfinite(also) & (also <= high + (high - low))]
    return float(min([low, *near])), float(max([high, *near]))


def thin(lrs: Floats, losses: Floats) -> tuple[Floats, Floats]:
    """Return the lowest and the highest point of each part of a long line: it looks the same and draws fast.

    Args:
        lrs: Learning rates, shape (T,).
        losses: Losses, shape (T,).

    Returns:
        The points to draw, at most two for each of `BUCKETS` and the ends; a short line as it is.
    """
    if len(lrs) <= 2 * BUCKETS:
        return lrs, losses
    edges = np.linspace(0, len(lrs), BUCKETS + 1).astype(int)
    kept = {0, len(lrs) - 1}
    for start, stop in pairwise(edges):
        kept |= {start + int(losses[start:stop].argmin()), start + int(losses[start:stop].argmax())}
    index = sorted(kept)
    return lrs[index], losses[index]


def power_of_ten(number: float) -> str:
    r"""Return a positive number in TeX, without its factor where that is 1.

    Args:
        number: The number.

    Returns:
        The text.

    Example:
        >>> print(power_of_ten(1e-3), power_of_ten(2.5e-4))
        $10^{-3}$ $2.5{\times}10^{-4}$
    """
    mantissa, exponent = f"{number:.3e}".split("e")
    factor = "" if float(mantissa) == 1 else rf"{float(mantissa):g}{{\times}}"
    return f"${factor}10^{{{int(exponent)}}}$"
