import dataclasses

import numpy as np
import pytest

from lrfinder.curve.curve import Context
from lrfinder.curve.explosion import before_explosion, first_divergence_lr, first_explosion
from lrfinder.curve.rules import suggest
from lrfinder.curve.stop_rule import StopReason
from tests.curve.curves import decades, healthy, measured

LRS = np.geomspace(1e-5, 1e2, 100)


def dead_from(lr, *, spike=9.0, again=True, noise=0.05, seed=0):
    """Return losses that fall at 1e-3 and go back at `lr`, where the network dies; its last bias still learns at 1."""
    losses = np.where(LRS < 1e-3, 4.0, 1.0)
    losses[lr <= LRS] = 4.0
    if again:
        losses[LRS > 1.0] = 1.0
    losses[np.argmax(lr <= LRS)] += spike
    return losses + noise * np.random.default_rng(seed).normal(size=len(LRS))


def curve_of(losses):
    return measured(losses, lrs=LRS)


@pytest.mark.parametrize("spike", [0.0, 9.0, 1e6])
def test_the_last_low_loss_before_a_network_dies_is_where_it_explodes(spike):
    found = first_explosion(curve_of(dead_from(0.05, spike=spike)))
    assert 0.02 < found.lr < 0.05


def test_auto_stays_below_the_explosion_though_the_loss_falls_again_above_it():
    assert suggest("auto", curve_of(dead_from(0.05))).lr < 0.05 / 2


def test_the_curve_ends_at_the_explosion_as_one_that_diverged():
    curve = curve_of(dead_from(0.05))
    cut = before_explosion(curve)
    assert cut.lrs[-1] < 0.12
    assert cut.stop_reason is StopReason.DIVERGED
    assert first_divergence_lr(curve, Context()) < 0.05


def test_a_single_spike_above_the_first_level_is_an_explosion():
    losses = healthy(diverges_at=10.0)
    losses[70] += 6.0
    assert decades(first_explosion(measured(losses)).lr, np.geomspace(1e-6, 1.0, 100)[69]) < 0.01


def test_a_drift_before_the_loss_falls_is_no_explosion():
    # The validation loss of a network whose batch normalization settles: it has no noise that would hide the drift.
    losses = np.interp(np.arange(100), [0, 45, 55, 70, 75, 99], [2.31, 2.36, 2.34, 2.13, 2.2, 30.0])
    lrs = np.geomspace(1e-7, 10.0, 100)
    curve = measured(losses, lrs=lrs, stop_rule=False)
    assert first_explosion(curve).lr > lrs[65]
    assert suggest("auto", curve, Context(val=True)).lr > 1e-4


@pytest.mark.parametrize("seed", range(10))
def test_a_healthy_curve_and_noise_have_no_explosion(seed):
    rng = np.random.default_rng(seed)
    assert first_explosion(measured(healthy(seed=seed, noise=0.2, diverges_at=10.0))) is None
    assert first_explosion(measured(1.0 + 0.3 * rng.normal(size=100))) is None


@pytest.mark.parametrize(("scale", "offset"), [(1e-3, 0.0), (1e4, -3e4)])
def test_it_does_not_depend_on_the_scale_or_offset_of_the_loss(scale, offset):
    losses = dead_from(0.05)
    found = first_explosion(curve_of(scale * losses + offset))
    assert found == first_explosion(curve_of(losses))


def test_a_loss_that_goes_on_to_fall_much_further_has_not_exploded():
    losses = np.where(LRS < 1e-4, 4.0, np.where(LRS < 1e-3, 3.4, np.where(LRS < 1e-2, 3.95, 0.5)))
    assert first_explosion(curve_of(losses + 0.01 * np.random.default_rng(0).normal(size=100))) is None


def test_a_valley_counts_for_a_decade_above_its_beginning():
    # A network that died without a sign: its loss stays at that of a constant prediction to the end.
    losses = np.where(LRS < 1e-3, 4.0, 1.0) + 0.05 * np.random.default_rng(0).normal(size=100)
    curve = curve_of(losses)
    assert curve.stop_reason is StopReason.FINISHED
    found = suggest("auto", curve)
    assert 1e-3 < found.lr < 5e-3
    assert "held near its beginning" in found.reason


def test_suggestions_for_rmsprop_are_twice_as_high():
    curve = measured(healthy())
    usual = suggest("auto", curve, Context(optimizer="Adam")).lr
    assert suggest("auto", curve, Context(optimizer="RMSprop")).lr == pytest.approx(2 * usual)


def test_too_few_points_show_no_explosion():
    assert first_explosion(measured([2.0, 1.0, 9.0, 2.0, 1.0, 2.0])) is None


def test_gradient_norms_are_cut_with_the_curve():
    curve = curve_of(dead_from(0.05))
    cut = before_explosion(dataclasses.replace(curve, grad_norms=curve.lrs))
    assert len(cut) < len(curve)
    assert cut.grad_norms.tolist() == cut.lrs.tolist()
