"""find(group=...): one parameter group is swept, the others train at their own lr."""

from unittest import mock

import matplotlib as mpl
import pytest
import torch
from torch import nn

from lrfinder import ArgumentError, Level, LRFinder, RangeTestResult
from lrfinder.display.plots import plot_curve
from tests.fingerprint import Fingerprint, differences, process_state
from tests.notes import Notes

mpl.use("Agg")
pytestmark = pytest.mark.filterwarnings("ignore::lrfinder.LRFinderWarning")
RANGE = {"start_lr": 1e-4, "end_lr": 10.0, "num_iter": 30, "progress": False}


class Setup:
    def __init__(self, body_lr=0.01, lr=None):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))
        groups = [
            {"params": self.model[0].parameters(), "lr": body_lr, "name": "body"},
            {"params": self.model[2].parameters(), "name": "head"},
        ]
        self.optimizer = torch.optim.SGD(groups, lr=0.1 if lr is None else lr, momentum=0.9)
        self.data = [(x, x.sum(1, keepdim=True)) for x in torch.randn(12, 8, 4)]
        self.seen = Notes()
        self.finder = LRFinder(self.model, self.optimizer, loss_fn=self.loss)

    def loss(self, model, batch):
        self.seen.append([float(group["lr"]) for group in self.optimizer.param_groups])
        return nn.functional.mse_loss(model(batch[0]), batch[1])

    def find(self, **options):
        return self.finder.find(self.data, **RANGE, **options)


@pytest.mark.parametrize("group", [1, "head"])
def test_only_that_group_is_swept(group):
    setup = Setup()
    result = setup.find(group=group)
    assert [body for body, _ in setup.seen] == [0.01] * len(setup.seen)
    assert [head for _, head in setup.seen][: len(result.lrs)] == pytest.approx(result.lrs)
    assert result.swept_group == "head"


def test_a_frozen_group_stays_frozen():
    setup = Setup(body_lr=0.0)
    result = setup.find(group="head")
    assert {body for body, _ in setup.seen} == {0.0}
    assert result.swept_group == "head"
    assert result.group_lrs() == [0.0, result.suggestion.lr]


def test_the_result_concerns_that_group(tmp_path):
    setup = Setup()
    result = setup.find(group="head", total_steps=100)
    assert result.group_lrs(0.5) == [0.01, 0.5]
    assert result.initial_lr == 0.1
    assert result.judge().lr == 0.1
    assert "(only head was swept)" in str(result)
    body, head = result.judge([0.01, 0.1])
    assert (head.lr, head.level is Level.UNKNOWN) == (0.1, False)
    assert (body.lr, body.level) == (0.01, Level.UNKNOWN)
    assert "was not swept" in body.reason
    assert result.plot().get_xlabel() == "learning rate of head"
    assert "for head>" in repr(result)
    result.save(tmp_path / "r.json")
    loaded = RangeTestResult.load(tmp_path / "r.json")
    assert (loaded.swept_group, loaded.group_lrs(0.5)) == ("head", [0.01, 0.5])
    scheduler = result.scheduler("one_cycle", setup.optimizer)
    assert scheduler.optimizer.param_groups[0]["max_lr"] == pytest.approx(0.01)
    assert scheduler.optimizer.param_groups[1]["max_lr"] == pytest.approx(result.suggestion.lr)


def test_the_picture_in_a_notebook_names_the_group():
    with mock.patch("lrfinder.display.plots.plot_curve", wraps=plot_curve) as drawn:
        Setup().find(group="head")._repr_html_()
    assert drawn.call_args.kwargs["xlabel"] == "learning rate of head"


@pytest.mark.parametrize("at", [0, 17])
def test_an_exception_leaves_nothing_changed(at):
    setup = Setup()
    parts = {"model": setup.model, "optimizer": setup.optimizer}
    before = Fingerprint(**parts).values | process_state()

    def fail(step, lr, loss):
        if step == at:
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        setup.find(group="head", grad_norms=True, on_step=fail)
    assert differences(before, Fingerprint(**parts).values | process_state()) == []


def test_apply_writes_that_group_and_leaves_the_others():
    setup = Setup()
    result = setup.find(group="head")
    result.apply(setup.optimizer)
    assert [group["lr"] for group in setup.optimizer.param_groups] == [0.01, result.suggestion.lr]


@pytest.mark.parametrize("options", [{}, {"refine": True, "total_steps": 80}], ids=["sweep", "refine"])
def test_nothing_is_left_changed(options):
    setup = Setup()
    parts = {"model": setup.model, "optimizer": setup.optimizer}
    before = Fingerprint(**parts).values | process_state()
    setup.find(group=0, **options)
    assert differences(before, Fingerprint(**parts).values | process_state()) == []
    assert {head for _, head in setup.seen} >= {0.1}


def test_tensor_lrs_are_written_in_place():
    setup = Setup(lr=torch.tensor(0.1), body_lr=torch.tensor(0.01))
    tensors = [group["lr"] for group in setup.optimizer.param_groups]
    setup.find(group="body")
    assert all(group["lr"] is tensor for group, tensor in zip(setup.optimizer.param_groups, tensors, strict=True))
    assert [float(tensor) for tensor in tensors] == pytest.approx([0.01, 0.1])


@pytest.mark.parametrize("group", ["hed", 2, -1, True, 1.0])
def test_an_unknown_group_is_named_with_those_there_are(group):
    with pytest.raises(ArgumentError, match=r"find\(group=...\) must be .* choose from 0: 'body', 1: 'head'"):
        Setup().find(group=group)


def test_without_a_group_all_are_swept():
    result = Setup().find()
    assert result.swept_group is None
    assert result.fixed_lrs == ()
