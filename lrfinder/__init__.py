"""The learning-rate range test for PyTorch that leaves nothing behind.

`LRFinder.find` sweeps the learning rate over some training steps, says which rate to train with and why, puts the
training setup back bit for bit, and its result builds the scheduler.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lrfinder.curve import (
    RULES,
    SMOOTHINGS,
    Context,
    Curve,
    Diagnosis,
    Landmarks,
    Level,
    StopReason,
    Suggestion,
    Sweep,
    TrainingVerdict,
    Verdict,
    diagnose,
    smooth,
)
from lrfinder.errors import ArgumentError, LRFinderError, LRFinderWarning, NoSuggestionError, RankError, RestoreError
from lrfinder.version import __version__

if TYPE_CHECKING:
    from lrfinder.comparison import Comparison, GroupResults, compare, find_each_group
    from lrfinder.display import plot_diagnosis, plot_schedule
    from lrfinder.finder import LRFinder
    from lrfinder.optim import SCHEDULES, make_scheduler
    from lrfinder.result import RangeTestResult
    from lrfinder.snapshot import Snapshot

__all__ = [
    "RULES",
    "SCHEDULES",
    "SMOOTHINGS",
    "ArgumentError",
    "Comparison",
    "Context",
    "Curve",
    "Diagnosis",
    "GroupResults",
    "LRFinder",
    "LRFinderError",
    "LRFinderWarning",
    "Landmarks",
    "Level",
    "NoSuggestionError",
    "RangeTestResult",
    "RankError",
    "RestoreError",
    "Snapshot",
    "StopReason",
    "Suggestion",
    "Sweep",
    "TrainingVerdict",
    "Verdict",
    "__version__",
    "compare",
    "diagnose",
    "find_each_group",
    "make_scheduler",
    "plot_diagnosis",
    "plot_schedule",
    "smooth",
]

# What loads torch or matplotlib is imported when it is first asked for.
_LAZY = {
    "Comparison": "lrfinder.comparison",
    "GroupResults": "lrfinder.comparison",
    "LRFinder": "lrfinder.finder",
    "RangeTestResult": "lrfinder.result",
    "SCHEDULES": "lrfinder.optim",
    "Snapshot": "lrfinder.snapshot",
    "compare": "lrfinder.comparison",
    "find_each_group": "lrfinder.comparison",
    "make_scheduler": "lrfinder.optim",
    "plot_diagnosis": "lrfinder.display",
    "plot_schedule": "lrfinder.display",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'lrfinder' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_LAZY[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
