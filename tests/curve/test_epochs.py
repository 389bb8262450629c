import numpy as np
import pytest

from lrfinder.curve import Context
from lrfinder.curve.epochs import over_epochs
from tests.curve.curves import measured


@pytest.fixture
def curve():
    return measured(np.tile([1.0, 2.0, 6.0], 34)[:100], stop_rule=False)


def test_each_point_gets_the_mean_of_its_epoch(curve):
    found = over_epochs(curve, Context(epoch_points=3))
    assert found.losses.tolist() == [3.0] * 100  # the last epoch, of one point, with the end of the one before
    assert found.lrs.tolist() == curve.lrs.tolist()


def test_points_that_are_missing_do_not_shift_the_epochs():
    whole = measured(np.repeat(np.arange(50.0), 2), stop_rule=False)
    kept = np.delete(np.arange(100), 11)
    part = type(whole)(
        lrs=whole.lrs[kept],
        losses=whole.losses[kept],
        smoothed=whole.smoothed[kept],
        indices=whole.indices[kept],
        stop_reason=whole.stop_reason,
    )
    assert over_epochs(part, Context(epoch_points=2)).losses.tolist() == part.losses.tolist()


@pytest.mark.parametrize(
    "context",
    [
        Context(),
        Context(epoch_points=1),
        Context(epoch_points=6),
        Context(epoch_points=3, val=True),
    ],
    ids=["unknown", "one batch", "many batches", "validation loss"],
)
def test_other_curves_stay_as_they_are(curve, context):
    assert over_epochs(curve, context) is curve


def test_a_curve_of_few_epochs_stays_as_it_is(curve):
    short = measured(np.tile([1.0, 2.0, 6.0], 4), stop_rule=False)
    assert over_epochs(short, Context(epoch_points=3)) is short


def test_the_points_of_an_epoch_that_have_its_mean_do_not_make_the_noise_smaller():
    means = 1 + 0.1 * np.random.default_rng(0).normal(size=50)
    assert over_epochs(measured(np.repeat(means, 2), stop_rule=False), Context(epoch_points=2)).noise == pytest.approx(
        measured(means, stop_rule=False).noise, rel=0.3
    )
