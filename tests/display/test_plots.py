"""What the pictures hold: artists, texts, limits, scales; and what drawing leaves alone."""

import dataclasses
import io
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.colors import to_rgb

from lrfinder.curve import RULES, Landmarks, Level, Verdict
from lrfinder.curve.curve import Curve
from lrfinder.curve.smoothing import smooth
from lrfinder.curve.stop_rule import StopReason
from lrfinder.curve.suggestion import Suggestion
from lrfinder.curve.sweep import grid
from lrfinder.display.axes import LANDMARK_MARKERS, loss_at
from lrfinder.display.figures import DARK, LIGHT
from lrfinder.display.plots import plot_curve, plot_result_png
from lrfinder.errors import ArgumentError
from tests.display.shades import edges

GIDS = "raw", "smoothed", "mark:", "shade"


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


def _made(spread=None, **lrs):
    return {
        rule: Suggestion(lr=lr, rule=rule, reason="For the test.", index=0, spread=spread) for rule, lr in lrs.items()
    }


MADE = _made(auto=2e-2), Landmarks(steepest=3.2e-3, divergence=1.3e-1)


def _ours(ax, part):
    return [artist for artist in ax.get_children() if (artist.get_gid() or "").startswith(f"lrfinder:{part}")]


def _legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def _pixels(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)


# The curve


def test_the_parts_of_a_plot():
    curve = _curve()
    ax = plot_curve(curve, *MADE)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("learning rate", "loss")
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "linear")
    [raw], [line] = _ours(ax, "raw"), _ours(ax, "smoothed")
    np.testing.assert_array_equal(raw.get_ydata(), curve.losses)
    np.testing.assert_array_equal(line.get_xydata(), np.column_stack([curve.lrs, curve.smoothed]))
    assert raw.get_alpha() < 0.5 < line.get_linewidth()
    assert _legend(ax) == ["suggestion 2.0e-02", "steepest 3.2e-03", "divergence 1.3e-01", "past divergence"]
    marks = _ours(ax, "mark:")
    assert {mark.get_gid(): float(mark.get_xdata()[0]) for mark in marks} == {
        "lrfinder:mark:0:suggestion": 2e-2,
        "lrfinder:mark:0:steepest": 3.2e-3,
        "lrfinder:mark:0:divergence": 1.3e-1,
    }
    assert [mark.get_marker() for mark in marks] == [
        "o",
        *(LANDMARK_MARKERS[name] for name in ("steepest", "divergence")),
    ]
    [shade] = _ours(ax, "shade")
    assert edges(shade) == pytest.approx((1.3e-1, ax.get_xlim()[1]))


def _own(lr):
    return Verdict(lr=lr, level=Level.LOW, factor=0.1, reason="For the test.")


def test_the_users_own_lr_is_a_line_named_in_the_legend():
    ax = plot_curve(_curve(), *MADE, own=_own(1e-3))
    [line] = _ours(ax, "own")
    assert line.get_xdata()[0] == 1e-3
    assert "your lr 1.0e-03: 10x below: expect slow training" in [" ".join(text.split()) for text in _legend(ax)]


def test_the_users_own_lr_is_left_out_far_from_the_sweep_and_with_several_results():
    limits = plot_curve(_curve(), *MADE).get_xlim()
    ax = plot_curve(_curve(), *MADE, own=_own(1e-9))
    assert (_ours(ax, "own"), ax.get_xlim()) == ([], limits)
    ax = plot_curve(_curve(), *MADE, own=_own(1e-3))
    plot_curve(_curve(offset=1), *MADE, ax=ax, own=_own(1e-3))
    assert _ours(ax, "own") == []


def test_raw_losses_can_be_left_out_and_a_title_given():
    ax = plot_curve(_curve(), *MADE, show_raw=False, title="Adam on digits")
    assert _ours(ax, "raw") == []
    assert ax.get_title(loc="left") == "Adam on digits"


def test_without_suggestions_the_curve_is_drawn():
    ax = plot_curve(_curve(), {})
    assert [len(_ours(ax, part)) for part in GIDS] == [1, 1, 0, 0]
    assert ax.get_legend() is None


def test_rules_choose_the_marks_and_their_markers():
    made = {**MADE[0], **_made(fastai_valley=8e-3, mine=1e-2)}
    ax = plot_curve(_curve(), made, MADE[1], rules=["fastai_valley", "divergence", "mine", "auto", "onset"])
    names = ["fastai_valley 8.0e-03", "divergence 1.3e-01", "mine 1.0e-02", "suggestion 2.0e-02", "past divergence"]
    assert _legend(ax) == names  # there is no onset on this curve
    assert _ours(ax, "mark:")[0].get_marker() == RULES["fastai_valley"].marker
    with pytest.raises(ArgumentError, match=r"takes names among .*got 'best'"):
        plot_curve(_curve(), made, rules=["best"])


def test_a_spread_is_a_horizontal_bar():
    ax = plot_curve(_curve(), _made(auto=2e-2, spread=(1e-2, 3e-2)))
    [bar] = [line for line in ax.lines if line.get_marker() == "|"]
    [mark] = _ours(ax, "mark:")
    assert list(bar.get_xdata()) == [1e-2, 3e-2]
    assert set(bar.get_ydata()) == set(mark.get_ydata())


@pytest.mark.parametrize("offset", [0.0, -7.0, 1e6])
@pytest.mark.parametrize("blow_up", [1e2, 1e30, 1e300])
def test_a_blow_up_does_not_ruin_the_limits(blow_up, offset):
    losses = _curve(offset=offset, diverge=False).losses.copy()
    losses[88:] = np.geomspace(5, blow_up, 12) + offset
    curve = dataclasses.replace(_curve(), losses=losses, smoothed=smooth(losses))
    ax = plot_curve(curve, *MADE)
    low, high = ax.get_ylim()
    assert low < offset + 0.6 < offset + 2.3 < high
    assert high - low < 6
    suggestion, steepest, _ = _ours(ax, "mark:")
    assert low < suggestion.get_ydata()[0] < steepest.get_ydata()[0] < high
    assert (_pixels(ax.figure) != 255).any()


def test_a_fall_from_220_to_20_fills_the_plot_whatever_rises_after_it():
    lrs = grid(1e-6, 10.0, 100, "exponential")
    losses = 220 - 200 / (1 + np.exp(-3 * (np.log10(lrs) + 2)))
    losses[lrs > 0.8] = np.geomspace(60, 1400, np.count_nonzero(lrs > 0.8))
    curve = Curve(
        lrs=lrs, losses=losses, smoothed=smooth(losses), indices=np.arange(100), stop_reason=StopReason.FINISHED
    )
    for landmarks in (Landmarks(divergence=0.8), Landmarks()):
        low, high = plot_curve(curve, _made(auto=2e-2), landmarks).get_ylim()
        assert -10 < low < 20
        assert 220 < high < 330


@pytest.mark.parametrize("num", [12, 100])
def test_marks_lie_on_the_line_the_divergence_too(num):
    curve = _curve(num)
    ax = plot_curve(curve, *MADE)
    for mark in _ours(ax, "mark:"):
        [(lr, height)] = mark.get_xydata()
        assert height == loss_at(curve, lr)


def test_a_suggestion_outside_the_measured_lrs_is_inside_the_limits():
    ax = plot_curve(_curve(20, 1e-4, 1e-2, diverge=False), _made(auto=2e-5))
    assert ax.get_xlim()[0] < 2e-5


def test_a_stop_shades_where_no_rule_found_divergence():
    curve = _curve(20, 1e-4, 1e-2, diverge=False)
    stopped = dataclasses.replace(curve, stop_reason=StopReason.NONFINITE, stop_lr=1.3e-2)
    ax = plot_curve(stopped, {})
    [shade] = _ours(ax, "shade")
    assert edges(shade)[0] == pytest.approx(1.3e-2)
    assert _legend(ax) == ["past divergence"]


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
    ax = plot_curve(curve, *MADE)
    assert max(len(line.get_xdata()) for line in ax.lines) <= 2002
    assert {curve.losses.min(), curve.losses.max()} <= set(_ours(ax, "raw")[0].get_ydata())


@pytest.mark.parametrize(
    ("start", "end", "ticks"),
    [
        (1e-3, 3e-3, ["$10^{-3}$", "$1.5{\\times}10^{-3}$", "$2{\\times}10^{-3}$"]),
        (1e-3, 1e-1, ["$10^{-3}$", "$2{\\times}10^{-3}$", "$5{\\times}10^{-3}$", "$10^{-2}$"]),
        (1e-6, 1.0, ["$10^{-6}$", "$10^{-5}$", "$10^{0}$"]),
        (1e-10, 1.0, []),  # every second power of ten: whether the even ones is up to matplotlib
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
        assert len(boxes) >= max(3, len(ticks))


def test_a_linear_grid_gets_a_linear_axis():
    ax = plot_curve(_curve(60, 1e-3, 1e-1, mode="linear"), {})
    assert ax.get_xscale() == "linear"


@pytest.mark.parametrize("style", ["default", "dark_background", "ggplot"])
@pytest.mark.parametrize("size", [(3.2, 2.6), (7.0, 4.0)])
def test_the_legend_stays_inside_and_leaves_half_of_the_line_in_sight(style, size):
    with plt.style.context(style):
        _, ax = plt.subplots(figsize=size, layout="constrained")
        plot_curve(_curve(), *MADE, ax=ax)
    ax.figure.canvas.draw()
    box = ax.get_legend().get_window_extent()
    assert ax.bbox.padded(2).containsx(box.x0)
    assert ax.bbox.padded(2).containsx(box.x1)
    assert ax.bbox.padded(2).containsy(box.y0)
    assert ax.bbox.padded(2).containsy(box.y1)
    line = _ours(ax, "smoothed")[0]
    points = ax.transData.transform(line.get_xydata())
    assert box.count_contains(points) < (len(points) / 2 if size[0] < 5 else 1)


# Several results on one Axes


def _shifted(place):
    factor = 10 ** (0.5 * place - 1)
    found = Landmarks(steepest=MADE[1].steepest * factor, divergence=MADE[1].divergence * factor)
    return _curve(shift=0.5 * place - 1, offset=0.3 * place), _made(auto=MADE[0]["auto"].lr * factor), found


def _three():
    ax = None
    for place in range(3):
        ax = plot_curve(*_shifted(place), ax=ax, label=None if place == 1 else f"batch size {8 * 4**place}")
    return ax


def test_results_share_one_axes():
    ax = _three()
    lines, marks = _ours(ax, "smoothed"), _ours(ax, "mark:")
    assert [line.get_color() for line in lines] == list(LIGHT[:3])
    assert len({str(line.get_linestyle()) + str(line._unscaled_dash_pattern) for line in lines}) == 3
    assert [mark.get_color() for mark in marks] == [color for color in LIGHT[:3] for _ in range(3)]
    assert _legend(ax) == [
        "batch size 8: 2.0e-03", "result 2: 6.3e-03", "batch size 128: 2.0e-02", "suggestion", "steepest", "divergence",
        "past divergence",
    ]  # fmt: skip


def test_limits_fit_all_and_one_shade_lies_past_every_divergence():
    ax = _three()
    alone = np.array([plot_curve(*_shifted(place)).get_ylim() for place in range(3)])
    low, high = ax.get_ylim()
    assert (low, high) == (alone[:, 0].min(), alone[:, 1].max())
    assert all(low < mark.get_ydata()[0] < high for mark in _ours(ax, "mark:"))
    [shade] = _ours(ax, "shade")
    assert edges(shade)[0] == pytest.approx(MADE[1].divergence)


@pytest.mark.parametrize("first", [0, 1])
def test_no_shade_where_one_result_did_not_diverge(first):
    ax = None
    for made in [MADE, (_made(auto=1e-2), Landmarks())][:: 1 if first == 0 else -1]:
        ax = plot_curve(_curve(), *made, ax=ax)
    ax = plot_curve(_curve(), *MADE, ax=ax)
    assert _ours(ax, "shade") == []


def test_what_the_user_drew_stays():
    _, ax = plt.subplots()
    ax.axhline(9.0, label="target")
    ax.set_ylim(0, 10)
    plot_curve(_curve(), {}, ax=ax, label="SGD")
    assert ax.get_ylim()[1] == 10
    assert _legend(ax) == ["target", "SGD"]


def test_a_cleared_axes_starts_again():
    ax = _three()
    ax.clear()
    plot_curve(_curve(), *MADE, ax=ax)
    assert _ours(ax, "smoothed")[0].get_color() == LIGHT[0]
    assert "suggestion 2.0e-02" in _legend(ax)


def test_a_long_label_is_wrapped_into_half_of_the_plot():
    ax = plot_curve(_curve(), *MADE, label="a long label that says " * 5)
    ax.figure.canvas.draw()
    assert ax.get_legend().get_window_extent().width < 0.5 * ax.bbox.width


def test_an_axes_in_a_grid_is_used_and_no_figure_is_made():
    figure, axes = plt.subplots(2, 2)
    current = plt.gcf()
    assert plot_curve(_curve(), *MADE, ax=axes[1, 0]) is axes[1, 0]
    assert plt.get_fignums() == [figure.number]
    assert plt.gcf() is current


# Probes


def test_probes_are_markers_and_those_far_above_are_arrows():
    ax = plot_curve(_curve(), *MADE, probes=([1e-1, 1e-3, 1e-2, 1.0], [1e9, 1.4, 0.8, np.nan]))
    [line] = [line for line in ax.lines if line.get_label() == "after a short training"]
    np.testing.assert_allclose(line.get_xydata(), [[1e-3, 1.4], [1e-2, 0.8]])
    [arrows] = [line for line in ax.lines if "arrow" in str(line.get_marker())]
    assert list(arrows.get_xdata()) == [1e-1, 1.0]
    assert "after a short training" in _legend(ax)


# Styles and the notebook's picture


def test_dark_styles_get_light_text_and_their_own_order_of_colours():
    with plt.style.context("dark_background"):
        ax = plot_curve(_curve(), *MADE)
    assert _ours(ax, "smoothed")[0].get_color() == DARK[0]
    assert {text.get_color() for text in ax.get_legend().get_texts()} == {"white"}


@pytest.mark.parametrize("background", [("white", LIGHT), ("black", DARK)])
def test_the_first_colours_differ_in_grey_or_dashes_and_stand_out(background):
    ground, palette = background
    for color in palette[:3]:
        assert abs(np.dot([0.299, 0.587, 0.114], np.subtract(to_rgb(color), to_rgb(ground)))) > 0.3


def test_the_png_is_opaque_white_and_changes_nothing():
    with plt.style.context("dark_background"):
        before = dict(mpl.rcParams)
        png = plot_result_png(_curve(), *MADE, title="LR range test", dpi=100)
        assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == []
    image = plt.imread(io.BytesIO(png), format="png")
    assert image.shape[:2] == (400, 700)
    assert image.shape[2] == 3 or (image[..., 3] == 1).all()
    assert (image[0, :, :3] == 1).all()
    assert (image[..., :3].min(axis=2) < 0.3).any()


def test_drawing_changes_no_global_state():
    before = dict(mpl.rcParams)
    plot_curve(_curve(), *MADE)
    assert dict(mpl.rcParams) == before
    assert len(plt.get_fignums()) == 1


# Gradient norms


def _with_norms(norms=None, **options):
    measured = _curve(**options)
    norms = np.linspace(1.0, 20.0, len(measured)) if norms is None else norms
    return dataclasses.replace(measured, grad_norms=norms)


def _right(ax):
    return [other for other in ax.figure.axes if other is not ax]


@pytest.mark.parametrize("mode", ["exponential", "linear"])
def test_gradient_norms_have_an_axis_of_their_own_and_a_name_in_the_legend(mode):
    start = {"exponential": 1e-6, "linear": 1e-2}[mode]
    ax = plot_curve(_with_norms(mode=mode, start=start), *MADE)
    [right] = _right(ax)
    [line] = _ours(ax, "norms")
    assert (right.get_ylabel(), right.get_yscale(), right.get_xlim()) == ("gradient norm", "log", ax.get_xlim())
    assert "gradient norm (right)" in _legend(ax)
    # In pixels the line is where the right axis says.
    drawn = line.get_transform().transform(line.get_xydata())
    assert drawn[:, 1] == pytest.approx([right.transData.transform((0.1, norm))[1] for norm in np.linspace(1, 20, 100)])
    assert drawn[:, 0] == pytest.approx([ax.transData.transform((lr, 1.0))[0] for lr in line.get_xdata()])
    assert line.get_zorder() < _ours(ax, "smoothed")[0].get_zorder()


def test_gradient_norms_leave_the_limits_of_the_loss_alone():
    plain, with_norms = plot_curve(_curve(), *MADE), plot_curve(_with_norms(np.full(100, 1e6)), *MADE)
    assert with_norms.get_ylim() == plain.get_ylim()
    assert with_norms.dataLim.bounds == plain.dataLim.bounds


def test_gradient_norms_are_left_out_with_several_results():
    ax = plot_curve(_with_norms(), *MADE, label="one")
    plot_curve(_with_norms(), *MADE, ax=ax, label="two")
    assert (_right(ax), _ours(ax, "norms")) == ([], [])
    assert "gradient norm (right)" not in _legend(ax)


@pytest.mark.parametrize("norms", [np.zeros(100), np.full(100, np.inf)], ids=["zero", "infinite"])
def test_gradient_norms_without_a_place_on_a_logarithmic_axis_are_not_drawn(norms):
    ax = plot_curve(_with_norms(norms), *MADE)
    assert (_right(ax), _ours(ax, "norms")) == ([], [])


def test_a_gap_in_the_gradient_norms_is_left_out():
    norms = np.linspace(1.0, 20.0, 100)
    norms[[3, 50]] = np.inf, 0.0
    [line] = _ours(plot_curve(_with_norms(norms), *MADE), "norms")
    assert len(line.get_xdata()) == 98
