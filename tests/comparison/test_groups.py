"""find_each_group: all groups together, then one by one with the others at the suggestion."""

import dataclasses

import matplotlib as mpl
import pytest
import torch
from torch import nn

from lrfinder import ArgumentError, GroupResults, LRFinder, LRFinderWarning, NoSuggestionError, find_each_group
from lrfinder.display import lr_text
from tests.fingerprint import Fingerprint, differences, process_state
from tests.notes import Notes

mpl.use("Agg")
pytestmark = pytest.mark.filterwarnings("ignore::lrfinder.LRFinderWarning")
OPTIONS = {"start_lr": 1e-4, "end_lr": 10.0, "num_iter": 30, "progress": False}


class Setup:
    def __init__(self, lrs=(0.01, 0.1), names=("body", "head")):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))
        layers = (self.model[0], self.model[2])
        groups = [
            {"params": layer.parameters(), "lr": lr, "name": name}
            for layer, lr, name in zip(layers, lrs, names, strict=True)
        ]
        self.optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
        self.data = [(x, x.sum(1, keepdim=True)) for x in torch.randn(12, 8, 4)]
        self.fault_at = None
        self.nan_at = None
        self.seen = Notes()
        self.finder = LRFinder(self.model, self.optimizer, loss_fn=self.loss)

    def loss(self, model, batch):
        self.seen.append(tuple(float(group["lr"]) for group in self.optimizer.param_groups))
        if len(self.seen) == self.fault_at:
            raise RuntimeError("mine")
        loss = nn.functional.mse_loss(model(batch[0]), batch[1])
        return loss * float("nan") if len(self.seen) == self.nan_at else loss

    def fingerprint(self):
        return Fingerprint(model=self.model, optimizer=self.optimizer).values | process_state()


def test_each_group_is_swept_while_the_others_train_at_the_suggestion():
    setup = Setup()
    results = find_each_group(setup.finder, setup.data, **OPTIONS)
    assert list(results) == ["all groups", "body", "head"]
    body, head = results["all groups"].group_lrs()
    assert results["body"].group_lrs(0.5) == pytest.approx([0.5, head])
    assert results["head"].group_lrs(0.5) == pytest.approx([body, 0.5])
    swept_alone = setup.seen[-results["head"].steps :]
    assert {lrs[0] for lrs in swept_alone} == {body}
    assert results.group_lrs() == [results["body"].suggestion.lr, results["head"].suggestion.lr]


@pytest.mark.parametrize("fault_at", [None, 3, 40, 70])
def test_nothing_is_left_changed(fault_at):
    setup = Setup()
    setup.fault_at = fault_at
    before = setup.fingerprint()
    if fault_at is None:
        find_each_group(setup.finder, setup.data, **OPTIONS)
    else:
        with pytest.raises(RuntimeError, match="mine"):
            find_each_group(setup.finder, setup.data, **OPTIONS)
    assert differences(before, setup.fingerprint()) == []


def test_a_frozen_group_is_not_swept():
    setup = Setup(lrs=(0.0, 0.1))
    results = find_each_group(setup.finder, setup.data, **OPTIONS)
    assert list(results) == ["all groups", "head"]
    assert results.group_lrs() == [0.0, results["head"].suggestion.lr]


def test_the_curves_are_drawn_into_one_picture():
    setup = Setup()
    ax = find_each_group(setup.finder, setup.data, **OPTIONS).plot()
    entries = {text.get_text().partition(":")[0] for text in ax.get_legend().get_texts()}
    assert entries >= {"all groups", "body", "head"}
    assert ax.get_xlabel() == "learning rate"
    mpl.pyplot.close(ax.figure)


def test_the_table_names_the_lrs_found_together_and_one_by_one():
    results = find_each_group(Setup().finder, Setup().data, **OPTIONS)
    lines = str(results).splitlines()
    assert lines[0].split() == ["swept", "suggestion", "divergence", "lowest", "loss"]
    assert [line.partition("  ")[0] for line in lines[1:4]] == ["all groups", "body", "head"]
    for line, (title, lrs) in zip(
        lines[4:],
        {"together": results["all groups"].group_lrs(), "one by one": results.group_lrs()}.items(),
        strict=True,
    ):
        assert line == f"{title}: body {lr_text(lrs[0])}   head {lr_text(lrs[1])}"
    assert str(results) in results._repr_html_()


def test_a_group_without_a_suggestion_has_none_in_the_table():
    results = find_each_group(Setup().finder, Setup().data, **OPTIONS)
    curve = results["head"].curve
    none = dataclasses.replace(curve, **{name: getattr(curve, name)[:2] for name in ("lrs", "losses", "smoothed")},
                               indices=curve.indices[:2])  # fmt: skip
    broken = GroupResults({**results, "head": dataclasses.replace(results["head"], curve=none)})
    lines = str(broken).splitlines()
    assert lines[3].split()[1] == "none"
    assert lines[-1].startswith("together: ")
    with pytest.raises(NoSuggestionError, match=r"The sweep of 'head' has no suggestion\. .*points"):
        broken.group_lrs()


def test_without_a_suggestion_for_all_groups_the_others_keep_their_own_lrs(tmp_path):
    setup = Setup()
    setup.nan_at = 3
    before = setup.fingerprint()
    results = find_each_group(setup.finder, setup.data, **OPTIONS)
    assert len(results["all groups"].curve) == 2
    assert results["body"].group_lrs(0.5) == pytest.approx([0.5, 0.1])
    assert results["head"].group_lrs(0.5) == pytest.approx([0.01, 0.5])
    assert results.group_lrs() == [results["body"].suggestion.lr, results["head"].suggestion.lr]
    assert str(results).splitlines()[4].startswith("together: no suggestion; each group was swept while the others")
    assert str(results).splitlines()[5].startswith("one by one: body ")
    results.save(tmp_path / "g.json")
    assert str(GroupResults.load(tmp_path / "g.json")) == str(results)
    assert differences(before, setup.fingerprint()) == []


def test_a_frozen_group_stays_frozen_without_a_suggestion_for_all_groups():
    setup = Setup(lrs=(0.0, 0.1))
    setup.nan_at = 3
    results = find_each_group(setup.finder, setup.data, **OPTIONS)
    assert list(results) == ["all groups", "head"]
    assert results.group_lrs() == [0.0, results["head"].suggestion.lr]


@pytest.mark.filterwarnings("always::lrfinder.LRFinderWarning")
def test_warnings_name_the_group():
    setup = Setup()
    with pytest.warns(LRFinderWarning) as caught:
        results = find_each_group(setup.finder, setup.data, **{**OPTIONS, "end_lr": 1e-3})
    wanted = [f"{name}: {each}" for name, result in results.items() for each in result.warnings]
    assert {sentence.partition(":")[0] for sentence in wanted} == {"all groups", "body", "head"}
    assert [str(warning.message) for warning in caught] == wanted


def test_the_results_come_back_from_their_file(tmp_path):
    results = find_each_group(Setup().finder, Setup().data, **OPTIONS)
    results.save(tmp_path / "g.json")
    loaded = GroupResults.load(tmp_path / "g.json")
    assert (str(loaded), loaded.group_lrs()) == (str(results), results.group_lrs())
    results["head"].save(tmp_path / "one.json")
    with pytest.raises(ArgumentError, match=r"that GroupResults.save wrote, .* is read by RangeTestResult.load"):
        GroupResults.load(tmp_path / "one.json")


@pytest.mark.parametrize(
    ("names", "loader", "options", "message"),
    [
        (("a", "a"), None, {}, "two parameter groups of different names, none of them 'all groups', got 'a', 'a'"),
        (("all groups", "b"), None, {}, "none of them 'all groups', got 'all groups', 'b'"),
        (("a", "b"), None, {"group": 0}, "sweeps every group, got group=0; leave it out"),
        (("a", "b"), iter([1]), {}, "got the iterator list_iterator; pass a DataLoader"),
    ],
)
def test_what_cannot_be_swept_group_by_group_is_named(names, loader, options, message):
    setup = Setup(names=names)
    with pytest.raises(ArgumentError, match=message):
        find_each_group(setup.finder, setup.data if loader is None else loader, **options)
