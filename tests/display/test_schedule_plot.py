"""What the plot of a schedule holds, and that drawing it leaves scheduler and optimizer alone."""

import warnings

import matplotlib as mpl
import pytest
import torch

mpl.use("Agg")
import matplotlib.pyplot as plt
from torch.optim import lr_scheduler as stock

from lrfinder.display.schedule_plot import plot_schedule
from lrfinder.errors import ArgumentError


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


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


def test_a_zero_lr_and_given_axes():
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
