"""Settings compared: the same start and batches for all, and nothing left behind."""

import html

import matplotlib as mpl
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lrfinder import ArgumentError, Comparison, LRFinder, LRFinderWarning, compare
from tests.fingerprint import Fingerprint, differences, process_state
from tests.notes import Notes

mpl.use("Agg")
pytestmark = pytest.mark.filterwarnings("ignore::lrfinder.LRFinderWarning")
DTYPES = {np.array: np.float64, torch.tensor: torch.float64}
RANGE = {"start_lr": 1e-4, "end_lr": 10.0, "num_iter": 30, "progress": False}


class Setup:
    def __init__(self, **options):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.1), nn.ReLU(), nn.Linear(16, 1))
        groups = [{"params": self.model[0].parameters()}, {"params": self.model[3].parameters(), "weight_decay": 0.1}]
        self.optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
        inputs = torch.randn(64, 4)
        self.data = TensorDataset(inputs, inputs.sum(1, keepdim=True))
        self.loader = DataLoader(self.data, batch_size=8, shuffle=True)
        self.finder = LRFinder(self.model, self.optimizer, nn.MSELoss(), **options)

    def fingerprint(self):
        parts = Fingerprint(model=self.model, optimizer=self.optimizer, loader=self.loader)
        return parts.values | process_state()


def test_each_setting_gets_the_result_of_a_separate_find():
    setup = Setup()
    found = compare(setup.finder, setup.loader, {"momentum": [0.0, 0.9]}, **RANGE)
    assert list(found.results) == ["momentum=0.0", "momentum=0.9"]
    for momentum in (0.0, 0.9):
        alone = Setup()
        for group in alone.optimizer.param_groups:
            group["momentum"] = momentum
        result = alone.finder.find(alone.loader, **RANGE)
        assert found.results[f"momentum={momentum}"].losses.tolist() == result.losses.tolist()


def test_several_hyperparameters_are_combined():
    setup = Setup()
    found = compare(setup.finder, setup.loader, {"momentum": [0.0, 0.9], "weight_decay": [0, 1e-3]}, **RANGE)
    assert list(found.results) == [
        "momentum=0.0, weight_decay=0", "momentum=0.0, weight_decay=0.001",
        "momentum=0.9, weight_decay=0", "momentum=0.9, weight_decay=0.001",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_values_in_an_array_have_short_names(kind):
    setup = Setup()
    found = compare(setup.finder, setup.loader, {"weight_decay": kind([0.0, 10**-3.5], dtype=DTYPES[kind])}, **RANGE)
    assert list(found.results) == ["weight_decay=0.0", "weight_decay=0.000316228"]


@pytest.mark.filterwarnings("always::lrfinder.LRFinderWarning")
@pytest.mark.parametrize("kind", ["settings", "loaders", "finders"])
def test_warnings_name_the_setting(kind):
    first, second = Setup(), Setup()
    finder, loader, settings = {
        "settings": (first.finder, first.loader, {"momentum": [0.0, 0.9]}),
        "loaders": (first.finder, {"a": first.loader, "b": second.loader}, None),
        "finders": ({"a": first.finder, "b": second.finder}, first.loader, None),
    }[kind]
    with pytest.warns(LRFinderWarning) as caught:
        found = compare(finder, loader, settings, **{**RANGE, "end_lr": 1e-3})
    messages = [str(warning.message) for warning in caught]
    assert messages == [f"{name}: {each}" for name, result in found.results.items() for each in result.warnings]
    assert len({message.partition(": ")[0] for message in messages}) == 2
    with pytest.warns(LRFinderWarning) as caught:  # the name does not stay with the finder
        first.finder.find(first.loader, **{**RANGE, "end_lr": 1e-3})
    assert not str(caught[0].message).startswith(tuple(found.results))


@pytest.mark.parametrize("refine", [False, True])
def test_nothing_is_left_changed(refine):
    setup = Setup()
    before = setup.fingerprint()
    compare(setup.finder, setup.loader, {"weight_decay": [0.0, 0.5]}, refine=refine, total_steps=60, **RANGE)
    assert differences(before, setup.fingerprint()) == []
    assert [group["weight_decay"] for group in setup.optimizer.param_groups] == [0, 0.1]


@pytest.mark.parametrize("at", [0, 12, 45])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_nothing_changed(at, error):
    setup, calls = Setup(), Notes()
    criterion = nn.MSELoss()

    def loss_fn(model, batch):
        calls.append(1)
        if len(calls) == at + 1:
            raise error("mine")
        return criterion(model(batch[0]), batch[1])

    finder = LRFinder(setup.model, setup.optimizer, loss_fn=loss_fn)
    before = setup.fingerprint()
    with pytest.raises(error, match="mine"):
        compare(finder, setup.loader, {"weight_decay": [0.0, 0.5]}, **RANGE)
    assert differences(before, setup.fingerprint()) == []


def test_tensor_hyperparameters_stay_the_same_objects():
    model = nn.Linear(4, 1)
    optimizer = torch.optim.Adam(
        model.parameters(), lr=0.1, betas=(torch.tensor(0.9), torch.tensor(0.99)), capturable=False
    )
    betas = optimizer.param_groups[0]["betas"]
    data = [(x, x.sum(1, keepdim=True)) for x in torch.randn(4, 8, 4)]
    compare(LRFinder(model, optimizer, nn.MSELoss()), data, {"betas": [(0.8, 0.9), (0.9, 0.99)]}, **RANGE)
    assert optimizer.param_groups[0]["betas"] is betas


def test_loaders_compare_batch_sizes():
    setup = Setup()
    loaders = {f"batch {size}": DataLoader(setup.data, batch_size=size, shuffle=True) for size in (4, 16)}
    found = compare(setup.finder, loaders, **RANGE)
    assert [result.context.batch_size for result in found.results.values()] == [4, 16]


def test_finders_compare_anything_else():
    setup = Setup()
    finders = {
        "plain": setup.finder,
        "clipped": LRFinder(setup.model, setup.optimizer, nn.MSELoss(), max_grad_norm=0.1),
    }
    found = compare(finders, setup.loader, **RANGE)
    assert list(found.results) == ["plain", "clipped"]
    assert found.results["plain"].losses.tolist() != found.results["clipped"].losses.tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "compares one kind of thing, got none; pass settings="),
        ({"settings": {"momentum": [0.0]}, "loader": {"a": [], "b": []}}, "got a dict of loaders and settings"),
        ({"settings": {"decay": [0.0]}}, r"takes hyperparameters of the optimizer's groups, .*momentum.*, got 'decay'"),
        ({"settings": {"lr": [0.1]}}, "got 'lr'. The learning rate is what is searched"),
        ({"settings": {"momentum": 0.9}}, "must give a list of values for 'momentum', got 0.9"),
        ({"settings": {"momentum": "0.9"}}, "must give a list of values for 'momentum', got '0.9'"),
        ({"settings": {}}, "must name at least one hyperparameter"),
        ({"settings": ["momentum"]}, r"must be a dict of values by hyperparameter, got list; for example"),
        ({"finder": 3, "settings": {"momentum": [0.0]}}, r"must be an LRFinder, or a dict of several, got int"),
        ({"finder": {"a": 3, "b": 3}}, r"must be an LRFinder, or a dict of several, got int"),
        ({"settings": {"momentum": [0.9, 0.9]}}, r"must give different values for 'momentum', got \[0.9, 0.9\]"),
        (
            {"settings": {"momentum": [0.9]}},
            r"must give at least two values, got \{'momentum': 0.9\}; .* LRFinder.find",
        ),
        ({"settings": {"momentum": [0.0]}, "loader": iter([1])}, "got the iterator list_iterator; pass a DataLoader"),
        ({"loader": {"a": [1]}}, r"must hold at least two entries with a string as name, got \['a'\]"),
    ],
)
def test_arguments_that_cannot_be_compared_are_named(arguments, message):
    setup = Setup()
    with pytest.raises(ArgumentError, match=message):
        compare(**{"finder": setup.finder, "loader": setup.loader, **arguments})


def comparison(**options):
    setup = Setup()
    return compare(setup.finder, setup.loader, {"momentum": [0.0, 0.9]}, **RANGE, **options)


def found_html(found):
    return html.unescape(found._repr_html_()).removeprefix("<pre>").removesuffix("</pre>")


def test_the_table_has_a_line_for_each_setting_and_a_verdict():
    lines = str(comparison()).splitlines()
    assert lines[0].split() == ["setting", "suggestion", "divergence", "lowest", "loss"]
    assert lines[1].startswith("momentum=0.0")
    assert lines[2].startswith("momentum=0.9")
    assert found_html(comparison()) == "\n".join(lines)
    assert lines[3].startswith("best: ") or "tie: their scores differ by less than the noise" in lines[3]
    assert "probe loss" in str(comparison(refine=True, total_steps=60)).splitlines()[0]


def test_the_lowest_score_is_best_unless_the_noise_hides_it():
    same = comparison()
    first = next(iter(same.results.values()))
    assert Comparison(results={"a": first, "b": first}).best is None
    assert Comparison(results={"a": first, "b": first}).tied == ("a", "b")
    setup = Setup()
    stuck = LRFinder(setup.model, setup.optimizer, loss_fn=lambda model, batch: 5 + 0 * model(batch[0]).mean())
    apart = compare({"stuck": stuck, "plain": setup.finder}, setup.loader, **RANGE)
    assert apart.best == "plain"


@pytest.mark.parametrize("options", [{}, {"refine": True, "total_steps": 60}], ids=["sweep", "refine"])
@pytest.mark.parametrize("first", ["broken", "plain"])
def test_a_setting_whose_loss_is_never_finite_spoils_no_other(first, options):
    setup = Setup()
    broken = LRFinder(setup.model, setup.optimizer, loss_fn=lambda model, batch: model(batch[0]).mean() * float("nan"))
    finders = {"broken": broken, "plain": setup.finder}
    found = compare({first: finders.pop(first), **finders}, setup.loader, progress=False, **options)
    assert found.best == "plain"
    row = next(line for line in str(found).splitlines() if line.startswith("broken"))
    assert set(row.split()[1:]) == {"none"}
    ax = found.plot()
    assert not [text for text in ax.texts if "no finite loss" in text.get_text()]
    mpl.pyplot.close(ax.figure)
    nothing = Comparison(results={"broken": found.results["broken"]})
    assert "nothing was measured. " in str(nothing)
    assert [text.get_text() for text in nothing.plot().texts] == ["no finite loss was measured"]


def test_a_comparison_comes_back_from_its_file(tmp_path):
    found = comparison()
    found.save(tmp_path / "c.json")
    loaded = Comparison.load(tmp_path / "c.json")
    assert str(loaded) == str(found)
    next(iter(found.results.values())).save(tmp_path / "one.json")
    with pytest.raises(ArgumentError, match=r"a single result is read by RangeTestResult.load"):
        Comparison.load(tmp_path / "one.json")


def test_the_curves_are_drawn_into_one_picture():
    ax = comparison().plot()
    entries = {text.get_text().partition(":")[0] for text in ax.get_legend().get_texts()}
    assert entries >= {"momentum=0.0", "momentum=0.9"}
    mpl.pyplot.close(ax.figure)
