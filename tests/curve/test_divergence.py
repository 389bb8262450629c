import math

import numpy as np
import pytest

from lrfinder.curve.curve import Context
from lrfinder.curve.landmarks import find_landmarks
from lrfinder.curve.stop_rule import StopReason
from tests.curve.curves import decades, healthy, measured, nearest, sgd_on_quadratic


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(
    "setting",
    [
        {},
        {"top": 100.0, "gradient_noise": 0.01},
        {"gradient_noise": 0.0},
        {"gradient_noise": 0.3},
        {"loss_noise": 0.1},
        {"loss_noise": 0.5},
        {"dimensions": 2},
        {"dimensions": 10, "gradient_noise": 0.05},
        {"dimensions": 10, "gradient_noise": 0.05, "loss_noise": 0.2},
        {"sampled": True, "gradient_noise": 0.3},
        {"sampled": True, "dimensions": 10},
        {"span": (-3, 1)},
        {"span": (-1.5, 1.5)},
        {"span": (-3, 2), "num_iter": 50},
        {"num_iter": 300},
    ],
    ids=str,
)
def test_it_is_the_bound_of_stability_of_a_quadratic(setting, momentum):
    off = []
    for seed in range(20):
        curve, bound = sgd_on_quadratic(seed, momentum=momentum, **setting)
        step = math.log(curve.lrs[1] / curve.lrs[0])
        off.append(math.log(find_landmarks(curve, Context(momentum=momentum)).divergence / bound) / step)
    assert abs(np.median(off)) <= 2
    assert np.mean(np.abs(off) <= 4) >= 0.5


def test_it_is_found_where_noise_hides_the_descent():
    curves = [sgd_on_quadratic(seed, gradient_noise=1.0) for seed in range(20)]
    off = [math.log(find_landmarks(curve).divergence / bound) / math.log(1e4) * 99 for curve, bound in curves]
    assert abs(np.median(off)) <= 2


def test_it_is_where_the_rise_begins_not_where_the_sweep_was_stopped():
    curve = measured(healthy(diverges_at=3e-2))
    found = find_landmarks(curve).divergence
    assert decades(found, 3e-2) < 0.13
    assert decades(curve.stop_lr, found) > 0.3


def test_a_sudden_rise_is_due_to_the_last_lr_before_it():
    losses = [2.0, 2.01] * 15 + [9.0, 9.01] * 20
    curve = measured(losses)
    before = find_landmarks(curve).divergence
    assert before <= curve.lrs[29]
    assert nearest(curve, before) == 29
    after = find_landmarks(curve, Context(val=True)).divergence  # measured after the step: that step is to blame
    assert nearest(curve, after) == 30


def test_a_bump_that_comes_back_is_not_divergence():
    losses = healthy(diverges_at=10.0)
    losses[70:73] += 1  # half of what was learned: nothing exploded
    curve = measured(losses)
    assert curve.stop_reason is StopReason.FINISHED
    assert find_landmarks(curve).divergence is None


def test_a_sudden_nan_is_divergence_at_the_last_finite_lr():
    losses = healthy(diverges_at=10.0)
    losses[80] = math.nan
    curve = measured(losses)
    assert find_landmarks(curve).divergence == curve.lrs[79]


def test_a_rise_without_a_fall():
    rng = np.random.default_rng(0)
    losses = 0.3 + 0.02 * rng.normal(size=100)
    losses[60:] += 0.02 * 1.5 ** np.arange(40)
    curve = measured(losses)
    assert decades(find_landmarks(curve).divergence, curve.lrs[60]) < 0.3
