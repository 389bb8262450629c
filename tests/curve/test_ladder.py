"""Refining: the ladder, the choice, and that it leaves nothing behind."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lrfinder import ArgumentError, LRFinder, LRFinderWarning, NoSuggestionError
from lrfinder.curve.curve import Context, Curve
from lrfinder.curve.divergence import divergence_lr
from lrfinder.curve.ladder import (
    BELOW_PAYING,
    BELOW_UNSTEADY,
    BUDGET,
    DIVERGENCE_MARGIN,
    MOST_PROBES,
    PER_DECADE,
    RUNGS_ABOVE,
    ShortTraining,
    Tried,
    choose,
    is_steady,
    probe_steps,
    refine,
)
from lrfinder.curve.rules import suggest
from lrfinder.curve.stop_rule import StopReason
from tests.curve.curves import product_in
from tests.fingerprint import Fingerprint, differences, process_state
from tests.notes import Notes


def curve(top=1.0):
    """Return a curve that falls and diverges at about `top`."""
    lrs = np.geomspace(top / 1e4, top * 10, 100)
    losses = 2 - np.tanh(np.log10(lrs / top) + 2) + np.maximum(np.log10(lrs / top), 0) ** 2 * 50
    return Curve(
        lrs=lrs,
        losses=losses,
        smoothed=losses,
        indices=np.arange(100),
        stop_reason=StopReason.DIVERGED,
        stop_lr=lrs[-1],
    )


FALLING = np.linspace(2.0, 1.0, 50)
RISING_AGAIN = FALLING + 0.5 * np.exp(-((np.arange(50) - 25) ** 2) / 20)
EXPLODING = FALLING + 3.0 * np.exp(-((np.arange(50) - 25) ** 2) / 20)


def valley(best, *, floor=0.5, scale=1.0, offset=0.0, steady_below=math.inf, unsteady=RISING_AGAIN):
    """Return a probe whose score is a parabola in the logarithm of the rate."""

    def probe(_, lr):
        score = offset + scale * (floor + 0.3 * math.log10(lr / best) ** 2)
        return ShortTraining(score, offset + scale * (FALLING if lr < steady_below else unsteady))

    return probe


def ladder(gains, top=1.0, *, unsteady=()):
    """Return probes at the rungs 0, -1, ..., as `choose` wants them."""
    rungs = range(0, -len(gains), -1)
    return {
        k: Tried(top * 10 ** (k / PER_DECADE), gain, k not in unsteady) for k, gain in zip(rungs, gains, strict=True)
    }


CONTEXT = Context(total_steps=1000)


class TestProbeSteps:
    @pytest.mark.parametrize("total_steps", [1, 30, 100, 1_000, 10_000, 100_000])
    def test_stays_in_the_budget(self, total_steps):
        steps = probe_steps(total_steps)

        assert 1 <= steps <= total_steps
        assert steps * MOST_PROBES <= max(BUDGET, total_steps / 20) or steps == total_steps

    @pytest.mark.parametrize(("total_steps", "steps"), [(100, 100), (5_000, 150), (12_000, 150), (40_000, 500)])
    def test_the_default_budget_is_600_steps_or_a_twentieth_of_the_training(self, total_steps, steps):
        assert probe_steps(total_steps) == steps

    def test_a_budget_that_is_given_holds_for_any_length(self):
        assert probe_steps(100_000, budget=100) == 25


class TestIsSteady:
    def test_a_bump_counts_if_it_is_large_against_the_fall_and_the_noise(self):
        assert is_steady(FALLING)
        assert not is_steady(RISING_AGAIN)
        assert is_steady(FALLING + 0.1 * (RISING_AGAIN - FALLING))  # a rise of a twentieth of the fall, no more

    @pytest.mark.parametrize("seed", range(20))
    def test_noise_is_not_a_rise(self, seed):
        noise = np.random.default_rng(seed).normal(size=125)

        assert is_steady(np.linspace(2.0, 1.0, 125) + 0.3 * noise)

    def test_a_loss_that_only_rises_is_not_steady(self):
        assert not is_steady(FALLING[::-1])

    def test_too_few_losses_tell_nothing(self):
        assert not is_steady([])
        assert not is_steady([1.0, 0.9])

    @given(st.integers(0, 1000), st.floats(1e-3, 1e3), st.floats(-1e3, 1e3), st.booleans())
    @settings(max_examples=50, deadline=None)
    def test_scale_and_offset_do_not_matter(self, seed, scale, offset, bump):
        losses = (RISING_AGAIN if bump else FALLING) + 0.02 * np.random.default_rng(seed).normal(size=50)

        assert is_steady(scale * losses + offset) == is_steady(losses)


class TestRefine:
    def test_begins_above_the_curves_own_lr_and_goes_down_in_equal_ratios(self):
        own = suggest("auto", curve(), CONTEXT).lr

        lrs = [lr for lr, _ in refine(valley(own / 10), 2.0, curve(), CONTEXT, 50).probes]

        assert len(lrs) == MOST_PROBES
        assert lrs[RUNGS_ABOVE] == pytest.approx(own)
        assert np.allclose(np.array(lrs[:-1]) / np.array(lrs[1:]), 10 ** (1 / PER_DECADE))

    def test_stops_once_the_best_lr_is_between_worse_ones(self):
        own = suggest("auto", curve(), CONTEXT).lr

        probes = refine(valley(own * 10 ** (1 / PER_DECADE)), 2.0, curve(), CONTEXT, 50).probes

        assert len(probes) == 3

    def test_goes_up_where_the_highest_lr_is_the_best(self):
        own = suggest("auto", curve(), CONTEXT).lr

        refined = refine(valley(own * 10), 2.0, curve(), CONTEXT, 50)

        assert max(lr for lr, _ in refined.probes) > own * 10 ** (RUNGS_ABOVE / PER_DECADE)
        assert refined.suggestion.lr > own

    @pytest.mark.parametrize("top", [1e-3, 1.0, 30.0])
    def test_every_short_training_stays_below_divergence(self, top):
        diverging = curve(top)
        probes = refine(valley(top * 1000), 2.0, diverging, CONTEXT, 50).probes

        assert all(lr <= divergence_lr(diverging, CONTEXT) * (1 + 1e-9) for lr, _ in probes)

    def test_an_lr_at_which_the_loss_explodes_is_not_chosen_however_well_it_scores(self):
        context = Context(total_steps=50)
        own = suggest("auto", curve(), context).lr
        edge = own * 10 ** (1.5 / PER_DECADE)

        free = refine(valley(own * 5), 2.0, curve(), context, 50).suggestion
        held = refine(valley(own * 5, steady_below=edge, unsteady=EXPLODING), 2.0, curve(), context, 50).suggestion

        assert free.lr > edge > held.lr
        assert "unsteady at" in held.reason
        assert "unsteady" not in free.reason

    def test_a_rise_that_pays_is_not_held_against_an_lr(self):
        own = suggest("auto", curve(), CONTEXT).lr
        context, edge = Context(total_steps=50), own * 10 ** (0.5 / PER_DECADE)

        paid = refine(valley(own * 5, steady_below=edge), 2.0, curve(), context, 50)
        lost = refine(valley(own, steady_below=edge), 2.0, curve(), context, 50)

        assert paid.suggestion.lr > own > lost.suggestion.lr
        assert "scored best, though its loss rose on the way" in paid.suggestion.reason
        assert f" / {BELOW_PAYING}, as its loss rose on the way," in paid.suggestion.reason

    def test_where_all_are_unsteady_the_score_decides(self):
        own = suggest("auto", curve(), CONTEXT).lr

        assert refine(valley(own, steady_below=0.0), 2.0, curve(), CONTEXT, 50).suggestion is not None

    def test_a_diverged_short_training_is_followed_by_lower_lrs(self):
        def probe(index, lr):
            return ShortTraining(math.inf, np.empty(0)) if index < 3 else valley(0.05)(index, lr)

        refined = refine(probe, 2.0, curve(), CONTEXT, 50)

        assert refined.suggestion is not None
        assert refined.suggestion.lr < 0.05 * 10**0.5

    def test_without_any_gain_there_is_no_suggestion(self):
        refined = refine(lambda _, lr: ShortTraining(3.0, FALLING), 2.0, curve(), CONTEXT, 50)

        assert refined.suggestion is None


class TestWarnings:
    def test_short_trainings_that_fall_and_rank_the_lrs_have_none(self):
        assert refine(valley(0.05), 2.0, curve(), CONTEXT, 50).warnings == ()

    def test_one_short_training_that_fell_is_enough(self):
        edge = suggest("auto", curve(), CONTEXT).lr
        assert (
            refine(valley(edge, steady_below=edge * 1.1, unsteady=EXPLODING), 2.0, curve(), CONTEXT, 50).warnings == ()
        )

    def test_it_is_named_that_all_rose_on_the_way(self):
        [sentence] = refine(valley(0.05, steady_below=0.0, unsteady=EXPLODING), 2.0, curve(), CONTEXT, 50).warnings
        assert "rose by more than a third of its fall: they tell little. Try refine=400 steps, larger" in sentence

    def test_it_is_named_that_none_lowered_the_loss(self):
        found = refine(lambda _, lr: ShortTraining(3.0, FALLING), 2.0, curve(), CONTEXT, 50)
        assert found.warnings[0].startswith("No short training of refine lowered the loss that scores it")

    def test_no_more_steps_are_advised_than_the_training_has(self):
        found = refine(valley(0.05, steady_below=0.0, unsteady=EXPLODING), 2.0, curve(), Context(total_steps=60), 50)
        [sentence] = found.warnings
        assert "Try larger batches" in sentence

    def test_find_issues_them(self):
        torch.manual_seed(0)
        model = nn.Linear(4, 1)
        noise = [(torch.randn(8, 4), torch.randn(8, 1)) for _ in range(40)]
        finder = LRFinder(model, torch.optim.SGD(model.parameters(), lr=0.1), nn.MSELoss())
        with pytest.warns(LRFinderWarning, match=r"short training of refine .* Try "):
            finder.find(noise, start_lr=1e-4, end_lr=10.0, total_steps=100, refine=200, progress=False)


class TestDeadNetworks:
    def test_a_steady_lr_above_an_unsteady_one_is_that_of_a_dead_network(self):
        own = suggest("auto", curve(), CONTEXT).lr

        def probe(_, lr):
            if lr > 3 * own:
                return ShortTraining(1.0, FALLING)  # dead: as good as a constant prediction, and very steady
            return ShortTraining(0.9 if lr > 1.5 * own else 0.4, RISING_AGAIN if lr > 1.5 * own else FALLING)

        found = refine(probe, 2.0, curve(), CONTEXT, 125)
        assert found.suggestion.lr < own

    def test_short_trainings_that_all_end_alike_are_followed_by_one_a_decade_further_down(self):
        found = refine(lambda _, lr: ShortTraining(0.8, FALLING), 2.0, curve(), CONTEXT, 125)
        assert found.probes[2][0] == pytest.approx(found.probes[1][0] / 10)

    def test_short_trainings_that_all_rise_again_are_followed_by_one_a_decade_further_down(self):
        own = suggest("auto", curve(), CONTEXT).lr

        exploding = refine(valley(own, steady_below=0.5 * own, unsteady=EXPLODING), 2.0, curve(), CONTEXT, 125).probes
        rising_a_little = refine(valley(own, steady_below=0.5 * own), 2.0, curve(), CONTEXT, 125).probes

        assert exploding[2][0] == pytest.approx(exploding[1][0] / 10)
        assert rising_a_little[2][0] > exploding[2][0]

    def test_where_all_rise_again_the_curves_own_lr_stands(self):
        found = refine(valley(0.05, steady_below=0.0, unsteady=EXPLODING), 2.0, curve(), CONTEXT, 125).suggestion
        assert found.lr == suggest("auto", curve(), CONTEXT).lr
        assert found.rule == "refine"
        assert found.reason.startswith("the curve's own ")
        assert found.reason.endswith("rose by more than half of what they fell, so that they tell nothing")

    def test_a_large_first_gain_makes_no_tie_of_what_is_left_to_gain(self):
        # From 225 to 1.8 or to 3.9: the same share of the gain, and yet half of what could be had.
        gains = {0: 225 - 1.8, -1: 225 - 2.4, -2: 225 - 3.9}
        tried = {rung: Tried(10 ** (rung / PER_DECADE), gain, steady=True) for rung, gain in gains.items()}
        assert choose(tried, 10.0, curve(10.0), Context(), 100).lr > 0.6


class TestReusedBatches:
    """Where short trainings are scored on batches that they were trained on, memorizing looks like learning."""

    def test_never_raise_the_curves_own_lr(self):
        own = suggest("auto", curve(), CONTEXT).lr
        higher = valley(own * 5)

        assert refine(higher, 2.0, curve(), CONTEXT, 50).suggestion.lr > own
        kept = refine(higher, 2.0, curve(), CONTEXT, 50, reused_batches=lambda: True).suggestion
        assert kept.lr == own
        assert kept.rule == "refine"
        assert kept.reason.startswith(f"the curve's own {own:.1e}, ")
        assert "pass a val_loader" in kept.reason

    def test_may_lower_it(self):
        own = suggest("auto", curve(), CONTEXT).lr
        lower = valley(own / 3)

        seen = refine(lower, 2.0, curve(), CONTEXT, 50, reused_batches=lambda: True).suggestion

        assert seen.lr < own
        assert seen.lr == refine(lower, 2.0, curve(), CONTEXT, 50).suggestion.lr


class TestChoose:
    def test_recovers_the_best_lr_of_a_parabola(self):
        found = refine(valley(0.05), 2.0, curve(), Context(total_steps=50), 50).suggestion

        # The lowest rate that ties with the best one is chosen, never a larger one.
        assert 0.05 / 10 ** (1 / PER_DECADE) <= found.lr <= 0.05 * 1.05

    def test_a_longer_training_gets_a_lower_lr(self):
        tried = ladder([0.8, 1.0, 0.8], 0.1)
        rates = [choose(tried, 1.0, curve(), Context(total_steps=total), 50).lr for total in (50, 500, 5000)]

        assert rates[0] > rates[1] > rates[2]

    def test_stays_below_divergence(self):
        found = choose(ladder([4.9, 3.9, 2.9]), 1.0, curve(), Context(total_steps=50), 50)

        assert found.lr <= 1 / DIVERGENCE_MARGIN

    def test_of_nearly_equal_scores_the_lowest_lr_is_taken(self):
        gains = [1.500, 1.4999, 1.498, 1.0]

        found = choose(ladder(gains), 10.0, curve(), Context(total_steps=50), 50)

        assert 10 ** (-2.5 / PER_DECADE) < found.lr < 10 ** (-1.4 / PER_DECADE)

    def test_the_reason_says_which_scored_best_and_why_a_lower_lr_was_taken(self):
        tied = choose(ladder([1.500, 1.4999, 1.49, 1.0]), 10.0, curve(), CONTEXT, 50).reason
        plain = choose(ladder([0.1, 1.0, 0.1]), 10.0, curve(), CONTEXT, 50).reason

        assert tied.endswith(
            "; of 4 short trainings of 50 steps 1.0e+00 scored best, 2.2e-01 gained 99% as much at a lower lr"
        )
        assert plain.endswith("; of 3 short trainings of 50 steps 4.6e-01 scored best")

    def test_the_reason_says_that_the_best_score_was_of_an_unsteady_training(self):
        reason = choose(ladder([1.0, 0.9, 0.89, 0.1], unsteady=[0]), 10.0, curve(), CONTEXT, 50).reason

        assert reason.endswith(
            "1.0e+00 scored best, but its loss rose on the way, 4.6e-01 scored best of the steady ones, "
            "2.2e-01 gained 99% as much at a lower lr"
        )

    @given(
        gains=st.lists(st.floats(0.01, 1.0) | st.just(-math.inf), min_size=1, max_size=4),
        unsteady=st.sets(st.integers(-3, 0)),
        top=st.sampled_from([0.1, 1.0, 100.0]),
        total_steps=st.sampled_from([None, 50, 220, 1_000, 50_000]),
    )
    @settings(max_examples=200, deadline=None)
    def test_the_numbers_of_the_reason_multiply_to_the_lr(self, gains, unsteady, top, total_steps):
        try:
            found = choose(ladder(gains, unsteady=unsteady), top, curve(), Context(total_steps=total_steps), 50)
        except NoSuggestionError:
            return

        low, high = product_in(found.reason)
        assert low <= found.lr <= high, found.reason

    def test_stays_below_an_unsteady_lr_and_is_not_pulled_by_it(self):
        context = Context(total_steps=50)

        steady = choose(ladder([1.0, 0.9, 0.1]), 10.0, curve(), context, 50)
        unsteady = choose(ladder([1.0, 0.9, 0.1], unsteady=[0]), 10.0, curve(), context, 50)
        far = choose(ladder([1.0, 0.1, 0.9, 0.1], unsteady=[0]), 10.0, curve(), context, 50)

        assert steady.lr == pytest.approx(1.0)
        assert unsteady.lr == pytest.approx(1.0 / BELOW_UNSTEADY)
        assert far.lr == pytest.approx(10 ** (-2 / PER_DECADE))

    @pytest.mark.parametrize("scale", [1e-6, 1e6])
    @pytest.mark.parametrize("offset", [-10.0, 10.0])
    def test_scale_and_offset_of_the_loss_do_not_matter(self, scale, offset):
        one = refine(valley(0.05), 2.0, curve(), CONTEXT, 50)
        two = refine(valley(0.05, scale=scale, offset=scale * offset), scale * (2.0 + offset), curve(), CONTEXT, 50)

        assert two.suggestion.lr == pytest.approx(one.suggestion.lr, rel=1e-6)

    @given(gains=st.lists(st.floats(0.01, 1.0), min_size=1, max_size=4), rises=st.lists(st.floats(0, 2), min_size=4))
    @settings(max_examples=100, deadline=None)
    def test_the_numbers_of_the_reason_multiply_where_a_rise_paid(self, gains, rises):
        tried = {k: each._replace(steady=k < -1, rise=rises[-k]) for k, each in ladder(gains).items()}
        found = choose(tried, 1.0, curve(), Context(total_steps=220), 50)

        low, high = product_in(found.reason)
        assert low <= found.lr <= high, found.reason

    def test_says_what_is_missing(self):
        with pytest.raises(NoSuggestionError, match="no short training lowered the loss"):
            choose(ladder([-1.0, -math.inf]), 1.0, curve(), CONTEXT, 50)


def setup(device):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 1)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    inputs = torch.randn(256, 4)
    data = torch.utils.data.TensorDataset(inputs, inputs.sum(1, keepdim=True))
    return model, optimizer, torch.utils.data.DataLoader(data, batch_size=32, shuffle=True)


def train(model, optimizer, loader, device):
    losses = []
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(inputs.to(device)), targets.to(device))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


OPTIONS = {"start_lr": 1e-4, "end_lr": 100.0, "num_iter": 30, "total_steps": 40, "refine": True, "progress": False}


class TestFind:
    def test_find_then_train_equals_train(self, device):
        model, optimizer, loader = setup(device)
        expected = train(model, optimizer, loader, device)

        model, optimizer, loader = setup(device)
        before = {**Fingerprint(model=model, optimizer=optimizer, loader=loader).values, **process_state()}
        result = LRFinder(model, optimizer, nn.MSELoss()).find(loader, **OPTIONS)

        after = {**Fingerprint(model=model, optimizer=optimizer, loader=loader).values, **process_state()}
        assert not differences(before, after)
        assert result.suggestion.rule == "refine"
        assert train(model, optimizer, loader, device) == expected

    def test_the_same_find_twice_gives_the_same_scores(self, device):
        model, optimizer, loader = setup(device)
        finder = LRFinder(model, optimizer, nn.MSELoss())

        assert finder.find(loader, **OPTIONS).probes == finder.find(loader, **OPTIONS).probes

    @pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
    @pytest.mark.parametrize("place", [31, 40, 75])  # in the first probe, at its end, in a later one
    def test_a_fault_loses_nothing(self, device, kind, place):
        model, optimizer, loader = setup(device)
        expected = train(model, optimizer, loader, device)
        model, optimizer, loader = setup(device)
        calls = Notes()

        def criterion(outputs, targets):
            if model.training:
                calls.append(1)
            if len(calls) == place:
                raise kind("fault")
            return nn.functional.mse_loss(outputs, targets)

        finder = LRFinder(model, optimizer, criterion)
        with pytest.raises(kind, match="fault"):
            finder.find(loader, **OPTIONS)

        assert len(finder.partial.losses) > 5  # the sweep's
        assert train(model, optimizer, loader, device) == expected

    def test_a_users_step_is_scored_on_its_last_losses(self, device):
        model, optimizer, loader = setup(device)

        def step(batch):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(batch[0]), batch[1])
            loss.backward()
            optimizer.step()
            return loss.detach()

        result = LRFinder(model, optimizer, step=step).find(loader, **OPTIONS)

        assert result.suggestion.rule == "refine"
        assert all(lr > 0 for lr, _ in result.probes)

    @pytest.mark.parametrize(("samples", "told"), [(256, True), (4096, False)])  # 8 and 128 batches, 40 steps a probe
    def test_batches_are_reused_where_the_loader_is_shorter_than_a_short_training(self, device, samples, told):
        model, optimizer, _ = setup(device)
        torch.manual_seed(0)
        inputs = torch.randn(samples, 4)
        data = torch.utils.data.TensorDataset(inputs, inputs.sum(1, keepdim=True))
        loader = torch.utils.data.DataLoader(data, batch_size=32, shuffle=True)
        seen = []

        def spy(*arguments, **options):
            found = refine(*arguments, **options)
            seen.append(options["reused_batches"]())
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lrfinder.search.refine", spy)
            LRFinder(model, optimizer, nn.MSELoss()).find(loader, **OPTIONS)
            LRFinder(model, optimizer, nn.MSELoss()).find(loader, val_loader=loader, **OPTIONS)

        assert seen == [told, False]

    @pytest.mark.parametrize("schedule", ["cosine", "plateau", "lambda", "cyclic"])
    def test_every_schedule_fits_into_a_short_training(self, device, schedule):
        model, optimizer, loader = setup(device)

        result = LRFinder(model, optimizer, nn.MSELoss()).find(loader, schedule=schedule, **OPTIONS)

        assert result.refined is not None

    def test_an_iterator_is_refused(self, device):
        model, optimizer, loader = setup(device)

        with pytest.raises(ArgumentError, match=r"refine=True.*started again.*got the iterator"):
            LRFinder(model, optimizer, nn.MSELoss()).find(iter(loader), **OPTIONS)

    def test_short_trainings_are_printed_and_saved(self, device, tmp_path):
        model, optimizer, loader = setup(device)
        result = LRFinder(model, optimizer, nn.MSELoss()).find(loader, **OPTIONS)

        result.save(tmp_path / "result.json")

        assert type(result).load(tmp_path / "result.json").probes == result.probes
        assert str(result).count("   loss ") == len(result.probes)
        assert result.scheduler("one_cycle").total_steps == 40
