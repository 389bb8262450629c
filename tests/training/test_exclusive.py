import threading

import pytest
import torch
from torch import nn

from lrfinder import LRFinder, LRFinderError
from lrfinder.training.exclusive import use_exclusively

pytestmark = pytest.mark.filterwarnings("ignore::lrfinder.LRFinderWarning")
RANGE = {"start_lr": 1e-4, "end_lr": 1.0, "num_iter": 8, "progress": False}
LIMIT = 60  # seconds that a thread may take


def setup():
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def batches():
    return [(x, x.sum(1, keepdim=True)) for x in torch.ones(3, 8, 4)]


def bits(model):
    return [parameter.detach().clone() for parameter in model.parameters()]


def in_thread(function):
    """Run a function in a thread and return what it raised, or None."""
    raised = []

    def run():
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - returned to the test
            raised.append(error)

    thread = threading.Thread(target=run, name="worker")
    thread.start()
    thread.join(LIMIT)
    assert not thread.is_alive()
    return raised[0] if raised else None


def test_objects_are_free_again_after_the_context():
    first, second = object(), object()
    with use_exclusively([first]):
        message = "already running on this model or optimizer, in thread 'MainThread'"
        with pytest.raises(LRFinderError, match=message), use_exclusively([second, first]):
            pass
        with use_exclusively([second]):  # what was refused holds nothing
            pass
    with use_exclusively([first, second]):
        pass


@pytest.mark.parametrize("other_finder", [False, True])
def test_a_find_within_a_find_on_the_same_model_is_refused_and_nothing_is_lost(other_finder):
    model, optimizer = setup()
    finder = LRFinder(model, optimizer, nn.MSELoss())
    inner = LRFinder(model, optimizer, nn.MSELoss()) if other_finder else finder
    before = bits(model)
    with pytest.raises(LRFinderError, match="already running"):
        finder.find(batches(), on_step=lambda *_: inner.find(batches(), **RANGE), **RANGE)
    assert all(map(torch.equal, before, bits(model)))
    assert len(finder.partial.lrs) == 1
    assert len(finder.find(batches(), **RANGE).lrs) > 1


def test_a_find_in_another_thread_on_the_same_model_is_refused():
    model, optimizer = setup()
    errors = []

    def on_step(*_):
        if not errors:
            errors.append(in_thread(lambda: LRFinder(model, optimizer, nn.MSELoss()).find(batches(), **RANGE)))

    result = LRFinder(model, optimizer, nn.MSELoss()).find(batches(), on_step=on_step, **RANGE)
    assert len(result.lrs) > 1
    assert "already running on this model or optimizer, in thread 'MainThread'" in str(errors[0])


def test_an_unrelated_training_in_another_thread_goes_on():
    model, optimizer = setup()
    other, its_optimizer = setup()
    errors = []

    def train_other():
        for inputs, targets in batches():
            its_optimizer.zero_grad()
            nn.functional.mse_loss(other(inputs), targets).backward()
            its_optimizer.step()

    before = bits(other)
    LRFinder(model, optimizer, nn.MSELoss()).find(
        batches(), on_step=lambda *_: errors.append(in_thread(train_other)), **RANGE
    )
    assert set(errors) == {None}
    assert not all(map(torch.equal, before, bits(other)))


def test_an_unknown_optimizer_of_the_same_parameters_is_stopped_in_another_thread_too():
    model, optimizer = setup()
    second = torch.optim.Adam(model.parameters())
    errors = []
    finder = LRFinder(model, optimizer, nn.MSELoss())
    finder.find(batches(), on_step=lambda *_: errors.append(in_thread(second.step)), **RANGE)
    assert all("its state was not captured" in str(error) for error in errors)


def test_two_finds_on_different_models_run_side_by_side():
    (model, optimizer), (other, its_optimizer) = setup(), setup()
    results, errors = [], []

    def find_other():
        results.append(LRFinder(other, its_optimizer, nn.MSELoss()).find(batches(), **RANGE))

    def on_step(index, *_):
        if index == 0:
            errors.append(in_thread(find_other))

    results.append(LRFinder(model, optimizer, nn.MSELoss()).find(batches(), on_step=on_step, **RANGE))
    assert errors == [None]
    assert results[0].losses.tolist() == results[1].losses.tolist()
