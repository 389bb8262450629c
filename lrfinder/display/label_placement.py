"""Labels beside points of a picture, placed so that they cover neither a line nor a mark nor each other."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from lrfinder.curve import Floats

if TYPE_CHECKING:  # only plotting.py loads matplotlib; here its objects are used
    from matplotlib.axes import Axes

__all__ = ["annotate", "dense", "place", "power_of_ten"]

# The sides of its anchor on which a label may stand, best first (radians, counter-clockwise from the right).
SIDES = np.deg2rad([90, 270, 45, 135, 315, 225, 0, 180, 70, 110, 290, 250])
# What a point of distance from the anchor costs, and a point outside the bounds or inside another label's box.
DISTANCE_COST, OVERLAP_COST = 0.4, 50.0
# The distances from its anchor that a label tries.
CLEARANCES = (8.0, 14.0, 22.0, 32.0, 44.0)

# A marker's footprint in units of its radius: middle, corners and sides, often, to weigh as much as a length of line.
MARKER = np.repeat([[x, y] for x in (-1, 0, 1) for y in (-1, 0, 1)], 6, axis=0)


def power_of_ten(number: float) -> str:
    r"""Return a positive number in TeX, its factor left out where it is 1.

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


def annotate(
    ax: "Axes", at: ArrayLike, texts: Sequence[str], styles: Sequence[dict[str, Any]], *, lines: Sequence[Any]
) -> list[Any]:
    """Write a text beside each point. A text that found room only farther off is tied to its point by a thin line.

    Args:
        ax: Where to write; its limits and size should be final.
        at: The points in data coordinates, shape (M, 2); the first chooses its place first.
        texts: A text for each.
        styles: The properties of each text, its colour among them.
        lines: The `Line2D` artists that should stay visible; markers weigh more than lines, faint lines less.

    Returns:
        The annotations.
    """
    figure, points = ax.figure, 72 / ax.figure.dpi
    anchors = ax.transData.transform(np.asarray(at, dtype=float).reshape(-1, 2)) * points
    sizes = []
    for text, style in zip(texts, styles, strict=True):
        probe = ax.text(0.5, 0.5, text, transform=ax.transAxes, **style)
        sizes.append(np.ptp(probe.get_window_extent().get_points(), axis=0) * points)
        probe.remove()
    obstacles = np.concatenate([np.empty((0, 2)), *(_footprint(line) * points for line in lines)])
    legend = ax.get_legend()
    taken = [np.ravel(legend.get_window_extent().get_points()) * points] if legend else ()
    boxes = place(anchors, sizes, obstacles, np.ravel(ax.bbox.get_points()) * points, taken=taken)
    written = []
    for point, text, style, anchor, box in zip(np.asarray(at), texts, styles, anchors, boxes, strict=True):
        distance = np.hypot(*np.maximum(np.maximum(box[:2] - anchor, anchor - box[2:]), 0))
        tie = {"arrowstyle": "-", "lw": 0.5, "color": style["color"], "shrinkA": 1, "shrinkB": 5, "alpha": 0.6}
        written.append(
            ax.annotate(
                text,
                tuple(point),
                tuple((box[:2] + box[2:]) / 2 - anchor),
                textcoords="offset points",
                ha="center",
                va="center",
                arrowprops=tie if distance > 1.5 * CLEARANCES[0] else None,
                **style,
            )
        )
    figure.stale = True
    return written


def _footprint(line: Any) -> Floats:
    """Return the pixels that a line covers; each marker counts as many, a faint line as few."""
    corners = line.get_transform().transform(line.get_xydata())
    low, high = line.axes.bbox.get_points()
    corners = corners[np.isfinite(corners).all(axis=1)].clip(low - 50, high + 50)
    if line.get_linestyle() == "None":
        radius = line.get_markersize() / 2 * line.axes.figure.dpi / 72
        return np.concatenate([corners + radius * offset for offset in MARKER])
    return dense(corners, spacing=1.0 if (line.get_alpha() or 1) > 0.5 else 6.0)


def dense(path: ArrayLike, spacing: float = 2.0) -> Floats:
    """Return places at most `spacing` points apart along a polyline.

    Args:
        path: The polyline's corners, shape (N, 2), in points.
        spacing: The largest distance between neighbouring points, in points.

    Returns:
        Places on the polyline, shape (P, 2).

    Example:
        >>> dense([[0, 0], [4, 0]]).tolist()
        [[0.0, 0.0], [2.0, 0.0], [4.0, 0.0]]
    """
    corners = np.asarray(path, dtype=float).reshape(-1, 2)
    lengths = np.hypot(*np.diff(corners, axis=0).T)
    counts = np.maximum(np.ceil(lengths / spacing), 1).astype(int)
    distance = np.concatenate([[0.0], np.cumsum(lengths)])
    parts = [np.linspace(a, b, n, endpoint=False) for a, b, n in zip(distance[:-1], distance[1:], counts, strict=True)]
    along = np.concatenate([*parts, distance[-1:]])
    return np.column_stack([np.interp(along, distance, corners[:, axis]) for axis in (0, 1)])


def place(
    anchors: ArrayLike,
    sizes: ArrayLike,
    obstacles: ArrayLike,
    bounds: ArrayLike,
    *,
    taken: ArrayLike = (),
    clearances: ArrayLike = CLEARANCES,
) -> Floats:
    """Choose a box for each label, near its anchor, over as little as possible. Earlier labels choose first.

    Every label tries each side at each clearance and takes the place of least cost: the obstacles it covers, plus the
    area (as a length) that it shares with other labels or has outside the bounds, plus a little for distance. Nor
    should the line from anchor to label cross another label.

    Args:
        anchors: The points that the labels belong to, shape (M, 2), in points.
        sizes: Width and height of each label, shape (M, 2), in points.
        obstacles: Points that should stay visible, shape (P, 2); one may occur often to weigh more.
        bounds: The box (left, bottom, right, top) that labels should stay in.
        taken: Boxes that are occupied already, shape (K, 4).
        clearances: The distances from the anchor that are tried, in points.

    Returns:
        A box (left, bottom, right, top) per label, shape (M, 4).

    Example:
        >>> place([[50, 50]], [[20, 10]], [[50, 60], [50, 65]], [0, 0, 100, 100]).tolist()  # below: above is occupied
        [[40.0, 32.0, 60.0, 42.0]]
    """
    points = np.asarray(obstacles, dtype=float).reshape(-1, 2)
    occupied = list(np.asarray(taken, dtype=float).reshape(-1, 4))
    reach, side = (grid.ravel() for grid in np.meshgrid(np.asarray(clearances, dtype=float), SIDES, indexing="ij"))
    for anchor, size in zip(np.asarray(anchors, dtype=float), np.asarray(sizes, dtype=float), strict=True):
        direction = np.column_stack([np.cos(side), np.sin(side)])
        centres = anchor + direction * (size / 2 + reach[:, None])
        boxes = np.hstack([centres - size / 2, centres + size / 2])
        cost = DISTANCE_COST * reach + _covered(boxes, points) + OVERLAP_COST * _outside(boxes, np.asarray(bounds))
        ties = anchor + np.linspace(0, 1, 9)[:, None, None] * (np.clip(anchor, boxes[:, :2], boxes[:, 2:]) - anchor)
        for other in occupied:
            crossed = ((ties > other[:2]) & (ties < other[2:])).all(axis=2).sum(axis=0)
            cost += OVERLAP_COST * (_shared(boxes, other) + crossed)
        occupied.append(boxes[np.argmin(cost)].round(9))
    return np.array(occupied[len(occupied) - len(np.asarray(anchors)) :]).reshape(-1, 4)


def _covered(boxes: Floats, points: Floats, pad: float = 2.0) -> Floats:
    """Return the number of points inside each box, a little padding included."""
    low, high = boxes[:, None, :2] - pad, boxes[:, None, 2:] + pad
    return np.asarray(((points >= low) & (points <= high)).all(axis=2).sum(axis=1), dtype=np.float64)


def _outside(boxes: Floats, bounds: Floats) -> Floats:
    """Return by how many points each box sticks out."""
    over = np.hstack([bounds[:2] - boxes[:, :2], boxes[:, 2:] - bounds[2:]])
    return np.asarray(np.maximum(over, 0).sum(axis=1))


def _shared(boxes: Floats, other: Floats) -> Floats:
    """Return the side of the square as large as the overlap with another box, in points."""
    sides = np.minimum(boxes[:, 2:], other[2:]) - np.maximum(boxes[:, :2], other[:2])
    return np.asarray(np.sqrt(np.maximum(sides, 0).prod(axis=1)))
