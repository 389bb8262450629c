"""What the pictures hold: artists, texts, limits, scales; and what drawing leaves alone."""

import dataclasses
import io
import warnings
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest
import torch

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.colors import to_rgb
from torch.optim import lr_scheduler as stock

from lrfinder.curve.curve import Curve
from lrfinder.curve.smoothing import smooth
from lrfinder.curve.stop_rule import StopReason
from lrfinder.curve.suggestion import Suggestion
from lrfinder.curve.sweep import grid
from lrfinder.display.plots import DARK, LIGHT, plot_curve, plot_result_png, plot_schedule
from lrfinder.errors import ArgumentError

GIDS = "raw", "smoothed", "mark:", "shade", "label"


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def _curve(num=100, start=1e-6, end=1.0, *, mode="exponential", offset=0.0, noise=0.03, shift=0.0, diverge=True):
    lrs = grid(start, end, num, mode) if num >= 5 else np.geomspace(start, end, num) if num > 1 else np.array([start])
    x = np.log10(lrs) - shift
    losses = 2.3 - 1.7 / (1 + np.exp(-3 * (x + 2.5))) + offset
    if diverge:
        losses = losses + np.expm1(6 * np.clip(x + 1, 0, None))
    losses = losses + noise * np.random.default_rng(0).standard_normal(num)
    return Curve(
        lrs=lrs, losses=losses, smoothed=smooth(losses), indices=np.arange(num), stop_reason=StopReason.FINISHED
    )


def _made(spread=None, **rates):
    return {
        rule: Suggestion(lr=lr, rule=rule, reason="For the test.", index=0, spread=spread) for rule, lr in rates.items()
    }


MADE = _made(auto=2e-2, steepest=3.2e-3, divergence=1.3e-1)


def _ours(ax, part):
    return [artist for artist in ax.get_children() if (artist.get_gid() or "").startswith(f"lrfinder:{part}")]


def _texts(ax):
    return sorted(text.get_text() for text in _ours(ax, "label"))


def _pixels(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)


# The curve


def test_the_parts_of_a_picture():
    curve = _curve()
    ax = plot_curve(curve, MADE)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("learning rate", "loss")
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "linear")
    [raw], [line] = _ours(ax, "raw"), _ours(ax, "smoothed")
    np.testing.assert_array_equal(raw.get_ydata(), curve.losses)
    np.testing.assert_array_equal(line.get_xydata(), np.column_stack([curve.lrs, curve.smoothed]))
    assert raw.get_alpha() < 0.5 < line.get_linewidth()
    assert _texts(ax) == ["divergence 1.3e-01", "steepest 3.2e-03", "suggestion 2.0e-02"]
    marks = _ours(ax, "mark:")
    assert {mark.get_gid(): float(mark.get_xdata()[0]) for mark in marks} == {
        "lrfinder:mark:suggestion": 2e-2,
        "lrfinder:mark:steepest": 3.2e-3,
        "lrfinder:mark:divergence": 1.3e-1,
    }
    assert len({mark.get_marker() for mark in marks}) == 3
    [shade] = _ours(ax, "shade")
    assert shade.get_x() == 1.3e-1
    assert shade.get_x() + shade.get_width() == pytest.approx(ax.get_xlim()[1])
    assert ax.get_legend() is None


def test_raw_losses_can_be_left_out_and_a_title_given():
    ax = plot_curve(_curve(), MADE, show_raw=False, title="Adam on digits")
    assert _ours(ax, "raw") == []
    assert ax.get_title(loc="left") == "Adam on digits"


def test_without_suggestions_the_curve_is_drawn():
    ax = plot_curve(_curve(), {})
    assert [len(_ours(ax, part)) for part in GIDS] == [1, 1, 0, 0, 0]


def test_rules_choose_the_marks_and_the_first_is_the_main_one():
    made = {**MADE, **_made(fastai_valley=8e-3)}
    ax = plot_curve(_curve(), made, rules=["fastai_valley", "divergence", "minimum"])
    assert _texts(ax) == ["divergence 1.3e-01", "fastai_valley 8.0e-03"]
    bold = [text.get_text() for text in _ours(ax, "label") if text.get_fontweight() == "bold"]
    assert bold == ["fastai_valley 8.0e-03"]
    with pytest.raises(ArgumentError, match=r"takes rules among .*got rule='best'"):
        plot_curve(_curve(), made, rules=["best"])


def test_a_spread_is_a_horizontal_bar():
    ax = plot_curve(_curve(), _made(auto=2e-2, spread=(1e-2, 3e-2)))
    [bar] = [line for line in ax.lines if line.get_marker() == "|"]
    [mark] = _ours(ax, "mark:")
    assert list(bar.get_xdata()) == [1e-2, 3e-2]
    assert set(bar.get_ydata()) == set(mark.get_ydata())


@pytest.mark.parametrize("offset", [0.0, -7.0, 1e6])
@pytest.mark.parametrize("blow_up", [1e2, 1e30, 1e300])
def test_a_blow_up_does_not_ruin_the_limits_and_marks_stay_inside(blow_up, offset):
    losses = _curve(offset=offset, diverge=False).losses.copy()
    losses[88:] = np.geomspace(5, blow_up, 12) + offset
    curve = dataclasses.replace(_curve(), losses=losses, smoothed=smooth(losses))
    ax = plot_curve(curve, MADE)
    low, high = ax.get_ylim()
    assert low < offset + 0.6 < offset + 2.3 < high
    assert high - low < 12
    for mark in _ours(ax, "mark:"):
        assert low < mark.get_ydata()[0] < high
    assert (_pixels(ax.figure) != 255).any()


def test_a_suggestion_outside_the_measured_rates_is_inside_the_limits():
    ax = plot_curve(_curve(20, 1e-4, 1e-2, diverge=False), _made(auto=2e-5))
    assert ax.get_xlim()[0] < 2e-5


def test_a_stop_shades_where_no_rule_found_divergence():
    curve = _curve(20, 1e-4, 1e-2, diverge=False)
    stopped = dataclasses.replace(curve, stop_reason=StopReason.NONFINITE, stop_lr=1.3e-2)
    [shade] = _ours(plot_curve(stopped, {}), "shade")
    assert shade.get_x() == 1.3e-2


@pytest.mark.parametrize("num", [1, 2, 5, 30])
def test_few_points(num):
    ax = plot_curve(_curve(num, 1e-3, 1e-1), {})
    assert np.diff(ax.get_ylim()) > 0
    assert ax.get_xlim()[0] < 1e-3
    [line] = _ours(ax, "smoothed")
    assert len(line.get_xdata()) == num
    assert (line.get_marker() == ".") == (num == 1)  # a line of one point would be invisible


def test_no_points_and_flat_losses():
    empty = Curve(lrs=[], losses=[], smoothed=[], indices=[], stop_reason=StopReason.NONFINITE, stop_lr=1e-3)
    assert [text.get_text() for text in plot_curve(empty, {}).texts] == ["no finite loss was measured"]
    for value in (0.0, 2.3, -1e12):
        flat = dataclasses.replace(_curve(), losses=np.full(100, value), smoothed=np.full(100, value))
        low, high = plot_curve(flat, {}).get_ylim()
        assert low < value < high


def test_a_long_curve_is_drawn_with_few_points():
    curve = _curve(100_000)
    ax = plot_curve(curve, MADE)
    assert max(len(line.get_xdata()) for line in ax.lines) <= 2002
    assert {curve.losses.min(), curve.losses.max()} <= set(_ours(ax, "raw")[0].get_ydata())


@pytest.mark.parametrize(
    ("start", "end", "ticks"),
    [
        (1e-3, 3e-3, ["$10^{-3}$", "$1.5{\\times}10^{-3}$", "$2{\\times}10^{-3}$"]),
        (1e-3, 1e-1, ["$10^{-3}$", "$2{\\times}10^{-3}$", "$5{\\times}10^{-3}$", "$10^{-2}$"]),
        (1e-6, 1.0, ["$10^{-6}$", "$10^{-5}$", "$10^{0}$"]),
        (1e-10, 1.0, ["$10^{-10}$", "$10^{-2}$", "$10^{0}$"]),
    ],
)
@pytest.mark.parametrize("width", [3.2, 7.0])
def test_ticks_are_readable_at_any_span(start, end, ticks, width):
    _, ax = plt.subplots(figsize=(width, 3), layout="constrained")
    plot_curve(_curve(60, start, end), {}, ax=ax)
    ax.figure.canvas.draw()
    low, high = ax.get_xlim()
    labels = [tick for tick in ax.xaxis.get_major_ticks() if low <= tick.get_loc() <= high]
    boxes = [tick.label1.get_window_extent() for tick in labels if tick.label1.get_text()]
    assert len(boxes) >= 2
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
    if width == 7.0:
        assert set(ticks) <= {tick.label1.get_text() for tick in labels}


def test_a_linear_grid_gets_a_linear_axis():
    ax = plot_curve(_curve(60, 1e-3, 1e-1, mode="linear"), {})
    assert ax.get_xscale() == "linear"


def _check_labels(ax):
    """Assert that labels lie inside the Axes and off each other, the legend and the smoothed lines' points."""
    ax.figure.canvas.draw()
    boxes = [mpl.text.Text.get_window_extent(text) for text in _ours(ax, "label")]  # without the line to the mark
    if ax.get_legend():
        boxes.append(ax.get_legend().get_window_extent())
    for place, box in enumerate(boxes):
        assert ax.bbox.padded(2).containsx(box.x0)
        assert ax.bbox.padded(2).containsx(box.x1)
        assert ax.bbox.padded(2).containsy(box.y0)
        assert ax.bbox.padded(2).containsy(box.y1)
        assert not any(box.overlaps(other) for other in boxes[:place])
    return boxes


@pytest.mark.parametrize("style", ["default", "dark_background", "ggplot"])
@pytest.mark.parametrize("num", [30, 100])
def test_labels_cover_neither_the_line_nor_each_other(style, num):
    with plt.style.context(style):
        ax = plot_curve(_curve(num), MADE)
    boxes = _check_labels(ax)
    line = _ours(ax, "smoothed")[0]
    points = ax.transData.transform(line.get_xydata())
    for box in boxes:
        assert box.count_contains(points) == 0


def test_marks_at_one_place_have_labels_apart():
    _check_labels(plot_curve(_curve(), _made(auto=1e-2, steepest=1e-2, divergence=1.01e-2)))


# Several results on one Axes


def _shifted(place):
    shift = 0.5 * place - 1
    made = _made(**{rule: suggestion.lr * 10**shift for rule, suggestion in MADE.items()})
    return _curve(shift=shift, offset=0.3 * place), made


def _three():
    ax = None
    for place in range(3):
        ax = plot_curve(*_shifted(place), ax=ax, label=f"batch size {8 * 4**place}")
    return ax


def test_results_share_one_axes():
    ax = _three()
    lines, marks = _ours(ax, "smoothed"), _ours(ax, "mark:")
    assert [line.get_color() for line in lines] == list(LIGHT[:3])
    assert len({str(line.get_linestyle()) + str(line._unscaled_dash_pattern) for line in lines}) == 3
    assert [mark.get_color() for mark in marks] == [color for color in LIGHT[:3] for _ in range(3)]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "batch size 8", "batch size 32", "batch size 128", "suggestion", "steepest", "divergence",
    ]  # fmt: skip
    assert _texts(ax) == sorted(f"{s.lr * 10**shift:.1e}" for s in MADE.values() for shift in (-1, -0.5, 0))
    assert {text.get_color() for text in _ours(ax, "label")} == set(LIGHT[:3])
    assert {text.get_gid() for text in ax.texts} == {"lrfinder:label"}
    _check_labels(ax)


def test_limits_fit_all_and_one_shade_lies_past_every_divergence():
    ax = _three()
    alone = np.array([plot_curve(*_shifted(place)).get_ylim() for place in range(3)])
    low, high = ax.get_ylim()
    assert (low, high) == (alone[:, 0].min(), alone[:, 1].max())
    assert all(low < mark.get_ydata()[0] < high for mark in _ours(ax, "mark:"))
    [shade] = _ours(ax, "shade")
    assert shade.get_x() == MADE["divergence"].lr


@pytest.mark.parametrize("first", [0, 1])
def test_no_shade_where_one_result_did_not_diverge(first):
    ax = None
    for made in [MADE, _made(auto=1e-2)][:: 1 if first == 0 else -1]:
        ax = plot_curve(_curve(), made, ax=ax, label=str(len(made)))
    ax = plot_curve(_curve(), MADE, ax=ax)
    assert _ours(ax, "shade") == []


def test_what_the_user_drew_stays():
    _, ax = plt.subplots()
    ax.axhline(9.0, label="target")
    ax.set_ylim(0, 10)
    plot_curve(_curve(), MADE, ax=ax, label="SGD")
    assert ax.get_ylim()[1] == 10
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["target", "SGD"]


def test_a_cleared_axes_starts_anew():
    ax = _three()
    ax.clear()
    plot_curve(_curve(), MADE, ax=ax)
    assert _ours(ax, "smoothed")[0].get_color() == LIGHT[0]
    assert "suggestion 2.0e-02" in _texts(ax)


def test_a_long_label_is_wrapped_into_a_third_of_the_picture():
    ax = plot_curve(_curve(), MADE, label="a long label that says " * 5)
    ax.figure.canvas.draw()
    assert ax.get_legend().get_window_extent().width < 0.5 * ax.bbox.width
    _check_labels(ax)


def test_an_axes_in_a_grid_is_used_and_no_figure_is_made():
    figure, axes = plt.subplots(2, 2)
    current = plt.gcf()
    assert plot_curve(_curve(), MADE, ax=axes[1, 0]) is axes[1, 0]
    assert plt.get_fignums() == [figure.number]
    assert plt.gcf() is current


# Probes


def test_probes_are_markers_and_those_far_above_are_arrows():
    ax = plot_curve(_curve(), MADE, probes=([1e-1, 1e-3, 1e-2, 1.0], [1e9, 1.4, 0.8, np.nan]))
    [line] = [line for line in ax.lines if line.get_label() == "after a short training"]
    np.testing.assert_allclose(line.get_xydata(), [[1e-3, 1.4], [1e-2, 0.8]])
    [arrows] = [line for line in ax.lines if "arrow" in str(line.get_marker())]
    assert list(arrows.get_xdata()) == [1e-1, 1.0]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["after a short training"]


# Styles and the notebook's picture


def test_dark_styles_get_light_text_and_their_own_order_of_colours():
    with plt.style.context("dark_background"):
        ax = plot_curve(_curve(), MADE)
    assert _ours(ax, "smoothed")[0].get_color() == DARK[0]
    assert {text.get_color() for text in _ours(ax, "label")} == {"white"}


@pytest.mark.parametrize("background", [("white", LIGHT), ("black", DARK)])
def test_the_first_colours_differ_in_grey_or_dashes_and_stand_out(background):
    ground, palette = background
    for color in palette[:3]:
        assert abs(np.dot([0.299, 0.587, 0.114], np.subtract(to_rgb(color), to_rgb(ground)))) > 0.3


def test_the_png_is_opaque_white_and_changes_nothing():
    with plt.style.context("dark_background"):
        before = dict(mpl.rcParams)
        png = plot_result_png(_curve(), MADE, title="LR range test", dpi=100)
        assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == []
    image = plt.imread(io.BytesIO(png), format="png")
    assert image.shape[:2] == (400, 700)
    assert image.shape[2] == 3 or (image[..., 3] == 1).all()
    assert (image[0, :, :3] == 1).all()
    assert (image[..., :3].min(axis=2) < 0.3).any()


def test_drawing_changes_no_global_state():
    before = dict(mpl.rcParams)
    plot_curve(_curve(), MADE)
    assert dict(mpl.rcParams) == before
    assert len(plt.get_fignums()) == 1


# Schedules


def _optimizer(*rates, kind=torch.optim.SGD, **kwargs):
    return kind([{"params": [torch.ones(2, requires_grad=True)], "lr": rate} for rate in rates], **kwargs)


def test_one_cycle_with_momentum():
    optimizer = _optimizer(0.1, momentum=0.9)
    scheduler = stock.OneCycleLR(optimizer, 0.1, 300)
    before = dict(vars(scheduler)), {k: v for k, v in optimizer.param_groups[0].items() if k != "params"}
    ax = plot_schedule(scheduler, 300)
    after = dict(vars(scheduler)), {k: v for k, v in optimizer.param_groups[0].items() if k != "params"}
    assert before == after
    [line], right = ax.lines, ax.figure.axes[1]
    assert line.get_xdata()[[0, -1]].tolist() == [0, 299]
    assert line.get_ydata().max() == pytest.approx(0.1)
    assert right.lines[0].get_ydata()[[0, 90]] == pytest.approx([0.95, 0.85], abs=1e-3)
    assert right.get_ylabel() == "momentum (dotted)"
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_legend()) == ("step", "learning rate", None)
    assert ax.get_ylim()[0] == 0


def test_beta1_is_named_and_momentum_that_stays_is_not_drawn():
    ax = plot_schedule(stock.OneCycleLR(_optimizer(0.1, kind=torch.optim.Adam), 0.1, 30), 30)
    assert ax.figure.axes[1].get_ylabel() == "beta1 (dotted)"
    ax = plot_schedule(stock.CosineAnnealingLR(_optimizer(0.1, momentum=0.9), 30), 30)
    assert len(ax.figure.axes) == 1


def test_groups_have_a_line_each_and_a_legend_clear_of_the_lines():
    optimizer = _optimizer(0.1, 0.02, momentum=0.9)
    optimizer.param_groups[1]["name"] = "head"
    ax = plot_schedule(stock.OneCycleLR(optimizer, [0.1, 0.02], 300), 300)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["group 0", "head"]
    ax.figure.canvas.draw()
    legend = ax.get_legend().get_window_extent()
    for axes in ax.figure.axes:
        for line in axes.lines:
            assert legend.count_contains(axes.transData.transform(line.get_xydata())) == 0


def test_distant_groups_get_a_log_axis():
    assert plot_schedule(stock.CosineAnnealingLR(_optimizer(0.1, 1e-4), 50), 50).get_yscale() == "log"


def test_plateau_says_what_it_assumes():
    ax = plot_schedule(stock.ReduceLROnPlateau(_optimizer(0.1), patience=5), 30)
    assert ax.get_xlabel() == "step, if the metric never improves"
    assert ax.lines[0].get_ydata()[[0, 10]].tolist() == pytest.approx([0.1, 0.01])


def test_many_groups_name_the_outer_ones():
    ax = plot_schedule(stock.ExponentialLR(_optimizer(*(0.1 * 0.8**k for k in range(12))), 0.9), 20)
    assert len(ax.lines) == 12
    assert [text.get_text() for text in ax.get_legend().get_texts()][-1] == "group 11"
    assert len(ax.get_legend().get_texts()) == 6


def test_a_zero_rate_and_a_given_axes():
    _, axes = plt.subplots(1, 2)
    assert plot_schedule(stock.ConstantLR(_optimizer(0.0), 1.0), 10, axes[1]) is axes[1]
    assert axes[1].get_ylim() == (0, 1)
    assert not axes[0].has_data()


def test_a_schedule_that_does_not_fit_makes_no_figure():
    with pytest.raises(ArgumentError, match="got total_steps=0"):
        plot_schedule(stock.StepLR(_optimizer(0.1), 3), 0)
    assert plt.get_fignums() == []


def test_no_warning_reaches_the_user():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimizer = _optimizer(0.1)
        warm = stock.SequentialLR(
            optimizer, [stock.LinearLR(optimizer, 0.1, total_iters=5), stock.StepLR(optimizer, 3)], [5]
        )
        caught.clear()
        plot_schedule(warm, 20)
    assert caught == []
