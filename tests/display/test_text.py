"""What a result says: the block, line by line, and the same content as HTML."""

import html
import re

import numpy as np
import pytest

from lrfinder.curve import Context, Curve, Landmarks, StopReason, Suggestion
from lrfinder.display.html import html_block
from lrfinder.display.summary import describe_end, lr_text, summarize
from lrfinder.display.text import text_block
from lrfinder.result import RangeTestResult


def curve(points, stop_reason, stop_lr=None):
    lrs = np.geomspace(1e-3, 1e-1, points)
    return Curve(
        lrs=lrs, losses=-lrs, smoothed=-lrs, indices=np.arange(points), stop_reason=stop_reason, stop_lr=stop_lr
    )


def suggestion(rule, lr, reason="as it is", spread=None):
    return Suggestion(rule=rule, lr=lr, reason=reason, index=0, spread=spread)


FOUND = {
    "auto": suggestion("auto", 1.4e-2, "valley's middle 3.9e-02 / 4.4, x 1.6 for a training of 220 steps"),
    "fastai_valley": suggestion("fastai_valley", 1e-3),
}
SEEN = Landmarks(onset=2.2e-4, steepest=1.9e-3, minimum=0.2, divergence=0.74)


def result(**fields):
    """Return a result that says what it is told to, whatever its curve shows."""
    given = {
        "curve": curve(100, StopReason.DIVERGED, 8.2),
        "context": Context(total_steps=220),
        "steps": 122,
        "seconds": 0.8,
        "initial_lrs": (1e-3,),
        "stored_suggestions": FOUND,
        "stored_landmarks": SEEN,
    }
    return RangeTestResult(**{**given, **fields})


def lines(**fields):
    return str(result(**fields)).splitlines()


@pytest.mark.parametrize(
    ("lr", "text"),
    [
        (3.212e-3, "3.2e-03"),
        (0.74, "7.4e-01"),
        (1.0, "1.0"),
        (8.21, "8.2"),
        (9.97, "10"),
        (123.4, "123"),
        (2e3, "2.0e+03"),
    ],
)
def test_learning_rates_have_two_digits_or_more(lr, text):
    assert lr_text(lr) == text


@pytest.mark.parametrize(
    ("stop_reason", "stop_lr", "text"),
    [
        (StopReason.FINISHED, None, "finished at 1.0e-01"),
        (StopReason.DIVERGED, 8.2, "stopped at 8.2 (diverged)"),
        (StopReason.NONFINITE, 0.5, "stopped at 5.0e-01 (loss not finite)"),
        (StopReason.EXHAUSTED, None, "stopped at 1.0e-01 (data ended)"),
        (None, None, "stopped at 1.0e-01 (interrupted)"),
    ],
)
def test_the_end_of_the_sweep_names_the_lr_and_the_reason(stop_reason, stop_lr, text):
    assert describe_end(curve(3, stop_reason, stop_lr)) == text


def test_every_reason_has_an_end_even_without_a_point():
    assert describe_end(curve(0, None)) == "stopped (interrupted)"
    assert describe_end(curve(0, StopReason.NONFINITE, 1e-3)) == "stopped at 1.0e-03 (loss not finite)"
    assert describe_end(curve(0, StopReason.EXHAUSTED)) == "stopped (data ended)"
    for reason in StopReason:
        describe_end(curve(0, reason))


def test_the_block_is_the_one_of_the_design():
    ratios = {"group_ratios": (0.1, 1.0), "group_names": ("backbone", "head"), "initial_lrs": (1e-4, 1e-3)}
    assert str(result(**ratios)) == (
        "LR range test: stopped at 8.2 (diverged), 122 steps, 0.8 s\n"
        "  suggestion  1.4e-02   valley's middle 3.9e-02 / 4.4, x 1.6 for a training of 220 steps\n"
        "  your lr     1.0e-03   14x below: expect slow training\n"
        "  landmarks   onset 2.2e-04   steepest 1.9e-03   divergence begins 7.4e-01\n"
        "  groups      backbone 1.4e-03   head 1.4e-02\n"
        'use: scheduler = result.scheduler("one_cycle", optimizer, total_steps=220)'
    )


def test_the_users_lr_is_that_of_the_group_that_was_swept():
    two = lines(group_ratios=(0.1, 1.0), initial_lrs=(1e-3, 1e-2))
    assert "  your lr     1.0e-02   near the suggestion" in two
    assert not [line for line in lines(initial_lrs=()) if "your lr" in line]  # a file of version 0.1
    assert not [line for line in lines(initial_lrs=(0.0,)) if "your lr" in line]


def test_another_rules_suggestion_is_printed_with_auto_which_the_users_lr_is_compared_with():
    block = lines(rule="fastai_valley", stored_suggestions=dict(reversed(FOUND.items())))
    assert block[1] == "  suggestion  1.0e-03   as it is"
    assert block[2].startswith("  auto        1.4e-02   valley's middle")
    assert block[3] == "  your lr     1.0e-03   14x below: expect slow training (compared with auto)"


def test_a_spread_follows_the_value():
    spread = {"auto": suggestion("auto", 3.2e-3, spread=(1e-3, 1e-2))}
    assert lines(stored_suggestions=spread)[1] == "  suggestion  3.2e-03 (1.0e-03 to 1.0e-02)   as it is"


def test_a_value_of_few_letters_keeps_the_column():
    assert lines(stored_suggestions={"auto": suggestion("auto", 2.0)})[1] == "  suggestion  2.0       as it is"


def test_groups_are_named_by_their_index_and_many_are_counted():
    assert "  groups      group 0 1.4e-03   group 1 1.4e-02" in lines(group_ratios=(0.1, 1.0))
    many = tuple(0.5**k for k in range(12))
    assert "  groups      12 groups, 6.8e-06 to 1.4e-02" in lines(group_ratios=many)


def test_probes_are_listed_and_the_lowest_loss_is_named():
    refined = suggestion("refine", 7e-2)
    block = lines(refined=refined, probes=((0.01, 0.25), (0.1, 0.125), (1.0, float("inf"))))
    start = block.index("  probes      1.0       loss inf")
    assert block[start + 1 : start + 3] == [
        "              1.0e-01   loss 0.125, the lowest",
        "              1.0e-02   loss 0.25",
    ]
    assert "lowest" not in str(result(probes=((0.1, float("inf")),)))


def test_warnings_have_lines_and_those_that_find_has_issued_are_counted():
    assert lines(warnings=("It is flat.", "Noise."))[-3:-1] == ["warning: It is flat.", "warning: Noise."]
    block = str(result(warnings=("It is flat.", "Noise."), warnings_issued=True))
    assert "  warnings    2 issued by find(), see result.warnings\n" in block
    assert "flat" not in block
    assert "warnings" not in str(result(warnings_issued=True))


@pytest.mark.parametrize(
    ("fields", "last"),
    [
        ({}, 'use: scheduler = result.scheduler("one_cycle", optimizer, total_steps=220)'),
        (
            {"context": Context(schedule="cosine")},
            'use: scheduler = result.scheduler("cosine", optimizer, total_steps=epochs * len(loader))',
        ),
        (
            {"context": Context(), "meta": {"accumulation_steps": 4}},
            'use: scheduler = result.scheduler("one_cycle", optimizer, total_steps=epochs * len(loader) // 4)',
        ),
        ({"next_step": "set_lr(trainer, result)"}, "use: set_lr(trainer, result)"),
    ],
)
def test_the_last_line_is_code_that_can_be_used_as_it_stands(fields, last):
    assert lines(**fields)[-1] == last


def test_without_a_suggestion_the_last_line_says_why():
    block = lines(
        stored_suggestions={}, curve=curve(1, StopReason.EXHAUSTED), next_step="set_lr(trainer, result)", steps=1
    )
    assert block[0] == "LR range test: stopped at 1.0e-03 (data ended), 1 step, 0.8 s"
    assert re.match("no suggestion: auto needs 5 points", block[-1])
    assert [line.split()[0] for line in block[1:-1]] == ["your", "landmarks"]


def test_one_line_counts_points():
    assert repr(result()) == "<RangeTestResult stopped at 8.2 (diverged), 100 points, suggestion 1.4e-02 (auto)>"
    one = result(curve=curve(1, None), stored_suggestions={})
    assert repr(one) == "<RangeTestResult stopped at 1.0e-03 (interrupted), 1 point, no suggestion>"


def test_html_has_the_same_content_and_is_escaped():
    odd = {"auto": suggestion("auto", 1.0, "a < b & c")}
    found = result(stored_suggestions=odd, warnings=("w < 1",), next_step="f(a < b)", probes=((0.1, 2.0),))
    summary = summarize(found)
    text = html_block(summary, "UE5H")
    assert text.count("<tr>") == len(summary.rows) == 4
    cells = [html.unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", text)]
    assert cells == [cell for row in summary.rows for cell in (row.name, row.value, row.text)]
    assert "a &lt; b &amp; c" in text
    assert "w &lt; 1" in text
    assert "use: f(a &lt; b)" in text
    assert summary.headline in text
    assert 'src="data:image/png;base64,UE5H"' in text
    assert 'alt="' in text
    assert "<script" not in text
    assert "<style" not in text
    for row in summary.rows:
        assert row.text in text_block(summary)


def test_html_without_anything_has_no_empty_table_and_no_empty_picture():
    empty = result(stored_suggestions={}, stored_landmarks=Landmarks(), initial_lrs=(), curve=curve(0, None))
    text = html_block(summarize(empty), "")
    assert "<table" not in text
    assert "<img" not in text
