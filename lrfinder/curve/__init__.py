"""Losses at learning rates become advice. NumPy and SciPy only: importing this package loads no torch."""

from lrfinder.curve.arrays import Floats
from lrfinder.curve.clipping import ClipSuggestion, clip_threshold, norms_explode, norms_overflow
from lrfinder.curve.curve import NOTHING_KNOWN, Context, Curve
from lrfinder.curve.diagnosis import Diagnosis, Stretch, TrainingVerdict, diagnose
from lrfinder.curve.ladder import MOST_PROBES, Refined, ShortTraining, probe_steps, refine
from lrfinder.curve.landmarks import Landmarks, find_landmarks
from lrfinder.curve.repeats import curve_of, mean_curve
from lrfinder.curve.rules import RULES, CustomRule, RuleEntry, rule_name, suggest
from lrfinder.curve.scout import scout_grid, scouted_range
from lrfinder.curve.smoothing import SMOOTHINGS, smooth
from lrfinder.curve.spread import lr_spreads
from lrfinder.curve.stop_rule import DEFAULT_STOP_RULE, StopReason, StopRule
from lrfinder.curve.suggestion import Suggestion
from lrfinder.curve.sweep import MIN_POINTS, MODES, Sweep, grid
from lrfinder.curve.verdicts import Level, Verdict, judge
from lrfinder.curve.warnings import curve_warnings

__all__ = [
    "DEFAULT_STOP_RULE",
    "MIN_POINTS",
    "MODES",
    "MOST_PROBES",
    "NOTHING_KNOWN",
    "RULES",
    "SMOOTHINGS",
    "ClipSuggestion",
    "Context",
    "Curve",
    "CustomRule",
    "Diagnosis",
    "Floats",
    "Landmarks",
    "Level",
    "Refined",
    "RuleEntry",
    "ShortTraining",
    "StopReason",
    "StopRule",
    "Stretch",
    "Suggestion",
    "Sweep",
    "TrainingVerdict",
    "Verdict",
    "clip_threshold",
    "curve_of",
    "curve_warnings",
    "diagnose",
    "find_landmarks",
    "grid",
    "judge",
    "lr_spreads",
    "mean_curve",
    "norms_explode",
    "norms_overflow",
    "probe_steps",
    "refine",
    "rule_name",
    "scout_grid",
    "scouted_range",
    "smooth",
    "suggest",
]
