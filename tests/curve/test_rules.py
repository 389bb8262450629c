import contextlib
import dataclasses
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.lines import Line2D

from lrfinder.curve.curve import Context, Curve
from lrfinder.curve.landmarks import Landmarks, find_landmarks
from lrfinder.curve.rules import RULES, suggest, suggestions
from lrfinder.curve.scout import scout_grid, scouted_range
from lrfinder.curve.smoothing import SMOOTHINGS, smooth
from lrfinder.curve.stop_rule import StopReason
from lrfinder.curve.sweep import Sweep, grid
from lrfinder.curve.warnings import curve_warnings
from lrfinder.errors import ArgumentError, NoSuggestionError

laws = settings(max_examples=50, deadline=None)


def measured(losses, lrs=None, *, smoothing="gaussian", stop_rule=True):
    """Drive a sweep with scripted losses and return its curve."""
    lrs = np.geomspace(1e-6, 1.0, len(losses)) if lrs is None else lrs
    sweep = Sweep(lrs) if stop_rule else Sweep(lrs, None)
    for loss in losses:
        if sweep.ask() is None:
            break
        sweep.tell(float(loss))
    return curve_of(sweep, smoothing)


def curve_of(sweep, smoothing="gaussian"):
    return Curve(
        lrs=sweep.lrs,
        losses=sweep.losses,
        smoothed=smooth(sweep.losses, smoothing),
        indices=sweep.indices,
        stop_reason=sweep.stop_reason,
        stop_lr=sweep.stop_lr,
    )


def healthy(num_points=100, noise=0.02, seed=0, *, steepest_at=1e-3, diverges_at=3e-2):
    """Losses that fall from 2.3 to 0.3, fastest at one rate, and rise from another one on."""
    lrs = np.geomspace(1e-6, 1.0, num_points)
    fall = 2 / (1 + (lrs / steepest_at) ** 1.5)
    rise = np.expm1(np.clip(10 * np.log10(lrs / diverges_at), 0, None))
    return 0.3 + fall + rise + noise * np.random.default_rng(seed).normal(size=num_points)


def decades(one, other):
    return abs(math.log10(one / other))


def nearest(curve, lr):
    return int(np.argmin(np.abs(np.log(curve.lrs / lr))))


def found_at(curve, context=Context()):  # noqa: B008 - frozen
    """Return the learning rates of `auto` and of the landmarks, those that there are."""
    found = dataclasses.asdict(find_landmarks(curve, context))
    with contextlib.suppress(NoSuggestionError):
        found["auto"] = suggest("auto", curve, context).lr
    return {name: lr for name, lr in found.items() if lr is not None}


def sgd_on_quadratic(
    seed,
    *,
    top=3.0,
    momentum=0.0,
    dimensions=1,
    gradient_noise=0.1,
    loss_noise=0.0,
    sampled=False,
    span=(-2, 2),
    num_iter=100,
):
    """Sweep SGD on a quadratic whose largest curvature is `top`, in units of the stability bound."""
    rng = np.random.default_rng(seed)
    curvatures = top * np.geomspace(1, 0.01, dimensions)
    bound = 2 * (1 + momentum) / top
    place, velocity = np.ones(dimensions), np.zeros(dimensions)
    sweep = Sweep(grid(bound * 10 ** span[0], bound * 10 ** span[1], num_iter))
    while (lr := sweep.ask()) is not None:
        noise = gradient_noise * rng.normal(size=dimensions)
        seen = place + noise if sampled else place  # a mini-batch's own minimum lies elsewhere
        loss = 0.5 * np.sum(curvatures * seen**2) + loss_noise * rng.normal()
        velocity = momentum * velocity + curvatures * (place + noise)
        place = place - lr * velocity
        sweep.tell(loss)
    return curve_of(sweep), bound


class TestDivergence:
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
    def test_it_is_the_bound_of_stability_of_a_quadratic(self, setting, momentum):
        off = []
        for seed in range(20):
            curve, bound = sgd_on_quadratic(seed, momentum=momentum, **setting)
            step = math.log(curve.lrs[1] / curve.lrs[0])
            off.append(math.log(find_landmarks(curve, Context(momentum=momentum)).divergence / bound) / step)
        assert abs(np.median(off)) <= 2
        assert np.mean(np.abs(off) <= 4) >= 0.5

    def test_noise_that_drowns_the_descent_is_seen_through_in_one_dimension(self):
        curves = [sgd_on_quadratic(seed, gradient_noise=1.0) for seed in range(20)]
        off = [math.log(find_landmarks(curve).divergence / bound) / math.log(1e4) * 99 for curve, bound in curves]
        assert abs(np.median(off)) <= 2

    def test_it_is_the_foot_of_the_rise_not_where_the_stop_rule_fired(self):
        curve = measured(healthy(diverges_at=3e-2))
        found = find_landmarks(curve).divergence
        assert decades(found, 3e-2) < 0.13
        assert decades(curve.stop_lr, found) > 0.3

    def test_a_step_up_is_blamed_on_the_last_rate_before_it(self):
        losses = [2.0, 2.01] * 15 + [9.0, 9.01] * 20
        curve = measured(losses)
        before = find_landmarks(curve).divergence
        assert before <= curve.lrs[29]
        assert nearest(curve, before) == 29
        after = find_landmarks(curve, Context(val=True)).divergence  # measured after the step: that step is to blame
        assert nearest(curve, after) == 30

    def test_a_bump_that_comes_back_is_not_divergence(self):
        losses = healthy(diverges_at=10.0)
        losses[70:73] += 3
        curve = measured(losses)
        assert curve.stop_reason is StopReason.FINISHED
        assert find_landmarks(curve).divergence is None

    def test_a_nan_out_of_the_blue_is_divergence_at_the_last_finite_rate(self):
        losses = healthy(diverges_at=10.0)
        losses[80] = math.nan
        curve = measured(losses)
        assert find_landmarks(curve).divergence == curve.lrs[79]

    def test_a_rise_without_a_fall(self):
        rng = np.random.default_rng(0)
        losses = 0.3 + 0.02 * rng.normal(size=100)
        losses[60:] += 0.02 * 1.5 ** np.arange(40)
        curve = measured(losses)
        assert decades(find_landmarks(curve).divergence, curve.lrs[60]) < 0.3


class TestLandmarksOnKnownCurves:
    @pytest.mark.parametrize("smoothing", ["gaussian", "ema", "median"])
    def test_each_feature_is_found_where_it_was_put(self, smoothing):
        losses = healthy(steepest_at=1e-3, diverges_at=3e-2)
        curve = measured(losses, smoothing=smoothing)
        found = find_landmarks(curve)
        assert decades(found.steepest, 1e-3) < 0.2
        assert decades(found.divergence, 3e-2) < 0.2
        assert 3e-5 < found.onset < 4e-4  # the fall is through 2% at 7e-5 and through 20% at 4e-4
        assert decades(found.minimum, 2.5e-2) < 0.3
        assert found.onset < suggest("auto", curve).lr < found.divergence

    def test_without_noise_steepest_is_exact_on_an_uneven_grid(self):
        rng = np.random.default_rng(0)
        lrs = np.sort(10 ** rng.uniform(-6, 0, size=300))
        losses = 1 / (1 + (lrs / 1e-3) ** 2)
        curve = measured(losses, lrs, smoothing="none")
        assert decades(find_landmarks(curve).steepest, 1e-3) < 0.05

    def test_steepest_agrees_with_a_slow_reference(self):
        curve = measured(healthy(noise=0.0, steepest_at=1.1e-3), smoothing="none")
        slopes = {}
        for i in range(3, 73):
            run = math.log10(curve.lrs[i + 3] / curve.lrs[i - 3])
            slopes[i] = (curve.smoothed[i + 3] - curve.smoothed[i - 3]) / run
        assert find_landmarks(curve).steepest == curve.lrs[min(slopes, key=slopes.get)]

    def test_steepest_looks_at_neither_the_plateau_nor_what_follows_the_lowest_loss(self):
        losses = healthy(diverges_at=1e-2)
        losses[90:] = 1e6 * np.linspace(1, 0, 10)  # the steepest fall of all
        curve = measured(losses, stop_rule=False)
        assert decades(find_landmarks(curve).steepest, 1e-3) < 0.2

    def test_onset_is_where_the_plateau_ends(self):
        lrs = np.geomspace(1e-6, 1.0, 200)
        losses = 3 - np.clip(np.log10(lrs / 1e-3), 0, None) + 0.02 * np.random.default_rng(0).normal(size=200)
        assert 1e-3 < find_landmarks(measured(losses)).onset < 1.5e-3

    def test_minimum_is_the_lowest_smoothed_loss(self):
        lrs = np.geomspace(1e-6, 1.0, 101)
        curve = measured(np.log10(lrs / 1e-2) ** 2, stop_rule=False)
        assert find_landmarks(curve).minimum == pytest.approx(1e-2, rel=0.1)

    def test_where_nothing_is_seen_they_are_none(self):
        assert find_landmarks(measured(np.full(50, 2.3))) == Landmarks()
        assert find_landmarks(measured([3.0, 2.0, 1.0, 9.0])) == Landmarks()  # too few points


class TestRules:
    def test_every_rule_of_a_healthy_curve_but_refine_suggests_a_learning_rate(self):
        assert list(suggestions(measured(healthy()))) == [rule for rule in RULES if rule != "refine"]

    @pytest.mark.parametrize("rule", sorted({*RULES} - {"refine"}))
    def test_a_suggestion_names_its_rule_and_its_nearest_point(self, rule):
        curve = measured(healthy())
        found = suggest(rule, curve)
        assert found.rule == rule
        assert found.index == nearest(curve, found.lr)

    @pytest.mark.parametrize("rule", sorted(RULES))
    def test_an_entry_describes_its_rule_in_one_line(self, rule):
        entry = RULES[rule]
        assert entry.description
        assert "\n" not in entry.description
        assert Line2D([], [], marker=entry.marker).get_marker() == entry.marker  # Matplotlib knows it

    def test_a_reason_is_one_sentence(self):
        for suggestion in suggestions(measured(healthy())).values():
            assert suggestion.reason
            assert "\n" not in suggestion.reason
            assert not suggestion.reason.endswith(".")

    def test_refine_needs_more_than_a_curve_and_says_what(self):
        with pytest.raises(NoSuggestionError, match=r"refine needs short trainings, .* Call find\(refine=True\)"):
            suggest("refine", measured(healthy()))

    @pytest.mark.parametrize("rule", [rule for rule in RULES if rule not in {"auto", "refine"}])
    def test_other_finders_suggest_nothing_on_noise(self, rule):
        with pytest.raises(NoSuggestionError, match=rf"^{rule}: the loss did not fall clearly"):
            suggest(rule, measured(np.random.default_rng(0).normal(size=100)))

    def test_other_finders_stop_where_the_loss_is_negative_and_say_so(self):
        with pytest.raises(NoSuggestionError, match=r"^fastai_valley: too few points .* Use rule='auto'"):
            suggest("fastai_valley", measured(healthy() - 50))


class TestFunctionAsRule:
    def test_its_learning_rate_is_the_suggestion(self):
        def half_of_the_end(curve, context):
            return curve.lrs[-1] / 2 * context.total_steps

        curve = measured(healthy(), stop_rule=False)
        found = suggest(half_of_the_end, curve, Context(total_steps=1))
        assert (found.lr, found.rule, found.index) == (0.5, "half_of_the_end", 94)
        assert isinstance(found.lr, float)
        assert found.reason == "what the function half_of_the_end returned"

    @pytest.mark.parametrize("bad", [0.0, -1e-3, math.nan, math.inf, None, "1e-3", True, [1e-3], 1j])
    def test_anything_but_a_positive_finite_number_is_an_error(self, bad):
        def broken(curve, context):
            return bad

        with pytest.raises(ArgumentError, match=r"rule=broken must return a positive finite learning rate, got"):
            suggest(broken, measured(healthy()))

    def test_its_own_errors_pass_unchanged(self):
        def nothing(curve, context):
            raise NoSuggestionError("nothing here")

        with pytest.raises(NoSuggestionError, match=r"^nothing here$"):
            suggest(nothing, measured(healthy()))

    def test_an_object_that_can_be_called_is_named_after_its_class(self):
        class Tenth:
            def __call__(self, curve, context):
                return 0.1

        assert suggest(Tenth(), measured(healthy())).rule == "Tenth"


class TestAuto:
    def test_a_clear_valley_gets_a_rate_below_its_middle(self):
        curve = measured(healthy(diverges_at=1e-2, steepest_at=1e-3), smoothing="none")
        first, lowest = np.median(curve.losses[:10]), curve.losses[2:-2].min()
        weights = [max(first - loss, 0) ** 2 / (first - lowest) ** 2 for loss in curve.losses]
        middle = sum(w * math.log10(lr) for w, lr in zip(weights, curve.lrs, strict=True)) / sum(weights)
        density = 1 / np.diff(np.log10(curve.lrs)).mean()
        found = suggest("auto", curve)
        assert found.lr == pytest.approx(10**middle / 4.2 * math.sqrt(density / 20), rel=0.02)
        assert "below the middle" in found.reason

    @pytest.mark.parametrize(("points", "factor"), [(25, 1 / 2), (100, 1.0), (400, 2.0), (500, 5**0.5), (5000, 5**0.5)])
    def test_a_slower_sweep_has_its_valley_further_down(self, points, factor):
        """The same curve at another speed; beyond what was measured, 100 points a decade, nothing changes any more."""
        lrs = np.geomspace(1e-5, 1.0, 101)
        fine = np.geomspace(1e-5, 1.0, points + 1)
        losses = np.interp(np.log(lrs), np.log(np.geomspace(1e-5, 1.0, 200)), healthy(200))
        at_speed = np.interp(np.log(fine), np.log(lrs), losses)
        usual, other = (
            Curve(lrs=rates, losses=values, smoothed=values, indices=np.arange(len(rates)), stop_reason=None)
            for rates, values in ((lrs, losses), (fine, at_speed))
        )
        assert suggest("auto", other).lr == pytest.approx(suggest("auto", usual).lr * factor, rel=0.15)

    def test_the_middle_does_not_depend_on_how_the_rates_are_spaced(self):
        lrs, losses = np.geomspace(1e-5, 1.0, 200), healthy(200)
        fine = np.concatenate([np.arange(0, 160), np.arange(160, 200, 2)])  # sparse where it diverges
        even, uneven = (
            Curve(lrs=lrs[at], losses=losses[at], smoothed=losses[at], indices=at, stop_reason=None)
            for at in (np.arange(200), fine)
        )
        assert suggest("auto", uneven).lr == pytest.approx(suggest("auto", even).lr, rel=0.1)

    def test_a_short_training_stays_below_divergence(self):
        losses = 0.1 * np.random.default_rng(3).exponential(size=100)
        losses[70:] += 0.1 * 1.5 ** np.arange(30)
        curve = measured(losses)
        found = suggest("auto", curve, Context(total_steps=1))
        assert found.lr == pytest.approx(find_landmarks(curve).divergence / 2)
        assert "below divergence" in found.reason

    def test_a_longer_training_gets_a_lower_rate_and_the_reason_says_so(self):
        curve = measured(healthy())
        rates = [suggest("auto", curve, Context(total_steps=steps)).lr for steps in (100, 1_000, 10_000, 100_000)]
        assert rates == sorted(rates, reverse=True)
        assert rates[1] / rates[3] == pytest.approx(100**0.3)
        assert suggest("auto", curve, Context(total_steps=10_000)).reason.endswith("lowered for 10,000 steps")
        assert suggest("auto", curve).lr == rates[1]
        assert "an assumed 1,000 steps" in suggest("auto", curve).reason

    def test_a_sweep_that_never_diverged_gets_a_rate_below_its_end(self):
        curve = measured(healthy(diverges_at=10.0))
        found = suggest("auto", curve)
        assert 1e-3 < found.lr < 1e-1
        assert "valley" in found.reason

    def test_a_trained_model_gets_a_rate_from_divergence_alone(self):
        rng = np.random.default_rng(3)
        losses = 0.1 * rng.exponential(size=100)
        losses[70:] += 0.1 * 1.5 ** np.arange(30)
        found = suggest("auto", measured(losses))
        assert re.match(r"a factor \d\.\d below divergence at .*, the fall being lost in noise", found.reason)
        assert 1e-3 < found.lr < 4e-2

    def test_nothing_is_suggested_where_nothing_was_seen(self):
        with pytest.raises(NoSuggestionError, match=r"auto: the loss neither fell nor rose clearly .* Raise end_lr"):
            suggest("auto", measured(np.random.default_rng(0).normal(size=100)))


class TestWarnings:
    @pytest.mark.parametrize("seed", range(10))
    @pytest.mark.parametrize("noise", [0.0, 0.02, 0.2])
    def test_a_healthy_curve_has_none(self, noise, seed):
        assert curve_warnings(measured(healthy(noise=noise, seed=seed))) == []

    def test_a_healthy_curve_with_negative_losses_has_none(self):
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
    def test_each_trouble_is_named_with_its_remedy(self, losses, sentence):
        found = curve_warnings(measured(losses))
        assert any(re.search(sentence, warning) for warning in found), found
        assert all(warning.endswith(".") for warning in found)


class TestLaws:
    @laws
    @given(
        seed=st.integers(0, 999),
        noise=st.floats(1e-3, 0.5),
        shift=st.floats(-100, 100),
        scale=st.floats(1e-3, 1e3),
        smoothing=st.sampled_from(sorted(SMOOTHINGS)),
        momentum=st.sampled_from([0.0, 0.9]),
    )
    def test_auto_and_landmarks_follow_no_offset_or_scale(self, seed, noise, shift, scale, smoothing, momentum):
        losses = healthy(noise=noise, seed=seed, diverges_at=10 ** (-1 - seed % 5 / 2))
        context = Context(momentum=momentum, total_steps=5000)
        here, there = (measured(each, smoothing=smoothing) for each in (losses, scale * losses + shift))
        assert found_at(there, context) == pytest.approx(found_at(here, context), rel=1e-6)

    @settings(max_examples=200, deadline=None)
    @given(
        losses=st.one_of(
            st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=60),
            st.lists(st.sampled_from([0.0, 1.0, -1.0, 2.0]), min_size=1, max_size=60),
            st.lists(st.sampled_from([1e30, 1.0, 2.3, 1e300, -1e300, 5e-324, 1.7e308, -1.7e308]), min_size=1),
            st.lists(st.floats(-1, 1), min_size=1, max_size=60),
        ),
        smoothing=st.sampled_from(sorted(SMOOTHINGS)),
        linear=st.booleans(),
        stop_rule=st.booleans(),
        val=st.booleans(),
        momentum=st.floats(0, 0.999),
    )
    def test_no_curve_breaks_a_rule(self, losses, smoothing, linear, stop_rule, val, momentum):
        lrs = (np.linspace if linear else np.geomspace)(1e-6, 10.0, len(losses))
        curve = measured(losses, lrs, smoothing=smoothing, stop_rule=stop_rule)
        context = Context(momentum=momentum, val=val)
        for suggestion in suggestions(curve, context).values():  # swallows NoSuggestionError, nothing else
            assert 0 < suggestion.lr <= 10.0 * (1 + 1e-9)
            assert 0 <= suggestion.index < len(curve)
            assert suggestion.reason
        for lr in dataclasses.astuple(find_landmarks(curve, context)):
            assert lr is None or 0 < lr <= 10.0 * (1 + 1e-9)
        assert all(isinstance(sentence, str) for sentence in curve_warnings(curve, context))
        start, end = scouted_range(curve, context)
        assert 0 < start < end < math.inf

    @pytest.mark.parametrize("height", [1e3, 1e10, 1e30, 1e300])
    def test_however_high_the_loss_blows_up_the_rest_is_read_alike(self, height):
        losses = healthy()
        tame, wild = measured(losses), losses.copy()
        wild[85:] = 2 + height * np.arange(15)
        here, there = found_at(tame), found_at(measured(wild))
        for name, lr in here.items():
            assert decades(lr, there[name]) < 0.1, name
        assert curve_warnings(measured(wild)) == []

    @laws
    @given(seed=st.integers(0, 999))
    def test_gaps_change_little(self, seed):
        losses, rng = healthy(seed=seed), np.random.default_rng(seed)
        sweep = Sweep(np.geomspace(1e-6, 1.0, 100))
        skips = rng.random(100) < 0.15
        skips[1:] &= ~skips[:-1]  # many in a row would be divergence
        for loss, skip in zip(losses, skips, strict=True):
            if sweep.ask() is None:
                break
            sweep.skip() if skip else sweep.tell(float(loss))
        whole, gappy = found_at(measured(losses)), found_at(curve_of(sweep))
        for name in ("steepest", "divergence", "auto"):
            assert decades(whole[name], gappy[name]) < 0.4

    def test_pure_noise_is_nearly_always_called_flat(self):
        rng = np.random.default_rng(0)
        curves = [measured(losses) for losses in rng.normal(size=(200, 100))]
        assert sum("auto" in suggestions(curve) for curve in curves) <= 6

    def test_many_points(self):
        curve = measured(healthy(100_000, noise=0.3))
        found = find_landmarks(curve)
        assert decades(found.divergence, 3e-2) < 0.2
        assert decades(found.steepest, 1e-3) < 0.3
        assert "auto" in suggestions(curve)

    def test_bad_input(self):
        curve = measured(healthy())
        with pytest.raises(ArgumentError, match=r"rule must be one of auto, .* or a function .* got rule='best'"):
            suggest("best", curve)
        with pytest.raises(NoSuggestionError, match=r"auto needs 5 points, the curve has 2. The loss became NaN"):
            suggest("auto", measured([1.0, 1.0, math.nan, 1.0, 1.0]))


class TestScout:
    def test_at_most_thirty_steps_over_ten_decades(self):
        rates = scout_grid()
        assert (rates[0], len(rates)) == (1e-8, 30)
        assert rates[-1] == pytest.approx(1e2)

    @pytest.mark.parametrize("ends", [(1e-3, None), (None, 1e-2), (50.0, None), (500.0, None), (None, 1e-9), (9, 11)])
    def test_an_end_given_by_the_user_is_kept(self, ends):
        rates = scout_grid(*ends)
        assert 5 <= len(rates) <= 30
        assert np.all(np.diff(rates) > 0)
        assert ends[0] is None or rates[0] == pytest.approx(ends[0])
        assert ends[1] is None or rates[-1] == pytest.approx(ends[1])

    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    @pytest.mark.parametrize("top", [1e-2, 1.0, 1e4])
    @pytest.mark.parametrize("noise", [0.01, 0.3])
    def test_the_range_holds_onset_and_divergence_and_is_not_wastefully_wide(self, top, momentum, noise):
        context = Context(momentum=momentum)
        for seed in range(5):
            bound = 2 * (1 + momentum) / top
            span = tuple(np.log10(np.array([1e-8, 1e2]) / bound))
            scout, _ = sgd_on_quadratic(
                seed, top=top, momentum=momentum, dimensions=5, gradient_noise=noise, span=span, num_iter=30
            )
            start, end = scouted_range(scout, context)
            assert start < bound / 100
            assert 1.5 * bound < end < 100 * bound or end == pytest.approx(1e2)
            assert 4 < math.log10(end / start) < 6

    def test_a_scout_that_never_diverged_leaves_the_range_at_the_top(self):
        lrs = scout_grid()
        start, end = scouted_range(measured(2 / (1 + lrs), lrs))
        assert end == pytest.approx(1e2)
        assert start < 1e-3

    def test_a_scout_without_points(self):
        curve = measured([math.nan, 1.0], np.array([1e-8, 1e-7]))
        start, end = scouted_range(curve)
        assert start < 1e-8 < end
