"""Everything that a person or a file sees of a result: text, HTML, JSON, plots, the progress bar."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lrfinder.display.html import html_block
from lrfinder.display.progress import Progress
from lrfinder.display.serialization import (
    SCHEMA,
    plain_curve,
    plain_suggestion,
    read_fields,
    read_json,
    versions,
    write_json,
)
from lrfinder.display.text import block, outcome

if TYPE_CHECKING:
    from lrfinder.display.plots import file_axes, plot_curve, plot_result_png, plot_schedule

__all__ = [
    "SCHEMA",
    "Progress",
    "block",
    "file_axes",
    "html_block",
    "outcome",
    "plain_curve",
    "plain_suggestion",
    "plot_curve",
    "plot_result_png",
    "plot_schedule",
    "read_fields",
    "read_json",
    "versions",
    "write_json",
]

_PLOTS = {"file_axes", "plot_curve", "plot_result_png", "plot_schedule"}  # they load matplotlib when first used


def __getattr__(name: str) -> Any:
    if name not in _PLOTS:
        raise AttributeError(f"module 'lrfinder.display' has no attribute {name!r}")
    return getattr(import_module("lrfinder.display.plots"), name)
