"""What users rely on: names, signatures, what an import costs."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import lrfinder
from lrfinder import LRFinder, RangeTestResult

PACKAGE = Path(lrfinder.__file__).parent

EMPTY = inspect.Parameter.empty
KEYWORD, POSITIONAL = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD


def test_the_public_names():
    assert sorted(lrfinder.__all__) == sorted([
        "RULES", "SCHEDULES", "SMOOTHINGS", "ArgumentError", "Context", "Curve", "Diagnosis", "LRFinder",
        "LRFinderError", "LRFinderWarning", "Landmarks", "Level", "NoSuggestionError", "RangeTestResult", "RankError",
        "RestoreError", "Snapshot", "StopReason", "Suggestion", "Sweep", "TrainingVerdict", "Verdict", "__version__",
        "Comparison", "GroupResults", "compare", "diagnose",
        "find_each_group", "make_scheduler", "plot_diagnosis", "plot_schedule", "smooth",
    ])  # fmt: skip
    assert all(getattr(lrfinder, name) is not None for name in lrfinder.__all__)
    assert set(lrfinder.__all__) <= set(dir(lrfinder))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        lrfinder.nothing  # noqa: B018 - for its error


def arguments(function):
    parameters = list(inspect.signature(function).parameters.values())
    return [(p.name, p.kind, p.default) for p in parameters if p.name != "self"]


def test_the_signature_of_the_finder():
    assert arguments(LRFinder) == [
        ("model", POSITIONAL, EMPTY),
        ("optimizer", POSITIONAL, EMPTY),
        ("criterion", POSITIONAL, None),
        ("loss_fn", KEYWORD, None),
        ("step", KEYWORD, None),
        ("device", KEYWORD, None),
        ("autocast", KEYWORD, None),
        ("grad_scaler", KEYWORD, None),
        ("accumulation_steps", KEYWORD, 1),
        ("max_grad_norm", KEYWORD, None),
        ("backward", KEYWORD, None),
        ("closure", KEYWORD, None),
        ("extra_state", KEYWORD, ()),
        ("snapshot_device", KEYWORD, None),
        ("snapshot_frozen", KEYWORD, True),
    ]


def test_the_signature_of_find():
    assert arguments(LRFinder.find) == [
        ("loader", POSITIONAL, EMPTY),
        ("start_lr", KEYWORD, None),
        ("end_lr", KEYWORD, None),
        ("num_iter", KEYWORD, 100),
        ("mode", KEYWORD, "exponential"),
        ("val_loader", KEYWORD, None),
        ("val_batches", KEYWORD, 8),
        ("val_mode", KEYWORD, "eval"),
        ("smoothing", KEYWORD, "gaussian"),
        ("rule", KEYWORD, "auto"),
        ("total_steps", KEYWORD, None),
        ("schedule", KEYWORD, "one_cycle"),
        ("refine", KEYWORD, False),
        ("repeats", KEYWORD, 1),
        ("early_stop", KEYWORD, True),
        ("grad_norms", KEYWORD, False),
        ("group", KEYWORD, None),
        ("progress", KEYWORD, True),
        ("on_step", KEYWORD, None),
    ]


def test_the_members_of_a_result():
    promised = {
        "lrs", "losses", "smoothed", "stop_reason", "stop_lr", "suggestion", "suggest", "suggestions", "landmarks",
        "warnings", "group_lrs", "apply", "plot", "scheduler", "save", "load", "to_dict",
        "steps", "seconds", "probes", "meta", "_repr_html_",
    }  # fmt: skip
    members = {*dir(RangeTestResult), *RangeTestResult.__dataclass_fields__}
    assert promised <= members
    assert arguments(RangeTestResult.plot) == [
        ("ax", POSITIONAL, None),
        ("label", KEYWORD, None),
        ("rules", KEYWORD, None),
        ("show_raw", KEYWORD, True),
    ]
    assert list(lrfinder.Suggestion.__dataclass_fields__) == ["lr", "rule", "reason", "index", "spread"]
    assert [reason.name for reason in lrfinder.StopReason] == ["FINISHED", "DIVERGED", "NONFINITE", "EXHAUSTED"]
    assert all(reason.explanation.count(". ") >= 1 for reason in lrfinder.StopReason)  # cause, then remedy


def test_the_rules_the_schedules_and_the_smoothings():
    assert set(lrfinder.RULES) == {
        "auto", "refine", "fastai_valley", "fastai_slide", "fastai_minimum", "fastai_steep", "torch_lr_finder",
        "ignite", "lightning",
    }  # fmt: skip
    assert set(lrfinder.SMOOTHINGS) == {"gaussian", "ema", "median", "none"}
    assert set(lrfinder.SCHEDULES) == {
        "one_cycle", "step", "multi_step", "exponential", "cosine", "plateau", "cyclic", "cosine_warm_restarts",
        "lambda", "polynomial", "linear", "constant",
    }  # fmt: skip


def test_the_family_of_errors():
    assert issubclass(lrfinder.ArgumentError, (lrfinder.LRFinderError))
    assert issubclass(lrfinder.ArgumentError, ValueError)
    for name in ("NoSuggestionError", "RestoreError", "RankError"):
        assert getattr(lrfinder, name).__bases__ == (lrfinder.LRFinderError,)
    assert lrfinder.LRFinderError.__bases__ == (Exception,)
    assert lrfinder.LRFinderWarning.__bases__ == (UserWarning,)


@pytest.mark.parametrize("name", ["matplotlib", "sklearn", "scipy.signal", "scipy.ndimage", "pandas"])
def test_importing_loads_nothing_heavy(name, loaded):
    assert "lrfinder.finder" in loaded
    assert name not in loaded


def test_importing_loads_no_framework(loaded):
    frameworks = {"transformers", "accelerate", "lightning", "pytorch_lightning", "torchdata"}
    assert not frameworks & loaded


def test_importing_loads_no_tqdm_that_torch_does_not(loaded, modules_after):
    by_torch = modules_after("import torch.optim, torch.utils.data")
    assert "tqdm" not in loaded - by_torch


def test_importing_alone_loads_not_even_torch():
    code = "import sys, lrfinder; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    alone = set(done.stdout.split())
    assert "lrfinder.curve" in alone
    assert "torch" not in alone


def test_the_plot_of_a_schedule_loads_matplotlib_when_it_is_asked_for(modules_after):
    assert "matplotlib" in modules_after("import lrfinder; lrfinder.plot_schedule")


@pytest.fixture(scope="module")
def loaded(modules_after):
    return modules_after("import lrfinder; lrfinder.LRFinder, lrfinder.make_scheduler, lrfinder.RangeTestResult")


def test_the_marker_for_type_checkers_is_shipped():
    assert (PACKAGE / "py.typed").exists()
