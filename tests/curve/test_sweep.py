import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrfinder.curve.stop_rule import StopReason, StopRule
from lrfinder.curve.sweep import Sweep, grid
from lrfinder.errors import ArgumentError

laws = settings(max_examples=60, deadline=None)
RULE = StopRule()


def drive(sweep, losses, lag=0):
    """Tell scripted losses, each `lag` steps after it was asked for; return what was asked and which were kept."""
    asked, kept, told = [], [], 0
    while (lr := sweep.ask()) is not None:
        asked.append(lr)
        if len(asked) > lag:
            kept.append(sweep.tell(losses[told]))
            told += 1
    while told < len(asked):
        kept.append(sweep.tell(losses[told]))
        told += 1
    return asked, kept


def explosion(num_points=100, at=60, noise=0.02, seed=0):
    """Plateau at 2.3, fall to 0.5, blow-up from `at` on."""
    x = np.arange(num_points)
    losses = 0.5 + 1.8 / (1 + np.exp((x - 0.6 * at) / 4)) + noise * np.random.default_rng(seed).normal(size=num_points)
    return losses + np.where(x > at, np.expm1(0.5 * (x - at)), 0)


class TestGrid:
    def test_both_ends_are_exact(self):
        for mode in ("exponential", "linear"):
            rates = grid(3e-7, 0.7, 101, mode)
            assert (rates[0], rates[-1], rates.shape, rates.dtype) == (3e-7, 0.7, (101,), np.float64)

    def test_spacing(self):
        exponential, linear = grid(1e-6, 1.0, 61), grid(0.1, 1.0, 10, "linear")
        np.testing.assert_allclose(exponential[1:] / exponential[:-1], 10**0.1)
        np.testing.assert_allclose(linear, 0.1 * np.arange(1, 11))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((0.0, 1.0, 9), r"start_lr must be a positive finite number, got start_lr=0.0; try"),
            ((-1e-3, 1.0, 9), r"got start_lr=-0.001"),
            ((math.nan, 1.0, 9), r"got start_lr=nan"),
            ((1e-3, math.inf, 9), r"end_lr must be a positive finite number, got end_lr=inf"),
            ((1.0, 1e-3, 9), r"end_lr must exceed start_lr=1.0, got end_lr=0.001; swap them"),
            ((1.0, 1.0, 9), r"end_lr must exceed start_lr=1.0, got end_lr=1.0"),
            ((1e-3, 1.0, 4), r"too few points: num_iter must be at least 5, got num_iter=4; 100 is usual"),
            ((1e-3, 1.0, 9, "cosine"), r"mode must be one of exponential, linear, got mode='cosine'"),
            ((1.0, 1.0 + 1e-15, 99), r"end_lr is too close to start_lr=1.0"),
        ],
    )
    def test_bad_input(self, arguments, message):
        with pytest.raises(ArgumentError, match=message):
            grid(*arguments)


class TestAlignment:
    @pytest.mark.parametrize("lag", [0, 1, 3, 8])
    def test_each_loss_belongs_to_its_lr_and_losses_after_the_stop_are_dropped(self, lag):
        # high from index 31 on; the rule needs 15% of the grid, so 31 + 15 - 1 is the last point
        rates, losses = grid(1e-5, 1.0, 100), [1.0, 1.1] * 15 + [0.9] + [50.0 + i for i in range(69)]
        sweep = Sweep(rates)
        asked, kept = drive(sweep, losses, lag)
        assert sweep.stop_reason is StopReason.DIVERGED
        assert sweep.indices.tolist() == list(range(46))
        assert sweep.losses.tolist() == losses[:46]
        assert sweep.lrs.tolist() == rates[:46].tolist()
        assert [sweep.point(i) for i in range(sweep.num_points)] == list(zip(rates[:46], losses[:46], strict=True))
        assert sweep.stop_lr == rates[45]
        assert kept == [True] * 46 + [False] * lag
        assert asked == rates[: 46 + lag].tolist()

    @pytest.mark.parametrize("lag", [0, 2, 7])
    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_a_nonfinite_loss_ends_the_sweep_at_once_and_is_not_a_point(self, bad, lag):
        rates = grid(1e-5, 1.0, 30)
        losses = [2.0] * 10 + [bad] + [1.0] * 19
        sweep = Sweep(rates, None)
        _, kept = drive(sweep, losses, lag)
        assert sweep.stop_reason is StopReason.NONFINITE
        assert sweep.stop_lr == rates[10]
        assert sweep.losses.tolist() == [2.0] * 10
        assert kept == [True] * 10 + [False] * (1 + lag)

    @pytest.mark.parametrize("lag", [0, 5, 30])
    def test_the_whole_grid(self, lag):
        rates = grid(1e-5, 1.0, 20)
        sweep = Sweep(rates)
        _, kept = drive(sweep, [1.0 - 0.01 * i for i in range(20)], lag)
        assert sweep.stop_reason is StopReason.FINISHED
        assert sweep.done
        assert kept == [True] * 20
        assert sweep.lrs.tolist() == rates.tolist()
        assert sweep.stop_lr is None

    def test_a_sweep_is_finished_only_with_the_last_loss(self):
        sweep = Sweep(grid(1e-5, 1.0, 5))
        assert [sweep.ask() for _ in range(6)][-1] is None
        for _ in range(4):
            sweep.tell(1.0)
            assert not sweep.done
        sweep.tell(1.0)
        assert sweep.stop_reason is StopReason.FINISHED

    def test_telling_more_than_was_asked(self):
        sweep = Sweep(grid(1e-5, 1.0, 5))
        with pytest.raises(RuntimeError, match=r"Sweep.tell\(\) without a step that waits .* call ask\(\) first"):
            sweep.tell(1.0)
        with pytest.raises(RuntimeError, match=r"Sweep.skip\(\) without a step"):
            sweep.skip()


class TestGapsAndEnds:
    def test_a_skipped_step_keeps_its_place_in_the_grid(self):
        rates = grid(1e-5, 1.0, 6)
        sweep = Sweep(rates)
        for i in range(6):
            sweep.ask()
            sweep.skip() if i in {2, 3, 5} else sweep.tell(float(i))
        assert sweep.indices.tolist() == [0, 1, 4]
        assert sweep.losses.tolist() == [0, 1, 4]
        assert sweep.lrs.tolist() == rates[[0, 1, 4]].tolist()
        assert sweep.stop_reason is StopReason.FINISHED

    def test_five_skips_in_a_row_after_the_first_point_are_divergence(self):
        rates = grid(1e-5, 1.0, 40)
        sweep = Sweep(rates)
        script = "s" * 7 + "t" + "ssss" + "t" + "sssss"
        for i, what in enumerate(script):
            assert not sweep.done, i
            sweep.ask()
            sweep.skip() if what == "s" else sweep.tell(1.0)
        assert sweep.stop_reason is StopReason.DIVERGED
        assert sweep.stop_lr == rates[len(script) - 1]
        assert sweep.indices.tolist() == [7, 12]

    def test_retry_gives_the_first_lr_again(self):
        sweep = Sweep([1.0, 2.0, 3.0])
        for _ in range(3):
            assert sweep.ask() == 1.0
            sweep.retry()
        assert [sweep.ask(), sweep.ask()] == [1.0, 2.0]
        sweep.tell(7.0)
        assert sweep.indices.tolist() == [0]
        with pytest.raises(RuntimeError, match=r"retry\(\) is for the first learning rate"):
            sweep.retry()

    def test_an_ended_loader_keeps_what_was_asked_for(self):
        sweep = Sweep(grid(1e-5, 1.0, 10))
        for _ in range(4):
            sweep.ask()
        sweep.tell(1.0)
        sweep.exhaust()
        assert sweep.stop_reason is StopReason.EXHAUSTED
        assert sweep.ask() is None
        assert [sweep.tell(1.0), sweep.tell(1.0), sweep.tell(1.0)] == [True] * 3
        assert sweep.losses.tolist() == [1.0] * 4
        assert sweep.stop_reason is StopReason.EXHAUSTED

    def test_a_nonfinite_loss_after_the_loaders_end_is_what_counts(self):
        sweep = Sweep(grid(1e-5, 1.0, 10))
        sweep.ask()
        sweep.exhaust()
        sweep.tell(math.nan)
        assert sweep.stop_reason is StopReason.NONFINITE

    def test_a_loader_that_ends_with_the_grid_finishes_it(self):
        sweep = Sweep(grid(1e-5, 1.0, 5))
        drive(sweep, [1.0] * 5)
        sweep.exhaust()
        assert sweep.stop_reason is StopReason.FINISHED

    def test_each_stop_reason_has_a_cause_and_a_remedy(self):
        for reason in StopReason:
            assert reason.value == reason.name.lower()
            cause, remedy = reason.explanation.split(". ", maxsplit=1)
            assert cause
            assert remedy.endswith(".")

    @pytest.mark.parametrize("lrs", [[1.0, 1.0], [2.0, 1.0], [0.0, 1.0], [1.0, math.nan], [[1.0, 2.0]]])
    def test_lrs_that_do_not_increase_or_are_not_positive_are_an_error(self, lrs):
        with pytest.raises(ArgumentError, match=r"lrs must be .* got lrs="):
            Sweep(lrs)


class TestStopRule:
    def last(self, losses, rule=RULE):
        """Return the index at which the sweep stopped, None if it did not."""
        sweep = Sweep(np.geomspace(1e-5, 10, len(losses)), rule)
        drive(sweep, list(losses))
        return int(sweep.indices[-1]) if sweep.stop_reason is StopReason.DIVERGED else None

    def slow(self, losses, rule=RULE):
        """The same, word by word as `StopRule` has it, from all losses again at each point."""
        high = [False] * len(losses)
        needed = rule.steps(len(losses))
        for i in range(rule.warmup, len(losses)):
            low = [j for j in range(i) if not high[j]]
            ends = [j for j in low if j >= rule.warmup - 1]
            floor, lowest = min((np.median(losses[j - rule.warmup + 1 : j + 1]), j) for j in ends)
            until = max(lowest, math.ceil(rule.noise_share * len(losses)) - 1)
            start = np.median(losses[: rule.warmup])
            changes = [abs(losses[j] - losses[j - 1]) for j in low if 0 < j <= until and losses[j] != losses[j - 1]]
            rise = max(rule.return_share * (start - floor), rule.noise_factor * np.mean(changes) if changes else np.inf)
            high[i] = losses[i] > floor + (1 + 1e-9) * rise
            if all(high[max(i - needed + 1, 0) : i + 1]):
                return i
        return None

    @laws
    @given(
        st.lists(st.integers(-9, 9).map(float), min_size=6, max_size=20),
        st.lists(st.floats(-9, 9).map(lambda x: round(x, 3)), max_size=20),
        st.sampled_from([0, 20, 50, 100]),
    )
    def test_it_stops_where_its_definition_says(self, losses, more, rise):
        losses = np.array([*losses, *(rise + loss for loss in more)])
        assert self.last(losses) == self.slow(losses)

    def test_an_explosion_stops_it_soon_after(self):
        for seed in range(20):
            assert 74 <= self.last(explosion(at=60, seed=seed)) <= 80

    def test_an_explosion_without_a_fall_stops_it(self):
        rng = np.random.default_rng(0)
        losses = 0.3 + 0.05 * rng.normal(size=100)
        losses[60:] += 0.05 * 1.4 ** np.arange(40)
        assert 70 <= self.last(losses) <= 90

    @pytest.mark.parametrize("seed", range(10))
    def test_noise_in_proportion_to_the_loss_hides_no_divergence(self, seed):
        # The mean squared error of four samples: its standard deviation is 0.7 times its mean.
        level = np.concatenate([np.full(50, 1.0), 1.25 ** np.arange(50)])
        losses = level * (np.random.default_rng(seed).normal(size=(100, 4)) ** 2).mean(axis=1)
        assert 65 <= self.last(losses) <= 95

    def test_units_that_died_after_a_fall_stop_it(self):
        losses = np.concatenate([np.full(40, 2.3), np.linspace(2.3, 0.4, 20), np.full(40, 2.3)])
        assert self.last(losses + 0.03 * np.random.default_rng(0).normal(size=100)) == 74

    @pytest.mark.parametrize("scale", [1e-300, 1e-6, 1e6, 3e307])
    def test_losses_of_any_size(self, scale):
        losses = np.concatenate([np.full(40, 2.3), np.linspace(2.3, 0.4, 20), np.full(40, 2.3)])
        losses += 0.03 * np.random.default_rng(0).normal(size=100)
        assert self.last(scale * losses) == self.last(losses) == 74

    def test_negative_losses(self):
        assert self.last(explosion() - 100) == self.last(explosion())

    def test_pure_noise_hardly_ever_stops_it(self):
        rng = np.random.default_rng(0)
        for noise in (rng.normal(size=(300, 100)), rng.exponential(size=(300, 100)), rng.standard_t(3, (300, 100))):
            assert sum(self.last(losses) is not None for losses in noise) == 0
        assert self.last(rng.normal(size=20_000)) is None

    def test_neither_a_fall_nor_a_constant_stops_it(self):
        assert self.last(np.linspace(3, -5, 100)) is None
        assert self.last(np.full(100, 0.7)) is None
        assert self.last(np.float32(2.302585) + np.float32(2e-7) * (np.arange(100) > 50)) is None  # a flipped last bit

    @laws
    @given(where=st.integers(5, 99), size=st.floats(0, 1e30), seed=st.integers(0, 99))
    def test_one_noisy_batch_never_stops_it(self, where, size, seed):
        losses = 2 - np.linspace(0, 1, 100) + 0.1 * np.random.default_rng(seed).normal(size=100)
        losses[where] += size
        assert self.last(losses) is None

    @laws
    @given(seed=st.integers(0, 999), shift=st.floats(-1e3, 1e3), scale=st.floats(1e-3, 1e3), noise=st.floats(1e-3, 1))
    def test_it_does_not_depend_on_offset_or_scale(self, seed, shift, scale, noise):
        losses = explosion(at=40 + seed % 50, noise=noise, seed=seed)
        assert self.last(scale * losses + shift) == self.last(losses)

    @laws
    @given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=60))
    def test_no_losses_break_it(self, losses):
        sweep = Sweep(np.geomspace(1e-6, 1, len(losses)))
        drive(sweep, losses)
        assert sweep.done
        assert np.all(np.isfinite(sweep.losses))
        assert len(sweep.losses) == len(sweep.lrs) == len(sweep.indices)

    def test_patience_is_a_share_of_the_grid(self):
        assert [StopRule().steps(n) for n in (5, 30, 100, 1000)] == [3, 5, 15, 150]
        assert StopRule(patience=7, patience_share=0.0).steps(1000) == 7

    def test_a_long_sweep_takes_each_loss_in_constant_time(self):
        sweep = Sweep(np.geomspace(1e-6, 1, 100_000))
        drive(sweep, np.random.default_rng(0).normal(size=100_000).tolist(), lag=8)
        assert len(sweep.losses) == 100_000
