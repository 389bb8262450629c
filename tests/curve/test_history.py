"""A history is cleaned and binned: gaps, blow-ups and offsets do not show."""

import numpy as np
import pytest

from lrfinder.curve.history import BINS, read_history

STEPS = np.arange(1000)
LOSSES = 0.5 + 2.0 * np.exp(-STEPS / 100) + 0.01 * np.sin(STEPS)


def test_a_long_history_is_averaged_over_bins_of_equal_length():
    history = read_history(LOSSES, None)
    assert len(history) == BINS
    np.testing.assert_array_equal(history.edges[:, 1] - history.edges[:, 0], 10)
    order = LOSSES.reshape(BINS, 10).mean(1)
    assert np.corrcoef(history.losses, order)[0, 1] == pytest.approx(1)


def test_a_short_history_keeps_its_entries():
    assert len(read_history(LOSSES[:30], None)) == 30


def test_losses_have_median_0_and_quartiles_1_apart():
    low, middle, high = np.quantile(read_history(LOSSES[:BINS], None).losses, [0.25, 0.5, 0.75])
    assert middle == pytest.approx(0, abs=1e-6)
    assert high - low == pytest.approx(1)


def test_the_summed_lr_is_a_share_and_lrs_are_shares_of_the_peak():
    lrs = np.where(STEPS < 500, 0.3, 0.1)
    history = read_history(LOSSES, lrs)
    assert history.lrs[[0, -1]] == pytest.approx([1, 1 / 3])
    assert history.summed[49] == pytest.approx(0.75, abs=0.01)
    assert np.all(np.diff(history.summed) > 0)


def test_gaps_leave_the_bins_where_they_are():
    gaps = np.where((STEPS >= 300) & (STEPS < 400), np.nan, LOSSES)
    history = read_history(gaps, None)
    assert len(history) == 90
    assert history.lost is None
    assert history.edges[30, 0] == 400


@pytest.mark.parametrize(
    ("gap", "lost"), [((990, 1000), 990), ((500, 1000), 500), ((300, 310), None), ((999, 1000), 999)]
)
def test_not_finite_to_the_end_is_lost_unless_gaps_of_that_length_occur_before(gap, lost):
    losses = LOSSES.copy()
    losses[slice(*gap)] = np.nan
    assert read_history(losses, None).lost == lost
    losses[100:150] = np.nan
    assert read_history(losses, None).lost == (500 if lost == 500 else None)


def test_the_start_of_a_long_history_is_that_of_its_first_entries():
    fast = 0.1 + 3.0 * np.exp(-np.arange(10_000) / 20) + 0.01 * np.sin(np.arange(10_000))
    history = read_history(fast, None)
    assert history.start > 1.5 * history.losses[0]  # the first bin holds most of the fall


def test_a_blow_up_at_the_first_step_leaves_the_start_before_it():
    losses = np.concatenate([[2.3], np.full(999, 40.0) + np.sin(STEPS[1:])])
    history = read_history(losses, None)
    assert history.start < history.losses.min()


def test_a_million_losses_are_read():
    losses = np.linspace(3, 1, 1_000_000)
    assert len(read_history(losses, losses)) == BINS
