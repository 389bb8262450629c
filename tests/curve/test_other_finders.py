import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrfinder.curve import other_finders

NAMES = other_finders.__all__


def slow_valley(losses):
    """Return the index half-way through the longest falling subsequence as fastai does, in O(T^2)."""
    lengths = [1] * len(losses)
    for i in range(1, len(losses)):
        lengths[i] = 1 + max([lengths[j] for j in range(i) if losses[i] < losses[j]], default=0)
    end, length = lengths.index(max(lengths)), max(lengths)
    return end - length + length // 3 + length // 6


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=30, max_size=60))
def test_fastai_valley_agrees_with_fastais_formula(bumps):
    losses = np.array([bump + 8 * (200 - i) for i, bump in enumerate(bumps)], dtype=float)  # never 4 times the lowest
    lrs = np.geomspace(1e-5, 1, len(losses))
    average, averages = 0.0, []
    for i, loss in enumerate(losses):
        average = 0.98 * average + 0.02 * loss
        averages.append(average / (1 - 0.98 ** (i + 1)))
    expected = slow_valley(averages[10:-5])
    assert other_finders.fastai_valley(lrs, losses) == lrs[10:-5][max(expected, 0)]


def test_fastai_minimum_is_a_tenth_of_where_the_average_is_lowest():
    lrs = np.geomspace(1e-5, 1, 100)
    losses = 3 + np.log10(lrs / 1e-2) ** 2
    found = other_finders.fastai_minimum(lrs, losses)
    assert 1e-3 < found < 1e-1  # the average lags behind
    assert found * 10 in lrs


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 2, 10, 16])
def test_too_few_points_give_none_or_one_of_the_learning_rates(name, count):
    lrs = np.geomspace(1e-5, 1, count)
    found = getattr(other_finders, name)(lrs, np.linspace(2, 1, count))
    assert found is None or found in lrs


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_that_explodes_at_once_leaves_too_few_points(name):
    lrs = np.geomspace(1e-5, 1, 100)
    losses = np.concatenate([[1.0], np.full(99, 1e6)])
    assert getattr(other_finders, name)(lrs, losses) is None
