"""What all plots share: figures, colours for light and dark backgrounds, legends."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

__all__ = [
    "DARK",
    "DASHES",
    "LIGHT",
    "TEXT",
    "Style",
    "file_axes",
    "foreground",
    "frame_legend",
    "new_axes",
    "palette",
    "width",
]

Style = dict[str, Any]

# The colours of Okabe and Ito, distinct for every kind of colour vision, ordered for light and for dark backgrounds.
LIGHT = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
DARK = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#D55E00")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (9, 3)))
SIZE = (7.0, 4.0)  # inches
TEXT = 8.0  # points


def new_axes() -> Axes:
    """Return Axes in a new pyplot figure, which a notebook shows once."""
    import matplotlib.pyplot as plt

    return _without_upper_spines(plt.subplots(figsize=SIZE, layout="constrained")[1])


def file_axes(dpi: float = 150.0) -> Axes:
    """Return Axes in a figure that pyplot does not know, for a plot that goes straight to a file.

    Args:
        dpi: Dots per inch; the figure is 7 by 4 inches.

    Returns:
        Empty Axes in the active style.
    """
    figure = Figure(figsize=SIZE, dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return _without_upper_spines(figure.add_subplot())


def foreground(ax: Axes) -> Any:
    """Return the colour of text under the style that the Axes was made with."""
    return ax.xaxis.label.get_color()


def palette(ax: Axes) -> tuple[str, ...]:
    """Return the colours that stand out from the background of the Axes."""
    luminance = np.dot([0.299, 0.587, 0.114], to_rgb(ax.get_facecolor()))
    return LIGHT if luminance > 0.5 else DARK


def frame_legend(ax: Axes, legend: Any) -> None:
    """Give a legend the background of the Axes, slightly transparent, and no line around it."""
    legend.get_frame().set(linewidth=0, facecolor=ax.get_facecolor(), alpha=0.8)


def width(ax: Axes) -> float:
    """Return the width of the Axes in points."""
    return float(ax.bbox.width * 72 / ax.figure.dpi)


def _without_upper_spines(ax: Axes) -> Axes:
    ax.spines[["top", "right"]].set_visible(False)
    return ax
