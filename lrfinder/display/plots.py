"""Every picture: the measured curve with its suggestions, and the preview of a schedule."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import ArrayLike
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lrfinder.curve import RULES, Curve, Floats, Suggestion
from lrfinder.display.axes import (
    Probes,
    diverged_from,
    is_linear,
    loss_at,
    loss_limits,
    marked_rules,
    probe_arrays,
    thin,
)
from lrfinder.display.label_placement import annotate, power_of_ten
from lrfinder.optim import preview_schedule

__all__ = ["file_axes", "plot_curve", "plot_result_png", "plot_schedule"]

Style = dict[str, Any]

# Okabe & Ito's colours, told apart with every kind of colour vision, ordered for light and for dark backgrounds.
LIGHT = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
DARK = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#D55E00")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (9, 3)))
# The first rule drawn is the main one and gets the disc; the others have a shape each.
MAIN_SHAPE = "o"
SHAPES = {"steepest": "^", "divergence": "X", "onset": "s", "minimum": "v"}
SHAPES |= {name: rule.marker for name, rule in RULES.items()}
SIZE = (7.0, 4.0)  # inches
TEXT = 8.0  # points
# Our artists are found again by their gid, so that overlaid results need no memory besides the Axes.
RAW, SMOOTHED, MARK, SHADE, LABEL = (f"lrfinder:{part}" for part in ("raw", "smoothed", "mark:", "shade", "label"))


def plot_curve(
    curve: Curve,
    suggestions: Mapping[str, Suggestion],
    *,
    ax: Axes | None = None,
    label: str | None = None,
    show_raw: bool = True,
    rules: Sequence[str] | None = None,
    probes: Probes = (),
    title: str | None = None,
) -> Axes:
    """Draw the loss against the learning rate, with the suggestions marked by shape and value.

    The limits of the loss come from the part before divergence; what lies beyond is shaded. Several results may share
    one Axes, each in its own colour and dashes; then what lies past the divergence of all is shaded.

    Args:
        curve: What was measured.
        suggestions: The suggestions by rule; none is needed.
        ax: Where to draw; a new pyplot figure if left out.
        label: The name of this result in the legend.
        show_raw: Whether to draw the measured losses, faintly, behind the smoothed ones.
        rules: Which suggestions to mark, the main one first; those that do not apply are left out. By default
            `refine`, or else `auto`, with `steepest` and `divergence`.
        probes: Learning rates and losses of refine's short trainings, each of shape (K,). A loss that is not finite or
            far too large is an arrow at the upper edge.
        title: The title of the Axes.

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
        >>> ax.get_xscale(), [text.get_text() for text in ax.texts]
        ('log', ['suggestion 2.0e-03'])
    """
    marked, (probed, scores) = marked_rules(suggestions, rules), probe_arrays(probes)
    ax = ax or _new_axes()
    if title:
        ax.set_title(title, fontsize=TEXT + 2, loc="left")
    ax.set(xlabel="learning rate", ylabel="loss")
    if not len(curve):
        ax.text(0.5, 0.5, "no finite loss was measured", transform=ax.transAxes, ha="center", color=_foreground(ax))
        return ax
    fresh, count, past = not ax.has_data(), len(_ours(ax, SMOOTHED)), diverged_from(curve, suggestions)
    low, high = loss_limits(curve, past, scores, raw=show_raw)
    color, dashes = _palette(ax)[count % len(LIGHT)], DASHES[count % len(DASHES)]

    _draw_lines(ax, curve, color, dashes, label, show_raw=show_raw)
    _draw_probes(ax, probed, scores, color, high)
    for place, (name, suggestion) in enumerate(marked.items()):
        shape = SHAPES.get(suggestion.rule, "P") if place else MAIN_SHAPE
        loss = float(np.clip(loss_at(curve, suggestion.lr), low, high))
        _draw_mark(ax, name, shape, suggestion, loss, color)
    if not is_linear(curve):
        ax.set_xscale("log")
    rates = [*curve.lrs[[0, -1]], *probed, *(suggestion.lr for suggestion in marked.values()), past or curve.lrs[0]]
    _widen(ax, (min(rates), max(rates)), (low, high), fresh=fresh, rise=max(curve.smoothed) > high)
    _shade(ax, past, first=not count)
    _tick_rates(ax)
    _name_lines(ax)
    _name_marks(ax)
    return ax


def plot_result_png(
    curve: Curve,
    suggestions: Mapping[str, Suggestion],
    *,
    rules: Sequence[str] | None = None,
    probes: Probes = (),
    title: str | None = None,
    dpi: float = 120.0,
) -> bytes:
    """Return the picture of `plot_curve` as a PNG: dark on opaque white, whatever the active style.

    Args:
        curve: What was measured.
        suggestions: The suggestions by rule.
        rules: Which suggestions to mark, the main one first.
        probes: Learning rates and losses of refine's short trainings.
        title: The title of the Axes.
        dpi: Pixels per inch; the picture is 7 by 4 inches.

    Returns:
        The bytes of a PNG file. No pyplot figure is made.
    """
    buffer = io.BytesIO()
    with mpl.rc_context():
        mpl.rcdefaults()
        ax = plot_curve(curve, suggestions, ax=file_axes(dpi), rules=rules, probes=probes, title=title)
        ax.figure.canvas.print_figure(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def file_axes(dpi: float = 150.0) -> Axes:
    """Return Axes in a figure that pyplot does not know, for a picture that goes straight to a file.

    Args:
        dpi: Pixels per inch; the figure is 7 by 4 inches.

    Returns:
        Empty Axes in the active style.
    """
    figure = Figure(figsize=SIZE, dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return _calm(figure.add_subplot())


def plot_schedule(scheduler: LRScheduler, total_steps: int, ax: Axes | None = None) -> Axes:
    """Preview the rate of each parameter group, and momentum (or Adam's beta1) where it is cycled, against the step.

    The scheduler and its optimizer are only read: a twin is stepped (`lrfinder.preview`, whose errors this raises).
    Groups with the same rates share a line. `ReduceLROnPlateau` is told a metric that never improves.

    Args:
        scheduler: Any scheduler of `torch.optim.lr_scheduler`.
        total_steps: Optimizer steps of the whole training; a scheduler that has taken some is drawn from there on.
        ax: Where to draw; a new pyplot figure if left out. Momentum gets an axis of its own on the right.

    Returns:
        The Axes with the rates.

    Example:
        >>> import matplotlib; matplotlib.use("Agg")
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
        >>> ax = plot_schedule(torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=100), total_steps=100)
        >>> ax.get_xlabel(), len(ax.lines), optimizer.param_groups[0]["lr"]
        ('step', 1, 0.1)
    """
    course = preview_schedule(scheduler, total_steps)
    ax = ax or _new_axes()
    colors = _palette(ax)
    lines = course.distinct()
    for place, (name, rates) in enumerate(lines.items()):
        # Of many groups, naming the outer ones is enough to read the order.
        named = len(lines) > 1 and (place < len(colors) - 1 or place == len(lines) - 1)
        style: Style = {"color": colors[place % len(colors)], "ls": DASHES[place % len(DASHES)], "lw": 1.8}
        style["drawstyle"] = "steps-post" if len(course.steps) <= 200 else "default"
        ax.plot(course.steps, rates, label=name if named else "_", **style)
    step = "step, if the metric never improves" if isinstance(scheduler, ReduceLROnPlateau) else "step"
    ax.set(xlabel=step, ylabel="learning rate")
    ax.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    cycled = course.momenta[:, np.ptp(course.momenta, axis=0) > 0]
    # Two scales leave no corner free: a legend needs room above the lines.
    room = 0.3 if cycled.size and len(lines) > 1 else 0.06
    scale, low, high = course.scale(room)
    ax.set_yscale(scale)
    ax.set_ylim(low, high)
    if cycled.size:
        _draw_momentum(ax, course.steps, cycled[:, 0], course.momentum, room)
    if len(lines) > 1:
        columns = 1 if len(lines) < 4 else 3
        _frame(ax, ax.legend(fontsize=TEXT, ncols=columns, loc="upper right" if cycled.size else "best"))
    return ax


def _new_axes() -> Axes:
    """Return Axes in a new pyplot figure, which a notebook shows once."""
    import matplotlib.pyplot as plt

    return _calm(plt.subplots(figsize=SIZE, layout="constrained")[1])


def _calm(ax: Axes) -> Axes:
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _foreground(ax: Axes) -> Any:
    """Return the colour of text under the style that the Axes was made with."""
    return ax.xaxis.label.get_color()


def _palette(ax: Axes) -> tuple[str, ...]:
    luminance = np.dot([0.299, 0.587, 0.114], to_rgb(ax.get_facecolor()))
    return LIGHT if luminance > 0.5 else DARK


def _frame(ax: Axes, legend: Any) -> None:
    legend.get_frame().set(linewidth=0, facecolor=ax.get_facecolor(), alpha=0.8)


def _width(ax: Axes) -> float:
    """Return the width in points."""
    return float(ax.bbox.width * 72 / ax.figure.dpi)


def _ours(ax: Axes, gid: str) -> list[Any]:
    """Return the artists on the Axes that carry the gid, in the order in which they were drawn."""
    return [artist for artist in ax.get_children() if (artist.get_gid() or "").startswith(gid)]


def _draw_lines(ax: Axes, curve: Curve, color: str, dashes: Any, label: str | None, *, show_raw: bool) -> None:
    if show_raw:
        faint: Style = {"alpha": 0.4, "lw": 0.8, "marker": "." if len(curve) <= 60 else None, "ms": 4, "mew": 0}
        ax.plot(*thin(curve.lrs, curve.losses), color=color, zorder=1.5, gid=RAW, label="_", **faint)
    line, dot = thin(curve.lrs, curve.smoothed), "." if len(curve) == 1 else None
    ax.plot(*line, color=color, ls=dashes, lw=1.8, marker=dot, ms=8, zorder=2.5, gid=SMOOTHED, label=label or "_")


def _draw_mark(ax: Axes, name: str, shape: str, suggestion: Suggestion, loss: float, color: str) -> None:
    """Mark a suggestion on the line; its spread is a horizontal error bar."""
    if suggestion.spread is not None:
        ax.plot(suggestion.spread, (loss, loss), color=color, lw=1.2, marker="|", ms=7, zorder=3.5, label="_")
    style: Style = {"marker": shape, "ms": 9 if shape == MAIN_SHAPE else 8.5, "mec": ax.get_facecolor(), "mew": 1.0}
    ax.plot(suggestion.lr, loss, ls="", color=color, zorder=4, gid=MARK + name, label="_", **style)


def _draw_probes(ax: Axes, rates: Floats, scores: Floats, color: str, high: float) -> None:
    """Draw the losses of the short trainings; an arrow at the edge stands for one far above or not finite."""
    inside = scores <= high
    style: Style = {"marker": "d", "ms": 5, "mfc": ax.get_facecolor(), "ls": (0, (1, 1.5)), "lw": 1.0}
    if len(rates):
        ax.plot(rates[inside], scores[inside], color=color, zorder=3, label="after a short training", **style)
        style = {"marker": r"$\uparrow$", "ms": 7, "ls": "", "transform": ax.get_xaxis_transform()}
        ax.plot(rates[~inside], np.full(np.sum(~inside), 0.96), color=color, zorder=3, label="_", **style)


def _widen(ax: Axes, rates: tuple[float, float], losses: tuple[float, float], *, fresh: bool, rise: bool) -> None:
    """Set the limits around what was drawn, with room for a rise beyond, or widen those that are there."""
    log = ax.get_xscale() == "log"
    x = np.log(rates) if log else np.array(rates)
    x = x + np.array([-1, 1]) * (0.04 * np.ptp(x) or (0.5 if log else 0.5 * rates[0]))
    x = np.exp(x) if log else x
    height = losses[1] - losses[0] or 0.2 * abs(losses[0]) or 1.0
    y = np.array(losses) + height * np.array([-0.1, 0.35 if rise else 0.1])
    if not fresh:
        x, y = (
            np.array([min(new[0], *old), max(new[1], *old)]) for new, old in ((x, ax.get_xlim()), (y, ax.get_ylim()))
        )
    ax.set(xlim=x, ylim=y)


def _shade(ax: Axes, past: float | None, *, first: bool) -> None:
    """Shade the rates past divergence; with several results, those past the divergence of every one."""
    old = _ours(ax, SHADE)
    # axvspan gives a polygon before matplotlib 3.9, then a rectangle; both start with the lower left corner.
    edges = [float(np.ravel(patch.get_xy())[0]) for patch in old]
    starts = [past, *edges] if past is not None and (first or old) else []
    for patch in old:
        patch.remove()
    end = ax.get_xlim()[1]
    if starts and max(starts) < end:
        ax.axvspan(max(starts), end, color=_foreground(ax), alpha=0.07, lw=0, zorder=0, gid=SHADE)


def _tick_rates(ax: Axes) -> None:
    """Label a log axis at powers of ten, at 1-2-5 or at round numbers: as the span asks and the width allows."""
    if ax.get_xscale() != "log":
        return
    decades = np.log10(np.divide(*ax.get_xlim()[::-1]))
    room = _width(ax) / 40  # a label takes 40 points
    if decades < 0.9:
        ax.xaxis.set_major_locator(MaxNLocator(int(np.clip(room, 2, 6)), steps=[1, 2, 2.5, 5, 10]))
    else:
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if 3 * decades <= room else (1,)))
    ax.xaxis.set_minor_locator(LogLocator(subs=range(2, 10)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: power_of_ten(rate)))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _name_lines(ax: Axes) -> None:
    """Name the lines in a legend; with several results also the shapes, once each."""
    handles, names = ax.get_legend_handles_labels()
    if len(_ours(ax, SMOOTHED)) > 1:
        shapes = {mark.get_gid().removeprefix(MARK): mark.get_marker() for mark in _ours(ax, MARK)}
        names += shapes
        handles += [Line2D([], [], ls="", marker=shape, color=_foreground(ax), ms=6) for shape in shapes.values()]
    width = max(16, int(_width(ax) / TEXT / 1.5))  # in characters: about a third of the Axes
    entries = {textwrap.fill(name, width): handle for name, handle in zip(names, handles, strict=True)}
    if entries:
        _frame(ax, ax.legend(entries.values(), entries.keys(), fontsize=TEXT, loc="best"))


def _name_marks(ax: Axes) -> None:
    """Write its value beside every mark, all anew: each result moves the limits."""
    for text in _ours(ax, LABEL):
        text.remove()
    figure = ax.figure
    if isinstance(figure, Figure) and (engine := figure.get_layout_engine()):
        engine.execute(figure)
    alone = len(_ours(ax, SMOOTHED)) == 1
    marks = sorted(_ours(ax, MARK), key=lambda mark: bool(mark.get_marker() != MAIN_SHAPE))
    at = [mark.get_xydata()[0] for mark in marks]
    gap = " " if _width(ax) > 300 else "\n"
    texts, styles = [], []
    for mark, (lr, _) in zip(marks, at, strict=True):
        texts.append(f"{mark.get_gid().removeprefix(MARK)}{gap}{lr:.1e}" if alone else f"{lr:.1e}")
        weight = "bold" if mark.get_marker() == MAIN_SHAPE else "normal"
        color = _foreground(ax) if alone else mark.get_color()
        styles.append({"color": color, "fontweight": weight, "fontsize": TEXT, "zorder": 5, "gid": LABEL})
    annotate(ax, at, texts, styles, lines=ax.lines)


def _draw_momentum(ax: Axes, steps: ArrayLike, momenta: Floats, name: str, room: float) -> None:
    """Draw momentum, thin and in the colour of text, against an axis on the right."""
    right = ax.twinx()
    right.plot(steps, momenta, color=_foreground(ax), lw=1.0, ls=(0, (1, 2)))
    right.set_ylim(momenta.min() - 0.06 * np.ptp(momenta), momenta.max() + room * np.ptp(momenta))
    right.set_ylabel(f"{name} (dotted)")
    right.spines["top"].set_visible(False)
