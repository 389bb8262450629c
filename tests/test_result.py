import copy
import dataclasses
import html
import json
import math
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lrfinder import LRFinderWarning
from lrfinder.curve.curve import Context, Curve
from lrfinder.curve.landmarks import Landmarks, find_landmarks
from lrfinder.curve.rules import RULES, suggestions
from lrfinder.curve.smoothing import smooth
from lrfinder.curve.stop_rule import StopReason
from lrfinder.curve.suggestion import Suggestion
from lrfinder.curve.verdicts import Level
from lrfinder.display.serialization import SCHEMA
from lrfinder.errors import ArgumentError, NoSuggestionError
from lrfinder.optim.schedulers import SCHEDULES
from lrfinder.result import RangeTestResult


def make_curve(losses, *, lrs=None, stop_reason=StopReason.FINISHED, stop_lr=None):
    losses = np.asarray(losses, dtype=float)
    lrs = np.geomspace(1e-5, 10, len(losses)) if lrs is None else lrs
    indices = np.arange(len(losses))
    return Curve(
        lrs=lrs, losses=losses, smoothed=smooth(losses), indices=indices, stop_reason=stop_reason, stop_lr=stop_lr
    )


def healthy(points=100, **options):
    """Return a curve that is flat, falls about 1e-2 and blows up above 1."""
    lrs = np.geomspace(1e-5, 10, points)
    noise = np.random.default_rng(0).normal(0, 0.01, points)
    losses = 1 + 1 / (1 + (lrs / 1e-2) ** 2) + noise + np.minimum((lrs / 1.5) ** 4, 50)
    return make_curve(losses, lrs=lrs, stop_reason=StopReason.DIVERGED, stop_lr=float(lrs[-1]), **options)


def result(curve=None, **fields):
    return RangeTestResult(**{"curve": healthy() if curve is None else curve, "steps": 127, "seconds": 8.4, **fields})


def optimizer(*lrs, tensor=False, kind=torch.optim.SGD, **options):
    sizes = [3] * (len(lrs) - 1) + [9]  # the last group is the reference
    groups = [
        {"params": [nn.Parameter(torch.ones(size))], "lr": torch.tensor(lr, dtype=torch.float64) if tensor else lr}
        for size, lr in zip(sizes, lrs, strict=True)
    ]
    return kind(groups, **{"lr": 1.0, **options})


# Poor curves: whatever they show, a result can be looked at.
POOR = {
    "no point": make_curve([], stop_reason=StopReason.NONFINITE, stop_lr=1e-5),
    "interrupted before a point": make_curve([], stop_reason=None),
    "one point": make_curve([1.0]),
    "two points": make_curve([1.0, 2.0], stop_reason=StopReason.EXHAUSTED),
    "four points": make_curve([4.0, 3.0, 2.0, 1.0], stop_reason=None),
    "flat": make_curve([3.0] * 50),
    "zero": make_curve([0.0] * 50),
    "noise": make_curve(np.random.default_rng(0).normal(0, 1, 100)),
    "negative": make_curve(-np.geomspace(1, 2, 50)),
    "huge": make_curve([1e30 * (-1) ** i for i in range(50)]),
    "rising": make_curve(np.geomspace(1, 1e6, 50), stop_reason=StopReason.DIVERGED, stop_lr=10.0),
}


@pytest.mark.parametrize("name", POOR)
def test_printing_plotting_and_saving_never_fail(name, tmp_path):
    import matplotlib as mpl

    mpl.use("agg")
    poor = result(POOR[name], rule="fastai_steep")
    assert "\n" not in repr(poor)
    assert str(poor).startswith("LR range test: ")
    page = poor._repr_html_()
    assert "LR range test" in page
    assert ("data:image/png;base64," in page) == (len(poor.lrs) > 0)
    poor.plot().figure.clear()
    poor.save(tmp_path / "r.json")
    loaded = RangeTestResult.load(tmp_path / "r.json")
    assert (repr(loaded), str(loaded)) == (repr(poor), str(poor))


@pytest.mark.parametrize("name", ["no point", "interrupted before a point", "one point", "two points", "flat", "zero"])
@pytest.mark.parametrize("rule", sorted({*RULES} - {"refine"}))
def test_where_a_curve_shows_nothing_the_suggestions_say_what_is_missing(name, rule):
    poor = result(POOR[name], rule=rule)
    for ask in (lambda: poor.suggestion, lambda: poor.suggest(rule)):
        with pytest.raises(NoSuggestionError, match=f"^{rule}") as caught:
            ask()
        assert str(caught.value) in str(poor)
    assert poor.suggestions == {}
    assert poor.landmarks == Landmarks()
    assert "no suggestion" in repr(poor)
    assert "no suggestion: " in str(poor).splitlines()[-1]
    with pytest.raises(NoSuggestionError):
        poor.scheduler("constant", optimizer(0.1))
    with pytest.raises(NoSuggestionError):
        poor.apply(optimizer(0.1))


def test_lrs_stay_where_there_is_no_suggestion():
    swept = optimizer(0.1)
    with pytest.raises(NoSuggestionError):
        result(POOR["flat"]).apply(swept)
    assert swept.param_groups[0]["lr"] == 0.1
    assert "initial_lr" not in swept.param_groups[0]


def test_arrays_are_the_curves():
    curve = healthy()
    found = result(curve)
    assert found.lrs is curve.lrs
    assert found.losses is curve.losses
    assert found.smoothed is curve.smoothed
    assert found.lrs.dtype == found.losses.dtype == found.smoothed.dtype == np.float64
    assert len(found.lrs) == len(found.losses) == len(found.smoothed)
    assert found.stop_reason is StopReason.DIVERGED
    assert found.stop_lr == 10.0


def test_suggestions_are_all_rules_that_apply_the_main_one_first():
    found = result(rule="fastai_valley")
    assert found.suggestions.keys() == suggestions(found.curve, found.context).keys()
    assert next(iter(found.suggestions)) == "fastai_valley"
    assert found.suggestion == found.suggest("fastai_valley") == found.suggestions["fastai_valley"]
    with pytest.raises(ArgumentError, match=r"rule must be one of .*, got rule='step'"):
        found.suggest("step")


def test_landmarks_are_no_suggestions():
    found = result()
    assert found.landmarks == find_landmarks(found.curve, found.context)
    assert not {"onset", "steepest", "minimum", "divergence"} & found.suggestions.keys()
    with pytest.raises(ArgumentError, match="got rule='divergence'"):
        found.suggest("divergence")


def a_third(curve, context):
    return 1 / 3


def test_a_function_can_be_the_rule_and_survives_saving_and_copying(tmp_path):
    found = result(rule=a_third)
    assert (found.suggestion.lr, found.suggestion.rule) == (1 / 3, "a_third")
    assert next(iter(found.suggestions)) == "a_third"
    assert "  suggestion  3.3e-01   what the function a_third returned" in str(found)
    found.save(tmp_path / "r.json")
    for other in (RangeTestResult.load(tmp_path / "r.json"), copy.copy(found), pickle.loads(pickle.dumps(found))):
        assert other.rule == "a_third"
        assert other.suggestion == found.suggestion
        assert str(other) == str(found)


def test_a_function_without_a_suggestion_survives_saving(tmp_path):
    def nothing(curve, context):
        raise NoSuggestionError("The curve has no such feature. Use another rule.")

    result(rule=nothing).save(tmp_path / "r.json")
    loaded = RangeTestResult.load(tmp_path / "r.json")
    with pytest.raises(NoSuggestionError, match=r"nothing had no suggestion when this result was saved"):
        loaded.suggestion  # noqa: B018


def test_a_refined_suggestion_is_the_main_one():
    refined = Suggestion(lr=0.5, rule="refine", reason="best of five", index=3)
    found = result(refined=refined, probes=((0.1, 2.0), (0.5, 1.0)))
    assert found.suggestion is refined
    assert found.suggest("refine") is refined
    assert next(iter(found.suggestions)) == "refine"
    assert "  suggestion  5.0e-01   best of five" in str(found)
    assert "  probes      5.0e-01   loss 1, the lowest" in str(found)
    with pytest.raises(NoSuggestionError, match=r"find\(refine=True\)"):
        result().suggest("refine")


def test_spreads_come_with_the_suggestions():
    found = result(spreads={"auto": (1e-3, 1e-2)})
    assert found.suggestion.spread == (1e-3, 1e-2)
    assert found.suggest("fastai_steep").spread is None


# Text; tests/display/test_text.py has the rest


def test_the_line_and_the_block_are_those_of_the_curve():
    found = result(context=Context(total_steps=10_000), steps=12_345, warnings=("Something is odd. Do this.",))
    best = found.suggestion
    assert repr(found) == f"<RangeTestResult stopped at 10 (diverged), 100 points, suggestion {best.lr:.1e} (auto)>"
    lines = str(found).splitlines()
    assert lines[0] == "LR range test: stopped at 10 (diverged), 12,345 steps, 8.4 s"
    assert lines[1] == f"  suggestion  {best.lr:.1e}   {best.reason}"
    assert lines[2].startswith(f"  landmarks   onset {found.landmarks.onset:.1e}   steepest ")
    assert lines[3] == "warning: Something is odd. Do this."
    assert lines[4] == 'use: scheduler = result.scheduler("one_cycle", optimizer, total_steps=10000)'


def test_the_notebooks_page_has_the_same_rows_and_an_opaque_plot():
    import base64
    import io

    from matplotlib.image import imread

    found = result()
    page = found._repr_html_()
    assert page.count("<tr>") == 2  # suggestion, landmarks
    assert html.escape(found.suggestion.reason) in page
    png = base64.b64decode(page.split("base64,")[1].split('"')[0])
    picture = imread(io.BytesIO(png))
    assert picture.shape[2] == 3 or np.all(picture[..., 3] == 1)


@pytest.mark.parametrize(("lr", "level"), [(1e-5, Level.TOO_LOW), (None, Level.GOOD), (50.0, Level.TOO_HIGH)])
def test_a_learning_rate_is_judged_by_default_the_users(lr, level):
    best = result().suggestion.lr
    found = result(group_ratios=(0.1, 1.0), initial_lrs=(best / 10, best))
    assert found.initial_lr == pytest.approx(best)
    verdict = found.judge(lr)
    assert (verdict.lr, verdict.level) == (pytest.approx(best if lr is None else lr), level)
    assert verdict.factor == pytest.approx(verdict.lr / best)


def test_judging_compares_with_auto_or_refine_whatever_the_rule():
    auto = result().suggestion.lr
    assert result(rule=a_third).judge(auto).factor == 1
    refined = Suggestion(lr=auto / 2, rule="refine", reason="", index=3)
    assert result(refined=refined).judge(auto).factor == 2
    assert result(POOR["flat"]).judge(0.1).level is Level.UNKNOWN


def test_one_lr_per_group_is_judged_by_the_suggestion_for_its_group():
    best = result().suggestion.lr
    found = result(group_ratios=(0.1, 1.0, 0.0))
    one, other, held = found.judge([best / 10, best / 100, 0.0])
    assert (one.level, other.level, held.level) == (Level.GOOD, Level.TOO_LOW, Level.UNKNOWN)
    assert (one.factor, other.factor) == (pytest.approx(1), pytest.approx(0.01))
    assert f"the suggestion {best / 10:.1e}" in one.reason
    assert "divergence" in found.judge(np.array([best, best, best]))[0].reason
    with pytest.raises(ArgumentError, match=r"one lr per parameter group, 3 here, got 2"):
        found.judge([best, best])
    with pytest.raises(ArgumentError, match="positive, finite"):
        found.judge([best, -best, best])


def test_the_plot_says_which_loss_it_shows():
    assert result().plot().get_ylabel() == "loss"
    assert result(context=Context(val=True)).plot().get_ylabel() == "validation loss"


def test_the_plot_names_the_users_lr_with_its_verdict():
    best = result().suggestion.lr
    entries = [text.get_text() for text in result(initial_lrs=(best / 10,)).plot().get_legend().get_texts()]
    (own,) = [" ".join(entry.split()) for entry in entries if entry.startswith("your lr")]
    assert own.endswith("10x below: expect slow training")


def test_judging_needs_an_lr_where_the_users_is_unknown():
    with pytest.raises(ArgumentError, match=r"judge\(lr=...\) must be a positive, finite number, got None"):
        result().judge()


def test_warnings_are_issued_once_each_from_the_callers_line():
    found = result(warnings=("First. Do this.", "Second. Do that."))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found.issue_warnings(stacklevel=1)
        repr(found), str(found)
    assert [str(w.message) for w in caught] == ["First. Do this.", "Second. Do that."]
    assert {w.category for w in caught} == {LRFinderWarning}
    assert {w.filename for w in caught} == {__file__}


# Rates


def test_group_lrs_keep_their_ratios():
    found = result(group_ratios=(0.1, 1.0))
    best = found.suggestion.lr
    assert found.group_lrs() == [pytest.approx(best / 10), best]
    assert found.group_lrs(found.suggest("fastai_steep"))[1] == found.suggest("fastai_steep").lr
    assert found.group_lrs(0.5) == [0.05, 0.5]
    assert found.group_lrs(np.float32(0.5)) == [0.05, 0.5]


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf, True, [0.1]])
def test_an_lr_must_be_a_positive_number(bad):
    swept = optimizer(0.1)
    for call in (result().group_lrs, lambda s: result().apply(swept, s)):
        with pytest.raises(ArgumentError, match=r"suggestion=...\) must be a positive, finite number"):
            call(bad)
    assert swept.param_groups[0]["lr"] == 0.1


def test_a_rules_name_in_place_of_a_suggestion_is_an_error_that_shows_the_right_call():
    with pytest.raises(ArgumentError, match=r"got 'auto'; write suggestion=result.suggest\('auto'\)"):
        result().group_lrs("auto")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (nn.Linear(1, 1), "must be a torch optimizer, got Linear; pass the optimizer of the training"),
        (0.1, r"must be a torch optimizer, got float; a suggestion or an lr is the argument suggestion=..."),
        (result().suggestion, r"got Suggestion; a suggestion or an lr is the argument suggestion=..."),
        (torch.optim.SGD, "must be a torch optimizer, got type"),
    ],
)
def test_error_for_anything_but_an_optimizer_says_what_was_meant(given, message):
    with pytest.raises(ArgumentError, match=rf"RangeTestResult.apply\(optimizer=...\) .*{message}"):
        result().apply(given)
    with pytest.raises(ArgumentError, match=rf"RangeTestResult.scheduler\(optimizer=...\) .*{message}"):
        result().scheduler("constant", given)


def test_applying_under_an_old_scheduler_warns_that_its_next_step_overwrites_the_lrs():
    swept = optimizer(0.1)
    scheduler = torch.optim.lr_scheduler.LinearLR(swept, 0.1, total_iters=5)
    found = result()
    with pytest.warns(
        LRFinderWarning, match=r"next step\(\) overwrites the learning rates .* result.scheduler\("
    ) as caught:
        found.apply(swept)
    assert [warning.filename for warning in caught] == [__file__]
    assert swept.param_groups[0]["lr"] == found.suggestion.lr
    swept.step()
    scheduler.step()
    assert swept.param_groups[0]["lr"] != found.suggestion.lr  # as the warning says


@pytest.mark.filterwarnings("ignore:This optimizer has a scheduler")
@pytest.mark.parametrize("tensor", [False, True])
def test_apply_writes_the_lr_of_every_group_and_what_a_scheduler_left(tensor):
    swept = optimizer(0.01, 0.1, tensor=tensor)
    torch.optim.lr_scheduler.StepLR(swept, 1)
    holders = [group["lr"] for group in swept.param_groups]
    found = result(group_ratios=(0.1, 1.0))
    found.apply(swept)
    assert [float(group["lr"]) for group in swept.param_groups] == pytest.approx(found.group_lrs())
    assert [float(group["initial_lr"]) for group in swept.param_groups] == pytest.approx(found.group_lrs())
    if tensor:
        assert all(group["lr"] is holder for group, holder in zip(swept.param_groups, holders, strict=True))
    other = found.suggest("fastai_steep")
    found.apply(swept, other)
    assert float(swept.param_groups[1]["lr"]) == pytest.approx(other.lr)


def test_the_swept_optimizer_is_the_default_while_it_lives():
    import weakref

    swept = optimizer(0.1)
    found = result(optimizer=weakref.ref(swept))
    found.apply()
    assert swept.param_groups[0]["lr"] == found.suggestion.lr
    assert found.scheduler("constant").optimizer is swept
    del swept
    import gc

    gc.collect()
    with pytest.raises(ArgumentError, match=r"apply\(optimizer=...\) is needed, got None, and the swept one is gone"):
        found.apply()


def test_another_number_of_groups_is_an_error():
    with pytest.raises(ArgumentError, match=r"scheduler\(optimizer=...\) must have as many .* groups .* 1, got 2"):
        result().scheduler("constant", optimizer(0.1, 0.2))


# Schedulers

EXTRA = {"lambda": {"lr_lambda": lambda step: 1.0}}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("tensor", [False, True])
def test_every_schedule_knows_its_length_from_the_result(name, tensor):
    found = result(context=Context(total_steps=50), group_ratios=(0.1, 1.0))
    swept = optimizer(0.01, 0.1, tensor=tensor, momentum=0.9)
    scheduler = found.scheduler(name, swept, **EXTRA.get(name, {}))
    peaks = np.zeros(2)
    for _ in range(50):
        peaks = np.maximum(peaks, [float(group["lr"]) for group in swept.param_groups])
        swept.step()
        scheduler.step(*([1.0] if name == "plateau" else []))
    assert peaks == pytest.approx(found.group_lrs(), rel=1e-5)


def test_one_cycle_takes_total_steps_from_the_result_or_the_call():
    found = result(context=Context(total_steps=500))
    assert found.scheduler("one_cycle", optimizer(0.1)).total_steps == 500
    assert found.scheduler("one_cycle", optimizer(0.1), total_steps=70).total_steps == 70
    with pytest.raises(ArgumentError, match="total_steps"):
        result().scheduler("one_cycle", optimizer(0.1))


def test_the_schedule_of_the_call_is_the_default():
    found = result(context=Context(total_steps=50, schedule="cosine"))
    assert type(found.scheduler(optimizer=optimizer(0.1))).__name__ == "CosineAnnealingLR"


def test_an_optimizer_in_the_place_of_the_name_is_an_error_that_shows_the_right_call():
    swept = optimizer(0.1)
    with pytest.raises(ArgumentError, match=r"name of the schedule first, got SGD; write .*\('cosine', optimizer\)"):
        result().scheduler(swept, "cosine")
    with pytest.raises(ArgumentError, match=r"got SGD; write result\.scheduler\('one_cycle', optimizer\)"):
        result().scheduler(swept)


@pytest.mark.parametrize("ratio", [1.0, 0.1])
def test_cyclic_rises_from_onset(ratio):
    found = result(context=Context(total_steps=50), group_ratios=(ratio, 1.0))
    swept = optimizer(0.1 * ratio, 0.1)
    found.scheduler("cyclic", swept)
    assert [group["lr"] for group in swept.param_groups] == pytest.approx(found.group_lrs(found.landmarks.onset))
    found.scheduler("cyclic", swept, base_lr=1e-7)
    assert swept.param_groups[1]["lr"] == pytest.approx(1e-7)


def test_cyclic_rises_from_a_tenth_if_the_lr_is_below_onset():
    found = result(context=Context(total_steps=50))
    low = found.landmarks.onset / 2
    swept = optimizer(0.1)
    found.scheduler("cyclic", swept, suggestion=low)
    assert swept.param_groups[0]["lr"] == pytest.approx(low / 10)


def test_another_suggestion_may_be_scheduled():
    found = result(context=Context(total_steps=50))
    swept = optimizer(0.1)
    found.scheduler("constant", swept, suggestion=found.suggest("fastai_steep"))
    assert swept.param_groups[0]["lr"] == found.suggest("fastai_steep").lr


# Files


def everything():
    return result(
        context=Context(optimizer="AdamW", momentum=0.9, total_steps=300, schedule="cosine", val=True, batch_size=32),
        rule="fastai_steep",
        group_ratios=(0.1, 1.0, 1 / 3),
        group_names=("body", "head", "group 2"),
        initial_lrs=(1e-4, 1e-3, 1e-3 / 3),
        next_step="set_lr(trainer, result)",
        warnings=("Odd. Ümlaut.",),
        spreads={"fastai_steep": (1e-3, 2e-3)},
        probes=((0.1, 2.0), (1.0, math.inf)),
        refined=Suggestion(lr=1 / 3, rule="refine", reason="best", index=3, spread=(0.1, 0.5)),
        meta={"optimizer": "AdamW", "versions": {"torch": "2"}, "world_size": 1, "batch_size": None},
    )


def equal(one, two):
    other = {"curve", "optimizer", "stored_suggestions", "stored_landmarks"}
    fields = [field.name for field in dataclasses.fields(RangeTestResult) if field.name not in other]
    assert {name: getattr(one, name) for name in fields} == {name: getattr(two, name) for name in fields}
    assert one.suggestions == two.suggestions
    assert one.landmarks == two.landmarks
    assert list(one.suggestions) == list(two.suggestions)
    for name in ("lrs", "losses", "smoothed", "indices"):
        first, second = getattr(one.curve, name), getattr(two.curve, name)
        assert first.dtype == second.dtype
        assert np.array_equal(first, second)
    assert (one.stop_reason, one.stop_lr) == (two.stop_reason, two.stop_lr)
    assert (repr(one), str(one)) == (repr(two), str(two))


def test_saving_and_loading_is_exact(tmp_path):
    path = tmp_path / "result.json"
    everything().save(path)
    loaded = RangeTestResult.load(str(path))
    equal(everything(), loaded)
    assert loaded.to_dict() == everything().to_dict()
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


@given(losses=st.lists(st.floats(-1e300, 1e300), min_size=5, max_size=20))
@settings(max_examples=40, deadline=None)
def test_any_curve_survives_json(losses, tmp_path_factory):
    path = tmp_path_factory.mktemp("results") / "r.json"
    result(make_curve(losses)).save(path)
    assert RangeTestResult.load(path).losses.tolist() == losses


def test_the_dictionary_is_strict_json_and_has_a_version():
    found = everything()
    equal(found, RangeTestResult.from_dict(json.loads(json.dumps(found.to_dict()))))
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False)) == found.to_dict()
    assert found.to_dict()["schema"] == SCHEMA == 2


def test_what_was_printed_is_kept_whatever_the_rules_say_later(tmp_path, monkeypatch):
    found = result()
    found.save(tmp_path / "r.json")
    before = found.suggestions
    monkeypatch.setitem(RULES, "auto", dataclasses.replace(RULES["auto"], function=lambda curve, context: None))
    assert RangeTestResult.load(tmp_path / "r.json").suggestion == before["auto"]


OLD = Path(__file__).parent / "display" / "data"  # written by version 0.1.0, numbers cut to six digits


def test_a_file_of_version_0_1_gives_landmarks_and_advice(tmp_path):
    old = json.loads((OLD / "refined_0_1.json").read_text())
    loaded = RangeTestResult.load(OLD / "refined_0_1.json")
    assert (old["schema"], list(old["suggestions"])) == (
        1,
        ["refine", "auto", "steepest", "onset", "minimum", "valley"],
    )
    assert list(loaded.suggestions) == ["refine", "auto", "fastai_valley"]
    assert loaded.suggestions["fastai_valley"].rule == "fastai_valley"
    lrs = {name: found["lr"] for name, found in old["suggestions"].items()}
    assert loaded.suggestion.lr == lrs["refine"]
    assert loaded.landmarks == Landmarks(onset=lrs["onset"], steepest=lrs["steepest"], minimum=lrs["minimum"])
    assert loaded.losses.tolist() == old["losses"]
    assert loaded.probes == tuple(map(tuple, old["probes"]))
    assert (loaded.total_steps, loaded.initial_lr) == (220, None)
    assert str(loaded).splitlines()[-1] == "use: set_lr(trainer, result)"
    assert "use" not in loaded.meta
    loaded.save(tmp_path / "new.json")
    equal(RangeTestResult.load(tmp_path / "new.json"), loaded)


@pytest.mark.parametrize("rule", ["valley", "steepest"])
def test_the_advice_that_a_file_of_version_0_1_was_asked_for_stays_advice(rule):
    old = {**json.loads((OLD / "steepest_0_1.json").read_text()), "rule": rule}
    old["spreads"] = {"steepest": [1e-3, 1e-2], "valley": [2e-3, 3e-3]}
    loaded = RangeTestResult.from_dict(old)
    assert loaded.suggestion.lr == old["suggestions"][rule]["lr"]
    assert loaded.rule == loaded.suggestion.rule == {"valley": "fastai_valley"}.get(rule, rule)
    assert loaded.spreads["fastai_valley"] == (2e-3, 3e-3)
    assert RangeTestResult.from_dict(loaded.to_dict()).suggestions == loaded.suggestions


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must name a JSON file"),
        (b"lr: 3", "must name a JSON file"),
        (b"\x89PNG\r\n\x1a\n\x00\xff", "must name a JSON file"),
        (b"[1, 2]", "reads the schemas 1 and 2, got schema=None"),
        (b"{}", "reads the schemas 1 and 2, got schema=None; pass a file that RangeTestResult.save wrote"),
        (b'{"schema": 3}', "reads the schemas 1 and 2, got schema=3; .* or update lrfinder"),
        (b'{"schema": 2}', "lacks something or was changed .KeyError"),
    ],
)
def test_other_files_are_refused(content, message, tmp_path):
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(ArgumentError, match=rf"load\(path='.*file.json'\) .*{message}"):
        RangeTestResult.load(path)


def damaged(**changes):
    return {**everything().to_dict(), **changes}


@pytest.mark.parametrize(
    "changes",
    [{"losses": [1.0]}, {"stop_reason": "bored"}, {"context": {"later": 1}}, {"lrs": None}, {"suggestions": []}],
)
def test_a_file_that_was_changed_is_refused(changes, tmp_path):
    path = tmp_path / "file.json"
    path.write_text(json.dumps(damaged(**changes)))
    with pytest.raises(ArgumentError, match="lacks something or was changed"):
        RangeTestResult.load(path)


def test_a_missing_file_is_the_usual_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        RangeTestResult.load(tmp_path / "none.json")


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))])
def test_a_result_can_be_copied_and_pickled(duplicate):
    import weakref

    swept = optimizer(0.1)
    original = dataclasses.replace(everything(), optimizer=weakref.ref(swept))
    original.suggestions  # noqa: B018 - fills the cache
    equal(duplicate(original), original)


def test_it_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        result().steps = 3
    with pytest.raises(ValueError, match="read-only"):
        result().losses[0] = 3.0


def test_plotting_returns_the_axes_and_takes_several_results():
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    ax = result().plot(label="one")
    assert result(rule="fastai_valley").plot(ax, label="two", rules=["onset"], show_raw=False) is ax
    plt.close(ax.figure)


def test_the_block_and_the_file_hold_the_clipping_threshold(tmp_path):
    curve = dataclasses.replace(healthy(), grad_norms=np.linspace(1.0, 2.0, 100))
    measured = result(curve)
    threshold = measured.clip_norm().max_norm
    row = next(line for line in str(measured).splitlines() if line.strip().startswith("clip norm"))
    assert row.split()[2] == f"{threshold:.2g}"
    assert "3.5 times the 90% quantile" in row
    measured.save(tmp_path / "r.json")
    assert RangeTestResult.load(tmp_path / "r.json").clip_norm() == measured.clip_norm()
    assert "clip norm" not in str(result())
    assert "clip norm" not in str(result(dataclasses.replace(curve, grad_norms=np.zeros(100))))
