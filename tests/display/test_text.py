import html

import numpy as np
import pytest

from lrfinder.curve.curve import Curve
from lrfinder.curve.stop_rule import StopReason
from lrfinder.curve.suggestion import Suggestion
from lrfinder.display.html import html_block
from lrfinder.display.text import block, outcome, rate


def curve(points, stop_reason, stop_lr=None):
    lrs = np.geomspace(1e-3, 1e-1, points)
    return Curve(lrs=lrs, losses=lrs, smoothed=lrs, indices=np.arange(points), stop_reason=stop_reason, stop_lr=stop_lr)


def suggestion(rule, lr, reason="as it is", spread=None):
    return Suggestion(rule=rule, lr=lr, reason=reason, index=0, spread=spread)


@pytest.mark.parametrize(
    ("stop_reason", "stop_lr", "text"),
    [
        (StopReason.FINISHED, None, "finished at 1.0e-01"),
        (StopReason.DIVERGED, 0.19, "diverged at 1.9e-01"),
        (StopReason.NONFINITE, 0.5, "loss not finite at 5.0e-01"),
        (StopReason.EXHAUSTED, None, "data ended at 1.0e-01"),
        (None, None, "interrupted at 1.0e-01"),
    ],
)
def test_the_outcome_names_the_rate_at_which_the_sweep_ended(stop_reason, stop_lr, text):
    assert outcome(curve(3, stop_reason, stop_lr)) == text


def test_every_reason_has_an_outcome_even_without_a_point():
    assert outcome(curve(0, None)) == "interrupted"
    assert outcome(curve(0, StopReason.NONFINITE, 1e-3)) == "loss not finite at 1.0e-03"
    assert {outcome(curve(0, reason)) for reason in StopReason} == {
        "finished", "diverged", "loss not finite", "data ended"
    }  # fmt: skip


def test_a_rate_has_two_digits_and_its_spread():
    assert rate(suggestion("auto", 0.003212)) == "3.2e-03"
    assert rate(suggestion("auto", 0.003212, spread=(0.001, 0.01))) == "3.2e-03 (1.0e-03 to 1.0e-02)"


FOUND = {
    "auto": suggestion("auto", 3.2e-3, "half a decade below divergence, shortened for 10,000 steps"),
    "steepest": suggestion("steepest", 1.1e-3),
    "onset": suggestion("onset", 4e-5),
    "divergence": suggestion("divergence", 1.3e-2),
    "minimum": suggestion("minimum", 9e-3),
    "fastai_valley": suggestion("fastai_valley", 1e-3),
}


def test_the_block_is_the_one_of_the_design():
    text = block("diverged at 1.9e-01 after 127 steps, 8.4 s", FOUND, (), (), "use: it")
    assert text == (
        "LR range test: diverged at 1.9e-01 after 127 steps, 8.4 s\n"
        "  auto        3.2e-03   <- half a decade below divergence, shortened for 10,000 steps\n"
        "  steepest    1.1e-03\n"
        "  onset       4.0e-05\n"
        "  divergence  1.3e-02\n"
        "use: it"
    )


def test_the_main_suggestion_is_shown_first_whatever_its_rule():
    found = {
        "fastai_valley": FOUND["fastai_valley"],
        **{rule: FOUND[rule] for rule in FOUND if rule != "fastai_valley"},
    }
    lines = block("", found, (), (), "").splitlines()
    assert lines[1] == "  fastai_valley  1.0e-03   <- as it is"
    assert [line.split()[0] for line in lines[2:6]] == ["auto", "steepest", "onset", "divergence"]
    assert "<-" not in "".join(lines[2:])


def test_probes_and_warnings_have_lines_of_their_own():
    text = block("over", {}, [(1e-3, 0.25), (1e-2, float("inf"))], ["The curve is flat.", "Noise."], "no suggestion: x")
    assert text.splitlines() == [
        "LR range test: over",
        "  probe       1.0e-02   loss inf",
        "  probe       1.0e-03   loss 0.25",
        "warning: The curve is flat.",
        "warning: Noise.",
        "no suggestion: x",
    ]


def test_html_is_escaped_and_has_a_row_for_each_rule():
    found = {**FOUND, "odd": suggestion("<odd>", 1.0, "a < b & c")}
    text = html_block("over <1>", found, ["w < 1"], "use: f(a < b)", "UE5H")
    assert text.count("<tr>") == len(found) + 1
    assert "a &lt; b &amp; c" in text
    assert "over &lt;1&gt;" in text
    assert "w &lt; 1" in text
    assert html.escape("use: f(a < b)") in text
    assert 'src="data:image/png;base64,UE5H"' in text
    assert 'alt="' in text
    assert "<script" not in text
    assert "<style" not in text


def test_html_without_anything_has_no_empty_table_and_no_empty_picture():
    text = html_block("over", {}, [], "no suggestion", "")
    assert "<table" not in text
    assert "<img" not in text
