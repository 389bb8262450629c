"""The learning-rate range test for PyTorch that leaves nothing behind.

`LRFinder.find` sweeps the learning rate over some training steps, says which rate to train with and why, puts the
training setup back bit for bit, and its result builds the scheduler.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lrfinder.curve import Context, Curve
from lrfinder.errors import ArgumentError, LRFinderError, LRFinderWarning, NoSuggestionError, RankError, RestoreError
from lrfinder.smoothing import SMOOTHINGS, smooth
from lrfinder.suggest import RULES, Suggestion
from lrfinder.sweep import StopReason, Sweep

if TYPE_CHECKING:
    from lrfinder.finder import LRFinder
    from lrfinder.plotting import plot_schedule
    from lrfinder.result import RangeTestResult
    from lrfinder.schedulers import SCHEDULES, make_scheduler
    from lrfinder.snapshot import Snapshot, preserved

__all__ = [
    "RULES",
    "SCHEDULES",
    "SMOOTHINGS",
    "ArgumentError",
    "Context",
    "Curve",
    "LRFinder",
    "LRFinderError",
    "LRFinderWarning",
    "NoSuggestionError",
    "RangeTestResult",
    "RankError",
    "RestoreError",
    "Snapshot",
    "StopReason",
    "Suggestion",
    "Sweep",
    "make_scheduler",
    "plot_schedule",
    "preserved",
    "smooth",
]

# What loads torch or matplotlib is imported when it is first asked for.
_LAZY = {
    "LRFinder": "lrfinder.finder",
    "RangeTestResult": "lrfinder.result",
    "SCHEDULES": "lrfinder.schedulers",
    "Snapshot": "lrfinder.snapshot",
    "make_scheduler": "lrfinder.schedulers",
    "plot_schedule": "lrfinder.plotting",
    "preserved": "lrfinder.snapshot",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'lrfinder' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_LAZY[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
