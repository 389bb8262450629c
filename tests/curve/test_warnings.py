import re

import numpy as np
import pytest

from lrfinder.curve.warnings import curve_warnings
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
        (healthy(diverges_at=10.0), r"did not diverge up to end_lr=1.0e\+00. Raise end_lr"),
        (healthy(200)[142:], "Only few points lie below divergence at .* Lower start_lr, or raise num_iter"),
        (np.repeat([0.5, 0.0], [700, 300]) + np.random.default_rng(0).normal(size=1000), "The noise is larger"),
        (np.ones(3), "only 3 points"),
    ],
)
def test_each_trouble_is_named_with_its_remedy(losses, sentence):
    found = curve_warnings(measured(losses))
    assert any(re.search(sentence, warning) for warning in found), found
    assert all(warning.endswith(".") for warning in found)
