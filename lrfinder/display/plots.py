"""The plot of a range test: the loss against the learning rate, with the suggestion and the landmarks."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from lrfinder.curve import Curve, Floats, Landmarks, Suggestion, Verdict
from lrfinder.display.axes import (
    Mark,
    Probes,
    choose_marks,
    diverged_from,
    is_linear,
    loss_at,
    loss_limits,
    power_of_ten,
    probe_arrays,
    thin,
)
from lrfinder.display.figures import (
    DASHES,
    LIGHT,
    TEXT,
    Style,
    file_axes,
    foreground,
    frame_legend,
    new_axes,
    palette,
    width,
)
from lrfinder.display.summary import lr_text

__all__ = ["plot_curve", "plot_result_png"]

NO_LANDMARKS = Landmarks()
# Artists are found again by their gid, so that results drawn into one Axes need no memory besides the Axes.
RAW, SMOOTHED, MARK, SHADE, OWN, NORMS, EMPTY = (
    f"lrfinder:{part}" for part in ("raw", "smoothed", "mark:", "shade", "own", "norms", "empty")
)
OWN_REACH = 30.0  # the user's own lr is drawn up to this factor beyond the sweep


def plot_curve(
    curve: Curve,
    suggestions: Mapping[str, Suggestion],
    landmarks: Landmarks = NO_LANDMARKS,
    *,
    ax: Axes | None = None,
    label: str | None = None,
    show_raw: bool = True,
    rules: Sequence[str] | None = None,
    probes: Probes = (),
    own: Verdict | None = None,
    title: str | None = None,
    xlabel: str = "learning rate",
    ylabel: str = "loss",
) -> Axes:
    """Plot the loss against the learning rate, with the suggestion and landmarks marked on the curve.

    The limits of the loss come from its fall, so that a blow-up after it cannot hide it; the learning rates at which
    training diverges are shaded. Several results may share one Axes, each in its own colour and dashes; then the
    learning rates at which all of them diverge are shaded.

    Args:
        curve: What was measured.
        suggestions: The suggestions by rule, the main one first; none is needed.
        landmarks: The landmarks of the curve.
        ax: Where to draw; a new pyplot figure by default.
        label: The name of this result in the legend.
        show_raw: Whether to draw the raw losses, faintly, behind the smoothed ones.
        rules: Which suggestions and landmarks to mark; those that are not on this curve are left out. By default the
            main suggestion, `steepest` and `divergence`.
        probes: Learning rates and losses of refine's short trainings, each of shape (K,). A loss that is not finite or
            far too large is an arrow at the upper edge.
        own: The verdict on the user's own lr, a dotted vertical line; left out with several results, or where the lr
            is far from the sweep.
        title: The title of the Axes.
        xlabel: What the learning rates are of.
        ylabel: Which loss it is.

    Returns:
        The Axes drawn on.

    Example:
        >>> import matplotlib; matplotlib.use("Agg")
        >>> from lrfinder.curve import StopReason
        >>> lrs = np.geomspace(1e-5, 1, 50)
        >>> losses = 2 - np.exp(-np.log10(lrs / 1e-2) ** 2)
        >>> curve = Curve(lrs=lrs, losses=losses, smoothed=losses, indices=np.arange(50),
        ...               stop_reason=StopReason.FINISHED)
        >>> ax = plot_curve(curve, {"auto": Suggestion(lr=2e-3, rule="auto", reason="Half a decade down.", index=22)})
        >>> ax.get_xscale(), [text.get_text() for text in ax.get_legend().get_texts()]
        ('log', ['suggestion 2.0e-03'])
    """
    marks, (probed, scores) = choose_marks(suggestions, landmarks, rules), probe_arrays(probes)
    ax = ax or new_axes()
    if title:
        ax.set_title(title, fontsize=TEXT + 2, loc="left")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    _remove(ax, EMPTY)
    if not len(curve):
        if not ax.has_data():
            style: Style = {"transform": ax.transAxes, "ha": "center", "color": foreground(ax), "gid": EMPTY}
            ax.text(0.5, 0.5, "no finite loss was measured", **style)
        return ax
    fresh, count, past = not ax.has_data(), len(_drawn(ax, SMOOTHED)), diverged_from(curve, landmarks)
    heights = np.array([loss_at(curve, mark.lr) for mark in marks])
    low, high = loss_limits(curve, past, np.concatenate([scores, heights]), raw=show_raw)
    color, dashes = palette(ax)[count % len(LIGHT)], DASHES[count % len(DASHES)]

    _draw_lines(ax, curve, color, dashes, label, show_raw=show_raw)
    _draw_probes(ax, probed, scores, color, high)
    for mark, height in zip(marks, heights, strict=True):
        _draw_mark(ax, mark, height, color, f"{MARK}{count}:{mark.name}")
    if not is_linear(curve):
        ax.set_xscale("log")
    _draw_own(ax, curve, own, first=not count)
    lrs = [*curve.lrs[[0, -1]], *probed, *(mark.lr for mark in marks), past or curve.lrs[0]]
    _widen(ax, (min(lrs), max(lrs)), (low, high), fresh=fresh, rise=max(curve.smoothed) > high)
    _draw_grad_norms(ax, curve, first=not count)
    _shade(ax, past, first=not count)
    _tick_lrs(ax)
    _draw_legend(ax)
    return ax


def plot_result_png(
    curve: Curve,
    suggestions: Mapping[str, Suggestion],
    landmarks: Landmarks = NO_LANDMARKS,
    *,
    rules: Sequence[str] | None = None,
    probes: Probes = (),
    own: Verdict | None = None,
    title: str | None = None,
    xlabel: str = "learning rate",
    ylabel: str = "loss",
    dpi: float = 120.0,
) -> bytes:
    """Return the plot of `plot_curve` as a PNG: dark on opaque white, whatever the active style.

    Args:
        curve: What was measured.
        suggestions: The suggestions by rule, the main one first.
        landmarks: The landmarks of the curve.
        rules: Which suggestions and landmarks to mark.
        probes: Learning rates and losses of refine's short trainings.
        own: The verdict on the user's own lr.
        title: The title of the Axes.
        xlabel: What the learning rates are of.
        ylabel: Which loss it is.
        dpi: Dots per inch; the figure is 7 by 4 inches.

    Returns:
        The bytes of a PNG file. No pyplot figure is made.
    """
    buffer = io.BytesIO()
    with mpl.rc_context():
        mpl.rcdefaults()
        shown: Style = {"rules": rules, "probes": probes, "own": own, "title": title}
        shown |= {"xlabel": xlabel, "ylabel": ylabel}
        ax = plot_curve(curve, suggestions, landmarks, ax=file_axes(dpi), **shown)
        ax.figure.canvas.print_figure(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def _drawn(ax: Axes, gid: str) -> list[Any]:
    """Return the artists on the Axes whose gid begins like this, in the order in which they were drawn."""
    return [artist for artist in ax.get_children() if (artist.get_gid() or "").startswith(gid)]


def _remove(ax: Axes, gid: str) -> None:
    for artist in _drawn(ax, gid):
        artist.remove()


def _draw_lines(ax: Axes, curve: Curve, color: str, dashes: Any, label: str | None, *, show_raw: bool) -> None:
    if show_raw:
        faint: Style = {"alpha": 0.4, "lw": 0.8, "marker": "." if len(curve) <= 60 else None, "ms": 4, "mew": 0}
        ax.plot(*thin(curve.lrs, curve.losses), color=color, zorder=1.5, gid=RAW, label="_", **faint)
    line, dot = thin(curve.lrs, curve.smoothed), "." if len(curve) == 1 else None
    ax.plot(*line, color=color, ls=dashes, lw=1.8, marker=dot, ms=8, zorder=2.5, gid=SMOOTHED, label=label or "_")


def _draw_mark(ax: Axes, mark: Mark, height: float, color: str, gid: str) -> None:
    """Mark a learning rate on the line; its spread is a horizontal error bar."""
    if mark.spread is not None:
        ax.plot(mark.spread, (height, height), color=color, lw=1.2, marker="|", ms=7, zorder=3.5, label="_")
    style: Style = {"marker": mark.marker, "ms": 8.5, "mec": ax.get_facecolor(), "mew": 1.0}
    ax.plot(mark.lr, height, ls="", color=color, zorder=4, gid=gid, label="_", **style)


def _draw_probes(ax: Axes, lrs: Floats, scores: Floats, color: str, high: float) -> None:
    """Draw the losses of the short trainings; an arrow at the edge stands for one far above or not finite."""
    inside = scores <= high
    style: Style = {"marker": "d", "ms": 5, "mfc": ax.get_facecolor(), "ls": (0, (1, 1.5)), "lw": 1.0}
    if len(lrs):
        ax.plot(lrs[inside], scores[inside], color=color, zorder=3, label="after a short training", **style)
        style = {"marker": r"$\uparrow$", "ms": 7, "ls": "", "transform": ax.get_xaxis_transform()}
        ax.plot(lrs[~inside], np.full(np.sum(~inside), 0.96), color=color, zorder=3, label="_", **style)


def _draw_own(ax: Axes, curve: Curve, own: Verdict | None, *, first: bool) -> None:
    """Draw the user's own lr as a vertical line; with several results it would not say whose it is."""
    _remove(ax, OWN)
    if first and own is not None and curve.lrs[0] / OWN_REACH < own.lr < curve.lrs[-1] * OWN_REACH:
        name = f"your lr {lr_text(own.lr)}: {own}"
        ax.axvline(own.lr, color=foreground(ax), ls=(0, (1, 2)), lw=1.2, zorder=2, gid=OWN, label=name)


def _draw_grad_norms(ax: Axes, curve: Curve, *, first: bool) -> None:
    """Draw the gradient norms behind the losses, against an axis on the right; with several results they are left out.

    The line belongs to these Axes, so that it is below the losses and the legend keeps away from it.
    """
    _remove(ax, NORMS)
    for other in ax.get_shared_x_axes().get_siblings(ax):
        if other.get_gid() == NORMS:
            other.remove()
    norms = np.array([] if curve.grad_norms is None else curve.grad_norms, dtype=np.float64)
    shown = np.isfinite(norms) & (norms > 0)
    if not first or not shown.any():
        return
    right = ax.twinx()
    right.spines[["top", "left"]].set_visible(False)
    span = np.array([np.min(norms[shown]), np.max(norms[shown])])
    room = 1.1 * (span[1] / span[0]) ** 0.1
    right.set(gid=NORMS, yscale="log", ylim=span * [1 / room, room], ylabel="gradient norm")
    style: Style = {"color": foreground(ax), "lw": 0.9, "alpha": 0.5, "zorder": 1}
    line = Line2D(*thin(curve.lrs[shown], norms[shown]), gid=NORMS, label="gradient norm (right)", **style)
    line.set_transform(right.transData)
    ax.add_artist(line)


def _widen(ax: Axes, lrs: tuple[float, float], losses: tuple[float, float], *, fresh: bool, rise: bool) -> None:
    """Set the limits around what was drawn, with room for a rise above, or widen those that are there."""
    log = ax.get_xscale() == "log"
    x = np.log(lrs) if log else np.array(lrs)
    x = x + np.array([-1, 1]) * (0.04 * np.ptp(x) or (0.5 if log else 0.5 * lrs[0]))
    x = np.exp(x) if log else x
    height = losses[1] - losses[0] or 0.2 * abs(losses[0]) or 1.0
    y = np.array(losses) + height * np.array([-0.1, 0.35 if rise else 0.1])
    if not fresh:
        x, y = (
            np.array([min(new[0], *old), max(new[1], *old)]) for new, old in ((x, ax.get_xlim()), (y, ax.get_ylim()))
        )
    ax.set(xlim=x, ylim=y)


def _shade(ax: Axes, past: float | None, *, first: bool) -> None:
    """Shade the learning rates past divergence; with several results, those past the divergence of every one."""
    old = _drawn(ax, SHADE)
    # axvspan makes a polygon before matplotlib 3.9, then a rectangle; both start with the lower left corner.
    edges = [float(np.ravel(patch.get_xy())[0]) for patch in old]
    starts = [past, *edges] if past is not None and (first or old) else []
    for patch in old:
        patch.remove()
    end = ax.get_xlim()[1]
    if starts and max(starts) < end:
        style: Style = {"color": foreground(ax), "alpha": 0.1, "lw": 0, "zorder": 0}
        ax.axvspan(max(starts), end, gid=SHADE, label="past divergence", **style)


def _tick_lrs(ax: Axes) -> None:
    """Label a log axis at powers of ten, at 1-2-5 or at round numbers: as the span asks and the width allows."""
    if ax.get_xscale() != "log":
        return
    decades = np.log10(np.divide(*ax.get_xlim()[::-1]))
    room = width(ax) / 40  # a label takes 40 points
    if decades < 0.9:
        ax.xaxis.set_major_locator(MaxNLocator(int(np.clip(room, 2, 6)), steps=[1, 2, 2.5, 5, 10]))
    else:
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if 3 * decades <= room else (1,)))
    ax.xaxis.set_minor_locator(LogLocator(subs=range(2, 10)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda lr, _: power_of_ten(lr)))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _draw_legend(ax: Axes) -> None:
    """Name what was drawn: one result's marks with their values; of several results, each one's first value."""
    lines, marks = _drawn(ax, SMOOTHED), _drawn(ax, MARK)
    handles, names = ax.get_legend_handles_labels()
    entries: list[tuple[Any, str]] = []
    if len(lines) == 1:
        entries += [(mark, f"{_name(mark)} {_value(mark)}") for mark in marks]
    else:
        for place, line in enumerate(lines):
            name = f"result {place + 1}" if line.get_label().startswith("_") else line.get_label()
            own = [mark for mark in marks if mark.get_gid().startswith(f"{MARK}{place}:")]
            entries.append(((line, own[0]), f"{name}: {_value(own[0])}") if own else (line, name))
        shapes = {_name(mark): mark.get_marker() for mark in marks}
        style: Style = {"ls": "", "color": foreground(ax), "ms": 6}
        entries += [(Line2D([], [], marker=shape, **style), name) for name, shape in shapes.items()]
    ours = {id(line) for line in lines if len(lines) > 1}
    entries += [entry for entry in zip(handles, names, strict=True) if id(entry[0]) not in ours]
    if entries:
        columns = max(20, int(width(ax) / TEXT / 1.5))  # in characters: about a third of the Axes
        texts = [textwrap.fill(name, columns) for _, name in entries]
        frame_legend(ax, ax.legend([handle for handle, _ in entries], texts, fontsize=TEXT, loc="best"))


def _name(mark: Any) -> str:
    return str(mark.get_gid().split(":", 3)[-1])


def _value(mark: Any) -> str:
    return lr_text(float(mark.get_xdata()[0]))
