"""The plot of a diagnosis shows loss and learning rate, and names the part that decided."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from lrfinder.curve import TrainingVerdict, diagnose
from lrfinder.display import plot_diagnosis
from lrfinder.errors import ArgumentError
from tests.display.shades import edges

STEPS = np.arange(400)
SLOW, LR = 2.3 - 0.001 * STEPS, np.linspace(0.1, 0.05, 400)


@pytest.fixture(autouse=True)
def _no_figure_is_left():
    yield
    plt.close("all")


def test_it_shows_the_verdict_the_losses_and_the_stretch():
    found = diagnose(SLOW, LR)
    ax = plot_diagnosis(found, SLOW, LR)
    assert ax.get_title(loc="left") == "learning rate: too low"
    assert [text.get_text() for text in ax.texts] == ["still falling"]
    assert edges(ax.patches[0]) == (found.stretch.first, found.stretch.stop)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), SLOW)


def test_the_learning_rate_has_an_axis_on_the_right():
    ax = plot_diagnosis(diagnose(SLOW, LR), SLOW, LR)
    (right,) = [other for other in ax.figure.axes if other is not ax]
    np.testing.assert_allclose(right.lines[0].get_ydata(), LR)
    assert right.get_ylabel().startswith("learning rate")
    assert len(plot_diagnosis(diagnose(SLOW), SLOW).figure.axes) == 1


def test_validation_losses_are_drawn_along_the_same_training():
    ax = plot_diagnosis(diagnose(SLOW), SLOW, val_losses=[2.2, 2.1])
    assert ax.lines[-1].get_xdata().tolist() == [200, 400]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["training loss", "validation loss"]


def test_the_axis_shows_the_steps_of_the_log():
    found, steps = diagnose(SLOW, LR), 50 * (STEPS + 1)
    ax = plot_diagnosis(found, SLOW, LR, val_losses=[2.2, 2.1], steps=steps, val_steps=[7000, 20_000])
    (right,) = [other for other in ax.figure.axes if other is not ax]
    for line in (ax.lines[0], ax.lines[1], right.lines[0]):
        np.testing.assert_allclose(line.get_xdata(), steps)
    assert ax.lines[-1].get_xdata().tolist() == [7000, 20_000]
    assert edges(ax.patches[0]) == (50 * found.stretch.first, 50 * found.stretch.stop)
    assert (ax.get_xlabel(), ax.get_xlim()) == ("step", (0, 20_000))


def test_validation_losses_without_steps_are_spread_over_those_of_the_training():
    ax = plot_diagnosis(diagnose(SLOW), SLOW, val_losses=[2.2, 2.1], steps=0.5 * (STEPS + 1), steps_name="epoch")
    assert ax.lines[-1].get_xdata().tolist() == [100, 200]
    assert ax.get_xlabel() == "epoch"


@pytest.mark.parametrize(
    ("steps", "begin"), [([0, 1, 2], 0), ([500, 1000, 1500], 0), ([600, 700, 800], 500), ([-3, -2, 9], -4), ([1, 9], 0)]
)
def test_the_axis_begins_where_the_first_entry_does(steps, begin):
    losses = [1.0] * len(steps)
    assert plot_diagnosis(diagnose(losses), losses, steps=steps).get_xlim() == (begin, steps[-1])


def test_a_single_entry_has_an_axis():
    assert plot_diagnosis(diagnose([1.0]), [1.0], steps=[0]).get_xlim() == (-1, 0)


@pytest.mark.parametrize("steps", [[1, 2], [1, 1, 2], [3, 2, 1], [1, np.nan, 2], 5])
def test_steps_that_do_not_fit_the_losses_are_refused(steps):
    with pytest.raises(ArgumentError, match=r"plot_diagnosis\(steps=...\) must hold the step of each of the 3 losses"):
        plot_diagnosis(diagnose([1.0] * 3), [1.0] * 3, steps=steps)


def test_a_rising_validation_loss_is_inside_the_limits_and_shaded():
    val_losses = np.concatenate([np.linspace(2.3, 2.0, 10), np.linspace(2.0, 4.0, 10)])
    ax = plot_diagnosis(diagnose(SLOW, val_losses=val_losses), SLOW, val_losses=val_losses)
    assert ax.get_ylim()[1] > 4.0
    assert [text.get_text() for text in ax.texts] == ["validation loss rises"]
    assert edges(ax.patches[0])[0] == pytest.approx(200, abs=20)


def test_a_blow_up_is_drawn_where_it_was():
    losses = SLOW.copy()
    losses[250:260] = 1e9
    ax = plot_diagnosis(diagnose(losses), losses)
    away = np.r_[0:235, 275:400]
    np.testing.assert_allclose(ax.lines[1].get_ydata()[away], SLOW[away], atol=0.05)


def test_few_entries_are_drawn_as_they_are():
    losses = np.array([4000.0] + [2.3] * 29)
    np.testing.assert_allclose(plot_diagnosis(diagnose(losses), losses).lines[1].get_ydata()[2:], 2.3, atol=0.1)


def test_a_blow_up_does_not_hide_the_fall():
    losses = SLOW.copy()
    losses[250:260] = 1e9
    low, high = plot_diagnosis(diagnose(losses), losses).get_ylim()
    assert low < SLOW.min()
    assert SLOW.max() < high < 10


def test_long_histories_draw_few_points():
    losses = np.linspace(3, 1, 1_000_000)
    assert len(plot_diagnosis(diagnose(losses), losses).lines[0].get_xdata()) <= 1000


@pytest.mark.parametrize("losses", [[np.nan] * 20, [1.0], [1.0] * 30, [1.0, np.nan, np.inf] * 10])
def test_any_history_can_be_drawn(losses):
    found = diagnose(losses)
    plot_diagnosis(found, losses).figure.canvas.draw()
    assert isinstance(found.verdict, TrainingVerdict)
