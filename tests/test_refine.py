"""Refining: the ladder, the choice, and that it leaves nothing behind."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from lrfinder import ArgumentError, LRFinder, NoSuggestionError
from lrfinder.curve import Context, Curve
from lrfinder.refine import BELOW_DIVERGENCE, BUDGET, MOST_PROBES, PER_DECADE, RUNGS_ABOVE, choose, probe_steps, refine
from lrfinder.suggest import suggest
from lrfinder.sweep import StopReason
from tests.fingerprint import Fingerprint, differences, process_state


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


def valley(best, *, floor=0.5, scale=1.0, offset=0.0):
    """Return a probe whose score is a parabola in the logarithm of the rate."""
    return lambda _, lr: offset + scale * (floor + 0.3 * math.log10(lr / best) ** 2)


CONTEXT = Context(total_steps=1000)


class TestProbeSteps:
    @pytest.mark.parametrize("total_steps", [1, 30, 100, 1_000, 10_000, 100_000])
    def test_stays_in_the_budget(self, total_steps):
        steps = probe_steps(total_steps)

        assert 1 <= steps <= total_steps
        assert steps * MOST_PROBES <= max(BUDGET, total_steps / 20) or steps == total_steps


class TestRefine:
    def test_goes_down_from_above_the_curves_own_rate_in_equal_ratios(self):
        refined = refine(valley(1e-3), 2.0, curve(), CONTEXT, 50)

        lrs = [lr for lr, _ in refined.probes]
        assert lrs[RUNGS_ABOVE] == pytest.approx(suggest("auto", curve(), CONTEXT).lr)
        assert np.allclose(np.array(lrs[:-1]) / np.array(lrs[1:]), 10 ** (1 / PER_DECADE))

    def test_stops_once_it_clearly_gets_worse(self):
        near = refine(valley(0.5), 2.0, curve(), CONTEXT, 50)
        far = refine(valley(0.01), 2.0, curve(), CONTEXT, 50)

        assert len(near.probes) < len(far.probes) <= MOST_PROBES

    def test_a_blow_up_is_no_end(self):
        refined = refine(lambda i, lr: math.inf if i < 3 else valley(0.05)(i, lr), 2.0, curve(), CONTEXT, 50)

        assert refined.suggestion is not None
        assert refined.suggestion.lr < 0.05 * 10**0.5

    def test_without_any_gain_there_is_no_suggestion(self):
        refined = refine(lambda _, lr: 3.0, 2.0, curve(), CONTEXT, 50)

        assert refined.suggestion is None
        assert len(refined.probes) == MOST_PROBES


class TestSeenBatches:
    """Where the short trainings saw what scores them, memorizing looks like learning."""

    def test_never_raise_the_curves_own_rate(self):
        own = suggest("auto", curve(), CONTEXT).lr
        higher = valley(own * 5)

        assert refine(higher, 2.0, curve(), CONTEXT, 50).suggestion.lr > own
        kept = refine(higher, 2.0, curve(), CONTEXT, 50, seen=lambda: True).suggestion
        assert kept.lr == own
        assert kept.rule == "refine"
        assert "pass a val_loader" in kept.reason

    def test_may_lower_it(self):
        own = suggest("auto", curve(), CONTEXT).lr
        lower = valley(own / 3)

        seen = refine(lower, 2.0, curve(), CONTEXT, 50, seen=lambda: True).suggestion

        assert seen.lr < own
        assert seen.lr == refine(lower, 2.0, curve(), CONTEXT, 50).suggestion.lr


class TestChoose:
    def test_recovers_the_vertex_without_a_horizon(self):
        found = refine(valley(0.05), 2.0, curve(), Context(total_steps=50), 50).suggestion

        # The lowest rate that ties with the best one is chosen, never a larger one.
        assert 0.05 / 10 ** (1 / PER_DECADE) <= found.lr <= 0.05 * 1.05

    def test_a_longer_training_gets_a_smaller_rate(self):
        rates = [
            refine(valley(0.05), 2.0, curve(), Context(total_steps=total), 50).suggestion.lr
            for total in (50, 500, 5000)
        ]

        assert rates[0] > rates[1] > rates[2]

    def test_stays_below_divergence(self):
        probes = tuple((1.0 / 10**k, 0.1 + k) for k in range(4))

        assert choose(probes, 5.0, 1.0, curve(), Context(total_steps=50), 50).lr <= 1 / BELOW_DIVERGENCE

    def test_of_equal_scores_the_lowest_rate_wins(self):
        probes = ((1.0, 0.500), (0.3, 0.5001), (0.1, 0.502), (0.03, 1.0))

        found = choose(probes, 2.0, 10.0, curve(), Context(total_steps=50), 50)

        assert 0.05 < found.lr < 0.2

    @pytest.mark.parametrize("scale", [1e-6, 1e6])
    @pytest.mark.parametrize("offset", [-10.0, 10.0])
    def test_scale_and_offset_of_the_loss_do_not_matter(self, scale, offset):
        one = refine(valley(0.05), 2.0, curve(), CONTEXT, 50)
        two = refine(valley(0.05, scale=scale, offset=scale * offset), scale * (2.0 + offset), curve(), CONTEXT, 50)

        assert two.suggestion.lr == pytest.approx(one.suggestion.lr, rel=1e-6)

    def test_says_what_is_missing(self):
        with pytest.raises(NoSuggestionError, match="no short training lowered the loss"):
            choose(((1.0, 3.0), (0.1, math.inf)), 2.0, 1.0, curve(), CONTEXT, 50)


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

    def test_twice_is_the_same(self, device):
        model, optimizer, loader = setup(device)
        finder = LRFinder(model, optimizer, nn.MSELoss())

        assert finder.find(loader, **OPTIONS).probes == finder.find(loader, **OPTIONS).probes

    @pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
    @pytest.mark.parametrize("place", [31, 40, 75])  # in the first probe, at its end, in a later one
    def test_a_fault_loses_nothing(self, device, kind, place):
        model, optimizer, loader = setup(device)
        expected = train(model, optimizer, loader, device)
        model, optimizer, loader = setup(device)
        calls = 0

        def criterion(outputs, targets):
            nonlocal calls
            calls += model.training
            if calls == place:
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
    def test_a_loader_shorter_than_a_probe_is_noticed(self, device, samples, told):
        model, optimizer, _ = setup(device)
        torch.manual_seed(0)
        inputs = torch.randn(samples, 4)
        data = torch.utils.data.TensorDataset(inputs, inputs.sum(1, keepdim=True))
        loader = torch.utils.data.DataLoader(data, batch_size=32, shuffle=True)
        seen = []

        def spy(*arguments, **options):
            found = refine(*arguments, **options)
            seen.append(options["seen"]())
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lrfinder.search.refine", spy)
            LRFinder(model, optimizer, nn.MSELoss()).find(loader, **OPTIONS)
            LRFinder(model, optimizer, nn.MSELoss()).find(loader, val_loader=loader, **OPTIONS)

        assert seen == [told, False]

    @pytest.mark.parametrize("schedule", ["cosine", "plateau", "lambda", "cyclic"])
    def test_every_schedule_can_be_squeezed(self, device, schedule):
        model, optimizer, loader = setup(device)

        result = LRFinder(model, optimizer, nn.MSELoss()).find(loader, schedule=schedule, **OPTIONS)

        assert result.refined is not None

    def test_an_iterator_is_refused(self, device):
        model, optimizer, loader = setup(device)

        with pytest.raises(ArgumentError, match=r"refine=True.*started again.*got the iterator"):
            LRFinder(model, optimizer, nn.MSELoss()).find(iter(loader), **OPTIONS)

    def test_probes_are_shown_and_kept(self, device, tmp_path):
        model, optimizer, loader = setup(device)
        result = LRFinder(model, optimizer, nn.MSELoss()).find(loader, **OPTIONS)

        result.save(tmp_path / "result.json")

        assert type(result).load(tmp_path / "result.json").probes == result.probes
        assert str(result).count("\n  probe ") == len(result.probes)
        assert result.scheduler("one_cycle").total_steps == 40
