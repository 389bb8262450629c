"""Batches that the user's code leaves out: None from the loader, None from loss_fn."""

from functools import partial

import pytest
import torch
from torch import nn

from lrfinder import ArgumentError, LRFinder
from lrfinder.curve import Sweep
from lrfinder.distributed import ALONE
from lrfinder.training import Batches, BatchLoss, LossQueue, TrainingStep, run_sweep
from lrfinder.training.loop import MAX_SKIPPED
from lrfinder.training.loss import SkippedBatchError
from lrfinder.training.validation import Validation
from tests.notes import Notes

GOOD = [(torch.full((4, 1), float(k)), torch.zeros(4, 1)) for k in (1, 2, 3)]
CPU = torch.device("cpu")


def linear():
    torch.manual_seed(0)
    return nn.Linear(1, 1)


def swept(batches, *, skip=None, accumulation_steps=1, points=5):
    """Run a sweep at learning rates that are all nearly 0; return its losses and the learning rates in their order."""
    model, written = linear(), []

    def loss_fn(model, batch):
        return None if skip(batch) else nn.functional.mse_loss(model(batch[0]), batch[1])

    ways = {"criterion": nn.MSELoss()} if skip is None else {"loss_fn": loss_fn}
    batch_loss = BatchLoss(model, **ways)
    step = TrainingStep(batch_loss, torch.optim.SGD(model.parameters(), lr=0.0), accumulation_steps=accumulation_steps)
    sweep = Sweep([1e-12 * (k + 1) for k in range(points)])
    run_sweep(sweep, written.append, step, Batches(batches), queue=LossQueue(points, CPU), ranks=ALONE)
    return sweep.losses, written


def test_a_batch_that_is_none_costs_no_point_and_no_learning_rate():
    losses, written = swept([None, GOOD[0], None, None, GOOD[1], GOOD[2]])
    expected, _ = swept(GOOD)
    assert losses == pytest.approx(expected)
    assert written == [1e-12 * (k + 1) for k in range(5)]


def test_a_loss_fn_that_returns_none_skips_the_batch():
    losses, _ = swept(GOOD, skip=lambda batch: batch[0][0] == 2)
    expected, _ = swept([GOOD[0], GOOD[2]])
    assert losses == pytest.approx(expected)


def test_of_several_micro_batches_the_mean_is_over_those_with_a_loss():
    losses, _ = swept([GOOD[0], None, GOOD[1], GOOD[2]], accumulation_steps=2)
    alone, _ = swept(GOOD)
    assert losses[:2] == pytest.approx([alone[0], (alone[1] + alone[2]) / 2])


def test_micro_batches_without_any_loss_take_no_step():
    losses, written = swept([None, None, GOOD[0], GOOD[1]], accumulation_steps=2)
    alone, _ = swept(GOOD)
    assert losses == pytest.approx([(alone[0] + alone[1]) / 2] * 5)
    assert len(written) == 5


@pytest.mark.parametrize("batches", [[None], [None, None, None]])
def test_batches_that_never_have_a_loss_end_in_an_error(batches):
    with pytest.raises(SkippedBatchError, match=r"cannot be skipped here, but the loader gave None; .* in the loader"):
        swept(batches)
    model = linear()
    finder = LRFinder(model, torch.optim.SGD(model.parameters(), lr=0.1), loss_fn=lambda model, batch: None)
    with pytest.raises(ArgumentError, match="but loss_fn returned None"):
        finder.find(GOOD, start_lr=1e-4, end_lr=1.0, num_iter=5, progress=False)
    assert MAX_SKIPPED == 1000  # as the message says


def test_validation_is_the_mean_over_the_batches_with_a_loss():
    model = linear()
    make = partial(Validation, BatchLoss(model, nn.MSELoss()))
    assert float(make([None, GOOD[0], None, GOOD[1], None])()) == pytest.approx(float(make(GOOD[:2])()))
    with pytest.raises(SkippedBatchError):
        make([None, None])()


@pytest.mark.filterwarnings("ignore::lrfinder.LRFinderWarning")
def test_a_user_step_is_given_none_as_it_is():
    model, seen = linear(), Notes()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(batch):
        seen.append(batch)
        optimizer.zero_grad()
        loss = model(torch.ones(1, 1)).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    LRFinder(model, optimizer, step=step).find([None], start_lr=1e-4, end_lr=1e-1, num_iter=8, progress=False)
    assert set(seen) == {None}


def test_several_ranks_refuse_to_skip():
    class Two:
        is_distributed = True

        def __getattr__(self, name):
            return getattr(ALONE, name)

    model = linear()
    step = TrainingStep(BatchLoss(model, nn.MSELoss()), torch.optim.SGD(model.parameters(), lr=0.1), ranks=Two())
    with pytest.raises(SkippedBatchError, match="in several processes all ranks need a loss"):
        run_sweep(
            Sweep([0.1, 0.2, 0.3, 0.4, 0.5]), lambda lr: None, step, Batches([None, *GOOD]),
            queue=LossQueue(5, CPU), ranks=Two(),
        )  # fmt: skip
