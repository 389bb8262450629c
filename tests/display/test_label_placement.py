"""Labels stay inside, off each other and off the line."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lrfinder.display.label_placement import dense, place

BOUNDS = [0.0, 0.0, 400.0, 250.0]


def _overlap(a, b):
    return min(a[2], b[2]) - max(a[0], b[0]) > 0 and min(a[3], b[3]) - max(a[1], b[1]) > 0


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.floats(60, 340), st.floats(40, 210)), min_size=1, max_size=4),
    st.tuples(st.floats(20, 60), st.floats(8, 14)),
)
def test_labels_stay_inside_and_off_each_other(anchors, size):
    boxes = place(anchors, [size] * len(anchors), [], BOUNDS)
    assert boxes.shape == (len(anchors), 4)
    np.testing.assert_allclose(boxes[:, 2:] - boxes[:, :2], [size] * len(anchors), rtol=1e-6)
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= BOUNDS[2:]).all()
    assert not any(_overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_a_label_avoids_the_line_and_what_is_taken():
    line = dense([[0, 125], [400, 125]])
    [above] = place([[200, 125]], [[50, 10]], line, BOUNDS)
    assert above[1] > 127
    [below] = place([[200, 125]], [[50, 10]], line, BOUNDS, taken=[[0, 127, 400, 250]])
    assert below[3] < 123


def test_the_first_label_chooses_first():
    first, second = place([[200, 125], [200, 125]], [[50, 10]] * 2, [], BOUNDS)
    [alone] = place([[200, 125]], [[50, 10]], [], BOUNDS)
    np.testing.assert_array_equal(first, alone)
    assert not _overlap(first, second)


def test_no_label_is_fine():
    assert place(np.empty((0, 2)), np.empty((0, 2)), [], BOUNDS).shape == (0, 4)


def test_dense_covers_the_polyline():
    points = dense([[0, 0], [30, 0], [30, 40]], spacing=2.0)
    assert np.hypot(*np.diff(points, axis=0).T).max() <= 2 + 1e-9
    assert points[0].tolist() == [0, 0]
    assert points[-1].tolist() == [30, 40]
    assert {(30.0, 0.0)} <= set(map(tuple, points))
    assert dense([[3, 4]]).tolist() == [[3, 4]]
