"""The plot of a schedule: each parameter group's learning rate, and momentum where it changes, against the step."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lrfinder.curve import Floats
from lrfinder.display.figures import DASHES, TEXT, Style, foreground, frame_legend, new_axes, palette
from lrfinder.optim import preview_schedule

__all__ = ["plot_schedule"]


def plot_schedule(scheduler: LRScheduler, total_steps: int, ax: Axes | None = None) -> Axes:
    """Plot each parameter group's learning rate, and momentum (or Adam's beta1) where it changes, against the step.

    The scheduler and its optimizer are only read: a copy is stepped. Groups with the same learning rates share a line.
    `ReduceLROnPlateau` is given a metric that never improves.

    Args:
        scheduler: Any scheduler of `torch.optim.lr_scheduler`.
        total_steps: Optimizer steps of the whole training; a scheduler that has taken some is drawn from there on.
        ax: Where to draw; a new pyplot figure by default. Momentum gets a second axis on the right.

    Returns:
        The Axes with the learning rates.

    Raises:
        ArgumentError: `scheduler` is none, `total_steps` leaves nothing to draw, or the schedule is shorter.

    Example:
        >>> import matplotlib; matplotlib.use("Agg")
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
        >>> ax = plot_schedule(torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=100), total_steps=100)
        >>> ax.get_xlabel(), len(ax.lines), optimizer.param_groups[0]["lr"]
        ('step', 1, 0.1)
    """  # noqa: DOC502 - raised by preview_schedule
    course = preview_schedule(scheduler, total_steps)
    ax = ax or new_axes()
    colors = palette(ax)
    lines = course.distinct()
    for place, (name, lrs) in enumerate(lines.items()):
        # Of many groups, naming the outer ones is enough to read the order.
        named = len(lines) > 1 and (place < len(colors) - 1 or place == len(lines) - 1)
        style: Style = {"color": colors[place % len(colors)], "ls": DASHES[place % len(DASHES)], "lw": 1.8}
        style["drawstyle"] = "steps-post" if len(course.steps) <= 200 else "default"
        ax.plot(course.steps, lrs, label=name if named else "_", **style)
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
        frame_legend(ax, ax.legend(fontsize=TEXT, ncols=columns, loc="upper right" if cycled.size else "best"))
    return ax


def _draw_momentum(ax: Axes, steps: ArrayLike, momenta: Floats, name: str, room: float) -> None:
    """Draw momentum, dotted and in the colour of text, against an axis on the right."""
    right = ax.twinx()
    right.plot(steps, momenta, color=foreground(ax), lw=1.0, ls=(0, (1, 2)))
    right.set_ylim(momenta.min() - 0.06 * np.ptp(momenta), momenta.max() + room * np.ptp(momenta))
    right.set_ylabel(f"{name} (dotted)")
    right.spines["top"].set_visible(False)
