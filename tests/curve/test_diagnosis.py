"""A training's history gives the right verdict, and no input breaks the diagnosis."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import lrfinder
from lrfinder import ArgumentError, TrainingVerdict, diagnose

STEPS = np.arange(600)
LOW, FINE, HIGH = TrainingVerdict.TOO_LOW, TrainingVerdict.FINE, TrainingVerdict.TOO_HIGH
EARLY, UNCLEAR = TrainingVerdict.DECAYED_TOO_EARLY, TrainingVerdict.UNCLEAR


def noise(size=0.02, steps=600, seed=0):
    return size * np.random.default_rng(seed).standard_normal(steps)


def one_cycle(steps=600):
    share = np.arange(steps) / steps
    return np.where(share < 0.3, 0.04 + 3.2 * share, 0.5 + 0.5 * np.cos(np.pi * (share - 0.3) / 0.7))


SLOW = 2.3 - 0.3 * STEPS / 600 + noise()
RIGHT = 0.2 + 2.1 * np.exp(-STEPS / 60) + noise()
BUMP = RIGHT + 1.5 * np.exp(-(((STEPS - 300) / 60) ** 2))
DROPPED = np.where(STEPS < 60, 0.1, 0.001)
STALLED = 2.3 - 12.0 * np.cumsum(DROPPED) / 60 + noise()


# ------------------------------------------------------------------------------------------------------------ verdicts
def test_steady_fall_to_the_very_end_is_too_low():
    found = diagnose(SLOW)
    assert found.verdict is LOW
    assert found.advice == 10
    assert "10 times" in found.reason
    assert found.stretch.name == "still falling"
    assert found.stretch.stop == 600
    assert 300 < found.stretch.first < 400


def test_fall_that_settles_is_fine():
    found = diagnose(RIGHT)
    assert found.verdict is FINE
    assert found.advice == 1
    assert found.stretch is None


def test_long_rise_is_too_high_and_the_stretch_is_where_it_is():
    found = diagnose(BUMP)
    assert found.verdict is HIGH
    assert found.advice == 0.3
    assert 150 < found.stretch.first < 300 < found.stretch.stop < 450


def test_a_short_spike_is_not_a_rise():
    spiked = RIGHT.copy()
    spiked[300:303] += 5
    assert diagnose(spiked).verdict is FINE


def test_loss_that_stays_above_its_start_is_too_high():
    risen = np.where(STEPS < 2, 2.3, 8.0) + noise(0.3)
    found = diagnose(risen)
    assert found.verdict is HIGH
    assert found.advice == 0.1


@pytest.mark.parametrize("end", [math.nan, math.inf, -math.inf])
def test_loss_that_is_not_finite_from_some_step_on_is_too_high(end):
    losses = SLOW.copy()
    losses[400:] = end
    found = diagnose(losses)
    assert found.verdict is HIGH
    assert (found.stretch.first, found.stretch.stop) == (400, 600)
    assert "entry 400" in found.reason


def test_nan_after_a_single_loss_is_too_high_and_names_the_other_cause():
    found = diagnose([2.3] + [math.nan] * 50)
    assert found.verdict is HIGH
    assert "NaN in the model or the data" in found.reason


def test_progress_that_stops_at_an_early_drop_is_decayed_too_early():
    found = diagnose(STALLED, DROPPED)
    assert found.verdict is EARLY
    assert found.advice == 1
    assert found.stretch.name == "learning rate decayed"
    assert found.stretch.first == pytest.approx(60, abs=12)


def test_drop_after_the_loss_had_settled_is_fine():
    rate = np.where(STEPS < 180, 0.1, 0.01)
    losses = 0.2 + 2.1 * np.exp(-np.cumsum(rate) / 1.5) + noise()
    assert diagnose(losses, rate).verdict is FINE


def test_fall_in_proportion_to_the_summed_lr_is_too_low_whatever_the_schedule():
    rate = one_cycle()
    losses = 2.3 - 0.4 * np.cumsum(rate) / rate.sum() + noise()
    assert diagnose(losses, rate).verdict is LOW


def test_gain_from_a_decaying_lr_after_a_plateau_is_fine():
    rate = 1 - STEPS / 600
    losses = 0.3 + 0.6 * rate + 1.4 * np.exp(-STEPS / 20) + noise()
    assert diagnose(losses, rate).verdict is FINE


def test_an_average_that_holds_the_whole_fall_may_hide_a_blow_up():
    rng = np.random.default_rng(0)
    averages = np.concatenate([[400.0], 2.3 + 0.01 * rng.standard_normal(29)])
    found = diagnose(averages)
    assert found.verdict is HIGH
    assert "every step" in found.reason
    assert (found.stretch.first, found.stretch.stop) == (0, 2)
    averages[0] = 3.0  # most such trainings were too high, not by far
    found = diagnose(averages)
    assert found.verdict is UNCLEAR
    assert "every step" in found.reason
    assert (found.stretch.first, found.stretch.stop) == (0, 2)
    assert diagnose(0.3 + 2.0 * np.exp(-np.arange(30) / 2)).verdict is FINE


def test_flat_loss_is_unclear():
    found = diagnose(2.3 + noise())
    assert found.verdict is UNCLEAR
    assert found.advice is None
    assert "range test" in found.reason


def test_constant_loss_is_unclear():
    assert diagnose(np.full(100, 0.7)).verdict is UNCLEAR


def test_a_validation_loss_that_rises_again_is_overfitting():
    val_losses = np.concatenate([np.linspace(2.3, 0.8, 8), np.linspace(0.8, 1.9, 12)])
    found = diagnose(SLOW, val_losses=val_losses)
    assert found.verdict is HIGH
    assert found.reason.startswith("The validation loss rose again by 66% of its fall")
    assert "overfits" in found.reason
    assert found.stretch.first == pytest.approx(0.42 * len(SLOW), abs=0.06 * len(SLOW))
    assert found.stretch.stop == len(SLOW)
    assert diagnose(SLOW, val_losses=np.sort(val_losses)[::-1]).verdict is LOW


def test_an_overfitting_model_is_unclear_where_its_losses_do_not_say_too_high():
    val_losses = np.concatenate([2.3 - 1.5 * (1 - np.exp(-np.arange(12))), np.linspace(0.8, 1.25, 8)])
    found = diagnose(STALLED, DROPPED, val_losses=val_losses)
    assert found.verdict is UNCLEAR
    assert "the model overfits. Whether the learning rate is right cannot be told" in found.reason
    assert found.stretch.name == "validation loss rises"
    assert diagnose(STALLED, DROPPED, val_losses=np.sort(val_losses)[::-1]).verdict is EARLY


def test_the_evidence_holds_the_probabilities():
    evidence = diagnose(SLOW).evidence
    assert evidence["fine"] + evidence["too_low"] + evidence["too_high"] == pytest.approx(1)
    assert evidence["too_low"] > 0.9
    assert f"{evidence['too_low']:.0%} had a learning rate that was too low" in diagnose(SLOW).reason


def test_a_running_training_is_not_called_too_low_before_half_of_it():
    assert diagnose(SLOW, total_steps=5000).verdict is UNCLEAR
    assert diagnose(SLOW, total_steps=1000).verdict is LOW
    assert diagnose(BUMP, total_steps=5000).verdict is HIGH


# -------------------------------------------------------------------------------------------------------------- inputs
@pytest.mark.parametrize("points", [30, 100, 100_000])
def test_the_number_of_points_does_not_matter(points):
    place = np.linspace(0, 1, points)
    jitter = 0.002 * np.random.default_rng(0).standard_normal(points)
    assert diagnose(2.3 - 0.3 * place + jitter).verdict is LOW
    assert diagnose(0.2 + 2.1 * np.exp(-place * 10) + jitter).verdict is FINE
    assert (
        diagnose(0.2 + 2.1 * np.exp(-place * 10) + 2 * np.exp(-(((place - 0.6) / 0.1) ** 2)) + jitter).verdict is HIGH
    )


@pytest.mark.parametrize(("losses", "lrs"), [(SLOW, None), (RIGHT, None), (BUMP, None), (STALLED, DROPPED)])
def test_gaps_and_averages_change_nothing(losses, lrs):
    expected = diagnose(losses, lrs).verdict
    gaps = np.where(np.arange(600) % 3 == 1, losses, np.nan)
    assert diagnose(gaps, lrs).verdict is expected
    averaged = losses.reshape(-1, 4).mean(1), None if lrs is None else lrs.reshape(-1, 4).mean(1)
    assert diagnose(*averaged).verdict is expected
    assert diagnose([None if np.isnan(loss) else float(loss) for loss in gaps], lrs).verdict is expected


def test_missing_learning_rates_are_filled_in():
    rate = np.where(np.arange(600) % 2, DROPPED, np.nan)
    assert diagnose(STALLED, rate).verdict is EARLY


def test_few_losses_are_unclear_and_the_message_says_how_many_are_needed():
    found = diagnose([3.0, 2.0, 1.0])
    assert found.verdict is UNCLEAR
    assert "3 finite losses, and 12 are needed" in found.reason


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), r"losses=.*row of numbers"),
        ((3.0,), r"losses=.*row of numbers"),
        ((np.ones((3, 3)),), r"losses=.*shape \(3, 3\)"),
        ((["a", "b"],), r"losses=.*row of numbers"),
        (({"loss": 1},), r"losses=.*row of numbers"),
        ((SLOW, [0.1, 0.2]), r"lrs=.*each of the 600 losses, got 2"),
        ((SLOW, np.full(600, -0.1)), r"lrs=.*none negative"),
        ((SLOW, np.zeros(600)), r"lrs=.*some above 0"),
        ((SLOW, np.full(600, np.nan)), r"lrs=.*some above 0"),
        ((SLOW, np.full(600, np.inf)), r"lrs=.*some above 0"),
    ],
)
def test_nonsense_is_an_argument_error(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        diagnose(*arguments)


@pytest.mark.parametrize("total_steps", [3, -1, 700.5, "many"])
def test_a_length_below_the_history_is_an_argument_error(total_steps):
    with pytest.raises(ArgumentError, match=r"total_steps=.*at least the number of losses, 600"):
        diagnose(SLOW, total_steps=total_steps)


def test_tensors_are_taken_with_gradients_or_without():
    torch = pytest.importorskip("torch")
    assert diagnose(torch.tensor(SLOW)).verdict is LOW
    assert diagnose([torch.tensor(loss, requires_grad=True) for loss in SLOW], torch.ones(600)).verdict is LOW
    with pytest.raises(ArgumentError, match=r"losses=.*row of numbers"):
        diagnose([torch.ones(2), torch.ones(2)])


def test_nonsense_validation_losses_are_an_argument_error():
    with pytest.raises(ArgumentError, match=r"val_losses="):
        diagnose(SLOW, val_losses=[[1.0]])


# ---------------------------------------------------------------------------------------------------------------- laws
HISTORIES = st.sampled_from([
    (SLOW, None), (RIGHT, None), (BUMP, None), (STALLED, DROPPED), (2.3 + noise(), None), (SLOW, one_cycle())
])  # fmt: skip


@given(HISTORIES, st.integers(-1000, 1000), st.integers(-20, 20), st.integers(-20, 20))
@settings(max_examples=50, deadline=None)
def test_offset_and_scale_of_losses_and_scale_of_lrs_change_nothing(history, offset, log_scale, log_lr_scale):
    losses, lrs = history
    expected = diagnose(losses, lrs)
    moved = diagnose(2.0**log_scale * (losses + offset), None if lrs is None else 2.0**log_lr_scale * lrs)
    assert (moved.verdict, moved.advice, moved.stretch) == (expected.verdict, expected.advice, expected.stretch)
    for name, value in expected.evidence.items():
        assert moved.evidence[name] == pytest.approx(value, rel=1e-3, abs=1e-3)


ANYTHING = st.integers(1, 300).flatmap(lambda n: arrays(np.float64, n, elements=st.floats(width=64)))


@pytest.mark.parametrize("first", [math.inf, -math.inf, math.nan])
def test_losses_that_are_almost_zero_warn_of_nothing(first):
    found = diagnose(np.array([first, 9.7e-209, 0.0]))  # a warning that starts here is an error
    assert found.verdict is TrainingVerdict.UNCLEAR


@given(ANYTHING, st.booleans(), st.data())
@settings(max_examples=200, deadline=None)
def test_no_row_of_numbers_breaks_it(losses, with_lrs, data):
    lrs = data.draw(arrays(np.float64, len(losses), elements=st.floats(1e-12, 1e12))) if with_lrs else None
    found = diagnose(losses, lrs, val_losses=losses)
    assert isinstance(found.verdict, TrainingVerdict)
    assert found.reason.endswith(".")
    assert all(isinstance(value, float) and not math.isnan(value) for value in found.evidence.values())
    if found.stretch is not None:
        assert 0 <= found.stretch.first < found.stretch.stop <= len(losses)
    assert found.verdict.value in str(found)


@given(st.one_of(st.none(), st.text(), st.lists(st.text()), st.dictionaries(st.text(), st.floats()), st.binary()))
@settings(max_examples=50, deadline=None)
def test_anything_else_is_an_argument_error(losses):
    with pytest.raises(ArgumentError):
        diagnose(losses)


@pytest.mark.parametrize("losses", [["0"], ["1.5", None], [2.0, b"1"], np.array(["3", "4"])])
def test_numbers_written_as_text_are_an_argument_error(losses):
    with pytest.raises(ArgumentError, match="must be a row of numbers, NaN where one is missing, got"):
        diagnose(losses)


def test_public_names():
    assert {"Diagnosis", "TrainingVerdict", "diagnose"} <= set(lrfinder.__all__)
    assert [verdict.name for verdict in TrainingVerdict] == [
        "TOO_LOW", "FINE", "TOO_HIGH", "DECAYED_TOO_EARLY", "UNCLEAR",
    ]  # fmt: skip
