"""What a person or a file sees of a result: text, HTML, JSON, plots, the progress bar."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lrfinder.display.html import html_block
from lrfinder.display.progress import Progress
from lrfinder.display.serialization import (
    SCHEMA,
    plain_fields,
    read_fields,
    read_json,
    versions,
    write_json,
)
from lrfinder.display.summary import length_text, lr_text, one_line, summarize
from lrfinder.display.text import text_block
from lrfinder.display.training_logs import LogRow, TrainingLog, log_of_rows, log_rows

if TYPE_CHECKING:
    from lrfinder.display.diagnosis_plot import plot_diagnosis
    from lrfinder.display.figures import file_axes
    from lrfinder.display.plots import plot_curve, plot_result_png
    from lrfinder.display.schedule_plot import plot_schedule

__all__ = [
    "SCHEMA",
    "LogRow",
    "Progress",
    "TrainingLog",
    "file_axes",
    "html_block",
    "length_text",
    "log_of_rows",
    "log_rows",
    "lr_text",
    "one_line",
    "plain_fields",
    "plot_curve",
    "plot_diagnosis",
    "plot_result_png",
    "plot_schedule",
    "read_fields",
    "read_json",
    "summarize",
    "text_block",
    "versions",
    "write_json",
]

# What loads matplotlib is imported when it is first asked for.
_LAZY = {
    "file_axes": "lrfinder.display.figures",
    "plot_curve": "lrfinder.display.plots",
    "plot_diagnosis": "lrfinder.display.diagnosis_plot",
    "plot_result_png": "lrfinder.display.plots",
    "plot_schedule": "lrfinder.display.schedule_plot",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'lrfinder.display' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
