import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrfinder.curve.quantiles import median, quantile

ROWS = st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=50)


@given(ROWS, st.floats(0, 1))
def test_they_are_numpys(values, share):
    scale = max(map(abs, values))
    assert quantile(values, share) == pytest.approx(np.quantile(values, share), rel=1e-12, abs=1e-12 * scale)
    assert median(values) == pytest.approx(np.median(values), rel=1e-12, abs=1e-12 * scale)


def test_the_values_are_left_in_their_order():
    values = np.array([3.0, 1.0, 2.0])
    assert median(values) == 2.0
    assert values.tolist() == [3.0, 1.0, 2.0]
