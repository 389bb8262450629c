import dataclasses
import re

import numpy as np
import pytest

from lrfinder.curve import Context, StopReason, suggest
from lrfinder.curve.warnings import curve_warnings
from lrfinder.errors import NoSuggestionError
from tests.curve.curves import healthy, measured


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.2])
def test_a_healthy_curve_has_none(noise, seed):
    assert curve_warnings(measured(healthy(noise=noise, seed=seed))) == []


def test_a_healthy_curve_with_negative_losses_has_none():
    assert curve_warnings(measured(healthy() - 50)) == []


@pytest.mark.parametrize(
    ("losses", "sentence"),
    [
        (np.random.default_rng(0).normal(size=100), "The curve is flat"),
        (np.full(100, 2.3), "The curve is flat"),
        (
            healthy(steepest_at=0.3, diverges_at=1e3),
            r"did not diverge up to the last learning rate 1.0e\+00. Pass a larger end_lr, such as",
        ),
        (healthy(200)[142:], "Only few points lie below divergence at .* Lower start_lr, or raise num_iter"),
        (np.repeat([0.5, 0.0], [700, 300]) + np.random.default_rng(0).normal(size=1000), "The noise is larger"),
        (np.ones(3), "only 3 points"),
        (np.ones(1), r"only 1 point\."),
    ],
)
def test_each_trouble_is_named_with_its_remedy(losses, sentence):
    found = curve_warnings(measured(losses))
    assert any(re.search(sentence, warning) for warning in found), found
    assert all(warning.endswith(".") for warning in found)


FEW = {
    "no points": (
        0,
        StopReason.NONFINITE,
        r"no points\. The very first loss was NaN or infinite.* Look for the cause in the",
    ),
    "NaN": (
        3,
        StopReason.NONFINITE,
        r"only 3 points\. The loss became NaN or infinite after 3 points. Lower start_lr; if",
    ),
    "diverged": (4, StopReason.DIVERGED, r"The loss diverged after 4 points. Lower start_lr, or raise num_iter\."),
    "one": (1, StopReason.DIVERGED, r"only 1 point\. The loss diverged after 1 point\."),
    "data ended": (2, StopReason.EXHAUSTED, r"The data ended\. Pass a DataLoader or a list"),
    "Ctrl-C": (2, None, r"It was interrupted\. Run it to the end\."),
}


@pytest.mark.parametrize("case", FEW)
def test_few_points_are_explained_by_the_end_of_the_sweep(case):
    count, reason, sentence = FEW[case]
    [warning] = curve_warnings(dataclasses.replace(measured(np.ones(count)), stop_reason=reason))
    assert re.search(sentence, warning), warning
    assert "Nothing needs" not in warning
    with pytest.raises(NoSuggestionError, match=sentence.partition(r"\. ")[2] or sentence):
        suggest("auto", dataclasses.replace(measured(np.ones(count)), stop_reason=reason))


END = {
    "end_lr was given": (StopReason.FINISHED, 1.0, r"Raise end_lr, or leave it out\."),
    "end_lr was left out": (StopReason.FINISHED, None, r"Pass a larger end_lr, such as end_lr=1e\+01\."),
    "the data ended": (
        StopReason.EXHAUSTED,
        1.0,
        r"The data ended\. Pass a DataLoader or a list, which can be iterated",
    ),
    "Ctrl-C": (None, 1.0, r"The sweep was interrupted; run it to the end\."),
}


@pytest.mark.parametrize("case", END)
@pytest.mark.parametrize(
    "losses", [healthy(steepest_at=0.3, diverges_at=1e3), np.full(100, 2.3)], ids=["falling", "flat"]
)
def test_the_remedy_for_a_sweep_without_divergence_fits_its_end(case, losses):
    reason, end_lr, sentence = END[case]
    curve = dataclasses.replace(measured(losses), stop_reason=reason)
    context = Context(end_lr=end_lr)
    assert re.search(sentence, curve_warnings(curve, context)[-1])
    if losses[0] == losses[-1]:
        with pytest.raises(NoSuggestionError, match=sentence):
            suggest("auto", curve, context)


def test_a_suggestion_in_a_gap_of_the_grid_is_named():
    lrs = np.linspace(1e-6, 100.0, 100)
    losses = np.where(lrs < 0.5, 2.0, np.where(lrs < 3.5, 1.0, 5.0 * lrs)) + 0.01 * np.sin(np.arange(100))
    assert any("lies in a gap: nothing was tried between" in each for each in curve_warnings(measured(losses, lrs=lrs)))


def test_a_suggestion_below_the_first_learning_rate_is_named():
    lrs = np.geomspace(1e-2, 10.0, 100)
    losses = np.where(lrs < 1.3e-2, 2.0, np.where(lrs < 4e-2, 1.0, 50.0 * lrs)) + 0.01 * np.sin(np.arange(100))
    assert any("below the first learning rate" in each for each in curve_warnings(measured(losses, lrs=lrs)))


def test_a_low_plateau_up_to_the_end_is_no_reason_to_warn_unless_the_sweep_was_cut_short():
    curve = measured(healthy(diverges_at=10.0))
    assert curve_warnings(curve) == []
    assert "did not diverge" in curve_warnings(dataclasses.replace(curve, stop_reason=StopReason.EXHAUSTED))[0]


def test_a_loss_that_falls_to_the_end_of_a_sparse_sweep_is_named():
    losses = healthy(20, noise=0.0, steepest_at=0.5, diverges_at=1e3)
    curve = measured(losses, lrs=np.geomspace(1e-6, 10.0, 20), stop_rule=False)
    assert curve.lrs[-1] > 2 * curve.lrs[curve.lowest_index]
    assert "did not diverge up to the last learning rate 1.0e+01" in curve_warnings(curve)[0]


def test_many_points_below_divergence_make_up_for_a_descent_that_noise_hides():
    rng = np.random.default_rng(0)
    losses = np.concatenate([np.full(60, 1.0), 1.3 ** np.arange(40)]) + 0.1 * rng.normal(size=100)
    assert curve_warnings(measured(losses)) == []
    assert "The curve is flat" in curve_warnings(measured(losses[40:]))[0]


def test_a_valley_that_begins_at_the_first_points_is_named():
    lrs = np.geomspace(1e-2, 10.0, 100)
    losses = np.where(np.arange(100) < 6, 200.0, np.where(lrs < 5.0, 30.0, 900.0)) + 2 * np.sin(np.arange(100))
    [warning] = curve_warnings(measured(losses, lrs=lrs))
    assert re.search(
        r"Most of the fall is over at .*, near the first learning rate 1\.0e-02: .* Lower start_lr", warning
    )


def test_a_valley_that_begins_far_above_the_first_points_is_no_reason_to_warn():
    lrs = np.geomspace(1e-4, 10.0, 100)
    losses = np.where(lrs < 2e-2, 200.0, np.where(lrs < 5.0, 30.0, 900.0)) + 2 * np.sin(np.arange(100))
    assert curve_warnings(measured(losses, lrs=lrs)) == []


def test_a_sparse_sweep_whose_halves_disagree_is_named():
    rng = np.random.default_rng(0)
    lrs = np.geomspace(1e-8, 10.0, 60)
    valley = np.where(lrs < 1e-3, 2.0, np.where(lrs < 0.5, 1.3, 9.0))
    found = [curve_warnings(measured(valley + 0.3 * rng.normal(size=60), lrs=lrs)) for _ in range(40)]
    pattern = r"Every second point alone would suggest .*, all of them .* Raise num_iter, or narrow the range\."
    named = [any(re.search(pattern, each) for each in warnings) for warnings in found]
    assert sum(named) > 5


@pytest.mark.parametrize(("num_points", "noise"), [(200, 0.3), (60, 0.02)], ids=["dense", "little noise"])
def test_halves_are_not_asked_where_the_sweep_is_dense_and_agree_where_it_is_clear(num_points, noise):
    for seed in range(10):
        warnings = curve_warnings(measured(healthy(num_points, noise, seed)))
        assert not [each for each in warnings if "Every second point" in each]


SPIKE = "rests on a single spike of the loss at .* Pass a val_loader, whose batches are the same"


def test_a_suggestion_that_rests_on_a_spike_in_noise_is_named():
    # Targets with heavy tails: the loss never falls clearly, and after a spike it is where it was.
    losses = 1.0 + 0.2 * np.random.default_rng(0).normal(size=100)
    losses[70] = 9.0
    [warning] = curve_warnings(measured(losses, stop_rule=False))
    assert re.search(SPIKE, warning)
    losses[70:] = np.geomspace(2.0, 50.0, 30)
    assert curve_warnings(measured(losses, stop_rule=False)) == []


def test_a_spike_far_below_divergence_is_named():
    # One sample with a huge target.
    losses = np.concatenate([1.0 + 0.2 * np.random.default_rng(0).normal(size=80), 1.3 ** np.arange(20)])
    assert curve_warnings(measured(losses)) == []
    losses[75] = 1e3
    assert curve_warnings(measured(losses)) == []
    losses[60] = 1e3
    assert any(re.search(SPIKE, each) for each in curve_warnings(measured(losses)))


def test_the_differences_between_a_few_batches_are_no_noise():
    losses = measured(healthy(20) + 1.5 * np.tile([1, -1], 10), stop_rule=False)
    assert "The curve is flat" in curve_warnings(losses)[0]
    assert not [each for each in curve_warnings(losses, Context(epoch_points=2)) if "flat" in each]
