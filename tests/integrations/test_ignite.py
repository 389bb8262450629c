"""Ignite through `step=`: the README's recipe, and what it promises."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

pytest.importorskip("ignite", reason="the tests of the recipe need pytorch-ignite")

from ignite.engine import Engine, Events, supervised_training_step, supervised_training_step_amp
from ignite.handlers import EMAHandler

from lrfinder import LRFinder
from tests.fingerprint import Fingerprint, bits, differences, process_state

pytestmark = pytest.mark.filterwarnings(
    "ignore::lrfinder.LRFinderWarning"
)  # what the curves of tiny problems look like

FIND = {"start_lr": 1e-4, "end_lr": 10.0, "num_iter": 30, "progress": False}


def parts():
    torch.manual_seed(0)
    x = torch.randn(128, 4)
    loader = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=16, shuffle=True)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 1))
    return model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9), loader


def own_update(model, optimizer):
    """Return an update that returns more than the loss, and clips."""

    def update(engine, batch):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(batch[0]), batch[1])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return {"loss": loss.item(), "size": len(batch[0])}

    return update


def count(trainer):
    """Return the list that each iteration's number will be added to."""
    events = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: events.append(engine.state.iteration))
    return events


def outcome(model, trainer):
    return {name: bits(tensor) for name, tensor in model.state_dict().items()} | {
        "iteration": trainer.state.iteration,
        "output": str(trainer.state.output),
        "random": float(torch.rand(())),
    }


@pytest.mark.parametrize("kind", ["supervised", "own"])
@pytest.mark.parametrize("fault", [False, True])
def test_a_run_after_a_find_is_the_run_without_it(kind, fault):
    outcomes = []
    for finds in (False, True):
        model, optimizer, loader = parts()
        if kind == "own":
            update = own_update(model, optimizer)
        else:
            update = supervised_training_step(model, optimizer, nn.MSELoss())
        trainer = Engine(update)
        events = count(trainer)
        if finds:
            find(model, optimizer, loader, trainer, update, fault)
            assert not events
        trainer.run(loader, max_epochs=2)
        assert events == list(range(1, 17))
        outcomes.append(outcome(model, trainer))

    assert not differences(*outcomes)


def find(model, optimizer, loader, trainer, update, fault):
    calls = []

    def step(batch):
        calls.append(batch)
        loss = update(trainer, batch)
        if fault and len(calls) == 9:
            raise ValueError("the ninth")
        return loss["loss"] if isinstance(loss, dict) else loss

    objects = {"model": model, "optimizer": optimizer, "loader": loader, "trainer": trainer}
    before = Fingerprint(**objects).values | process_state()
    finder = LRFinder(model, optimizer, step=step)
    if fault:
        with pytest.raises(ValueError, match="the ninth"):
            finder.find(loader, **FIND)
        assert len(finder.partial.losses) == 8
    else:
        result = finder.find(loader, **FIND)
        assert 1e-3 < result.suggestion.lr < 10
    assert not differences(before, Fingerprint(**objects).values | process_state())


@pytest.mark.filterwarnings("ignore:CUDA is not available")  # Ignite's autocast is CUDA's
def test_a_scaler_and_an_average_are_handed_over():
    model, optimizer, loader = parts()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    update = supervised_training_step_amp(model, optimizer, nn.MSELoss(), device="cpu", scaler=scaler)
    trainer = Engine(update)
    average = EMAHandler(model, momentum=0.1)

    def step(batch):
        loss = update(trainer, batch)
        average.ema_model[0].weight.data.lerp_(model[0].weight.data, 0.1)
        return loss

    before = Fingerprint(model=model, optimizer=optimizer, scaler=scaler, ema=average.ema_model).values
    finder = LRFinder(model, optimizer, step=step, extra_state=[scaler, average.ema_model])
    result = finder.find(loader, **FIND)

    assert len(result.losses) >= 10
    assert not differences(
        before, Fingerprint(model=model, optimizer=optimizer, scaler=scaler, ema=average.ema_model).values
    )


def test_the_curve_is_the_one_of_the_finders_own_step():
    model, optimizer, loader = parts()
    update = supervised_training_step(model, optimizer, nn.MSELoss())
    theirs = LRFinder(model, optimizer, step=lambda batch: update(Engine(update), batch)).find(loader, **FIND)
    ours = LRFinder(model, optimizer, nn.MSELoss()).find(loader, **FIND)

    assert theirs.losses.tolist() == ours.losses.tolist()
    assert theirs.suggestion == ours.suggestion
