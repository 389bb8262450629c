"""The worked example of `integrations/base.py` keeps every promise of an integration."""

import doctest

import pytest
import torch

from lrfinder import NoSuggestionError
from lrfinder.integrations import base
from lrfinder.integrations.base import restored
from tests.fingerprint import Fingerprint, bits, differences, process_state

pytestmark = pytest.mark.filterwarnings("ignore::lrfinder.LRFinderWarning")

SWEEP = {"start_lr": 1e-4, "end_lr": 10.0, "num_iter": 12, "progress": False}


@pytest.fixture(scope="module")
def example():
    """Return the names that the example in the module's docstring defines."""
    names = dict(vars(base))
    for part in doctest.DocTestParser().get_examples(base.__doc__):
        if part.source.startswith(("import", "from", "class", "def")):
            exec(part.source, names)
    return names


def made(example):
    torch.manual_seed(0)
    return example["Coach"](torch.nn.Linear(4, 1), lr=0.1), list(torch.randn(20, 16, 4))


def outcome(coach, batches):
    losses = coach.fit(batches)
    return losses, [bits(p) for p in coach.net.parameters()], coach.seen


def test_the_adapter_has_twenty_lines(example):
    sources = [part.source for part in doctest.DocTestParser().get_examples(base.__doc__)]
    lines = "".join(source for source in sources if source.startswith(("class CoachStep", "def find_lr"))).splitlines()
    assert len(lines) <= 25


def test_find_then_fit_equals_fit(example):
    expected = outcome(*made(example))
    coach, batches = made(example)
    before, process = Fingerprint(coach=vars(coach)).values, process_state()

    result = example["find_lr"](coach, batches, **SWEEP)

    assert len(result.losses) > 5
    assert differences(before, Fingerprint(coach=vars(coach)).values) == []
    assert differences(process, process_state()) == []
    assert outcome(coach, batches) == expected


@pytest.mark.parametrize("error", [RuntimeError("in the middle"), KeyboardInterrupt()])
def test_a_fault_leaves_nothing_behind(example, error):
    expected = outcome(*made(example))
    coach, batches = made(example)

    def fail(module, inputs):
        if len(coach.seen) == 4:
            raise error

    handle = coach.net.register_forward_pre_hook(fail)
    with pytest.raises(type(error)):
        example["find_lr"](coach, batches, **SWEEP)
    handle.remove()
    assert coach.seen == []
    assert outcome(coach, batches) == expected


def test_applying_without_a_suggestion_is_an_error(example):
    coach, batches = made(example)
    with pytest.raises(NoSuggestionError):
        example["find_lr"](coach, batches, start_lr=1e-12, end_lr=1e-11, num_iter=8, apply=True, progress=False)
    assert coach.lr == 0.1


def test_what_getting_ready_changes_is_restored_after_an_error_too():
    class Trainer:
        def __init__(self):
            self.hooks, self.model = [1], torch.nn.Linear(1, 1)

    trainer = Trainer()
    before = Fingerprint(trainer=vars(trainer)).values

    def get_ready():
        with restored([trainer]):
            trainer.hooks.append(2)
            trainer.model.eval()
            trainer.optimizer = object()
            torch.rand(3)
            raise RuntimeError("meanwhile")

    with pytest.raises(RuntimeError, match="meanwhile"):
        get_ready()
    assert differences(before, Fingerprint(trainer=vars(trainer)).values) == []
