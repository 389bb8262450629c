import json
import sys

import pytest

from lrfinder import Comparison, GroupResults
from lrfinder.cli.commands import main
from lrfinder.cli.comparison_command import read_settings

pytestmark = pytest.mark.filterwarnings("ignore::lrfinder.LRFinderWarning")

TRAIN = """
import torch
from torch import nn

def build(scale=1.0):
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    data = [(x, x.sum(1, keepdim=True) * float(scale)) for x in torch.randn(8, 16, 4)]
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), nn.MSELoss(), data

def in_groups():
    model, _, criterion, data = build()
    groups = [{"params": [parameter], "name": name} for name, parameter in model.named_parameters()]
    return model, torch.optim.SGD(groups, lr=0.1), criterion, data
"""
RUN = ["run", "train.py:build", "--start-lr", "1e-4", "--end-lr", "10", "--num-iter", "30", "--no-progress"]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    (tmp_path / "train.py").write_text(TRAIN)
    monkeypatch.chdir(tmp_path)


def test_values_are_python_literals():
    assert read_settings(["momentum=0,0.9", "nesterov=True,False"]) == {
        "momentum": [0, 0.9], "nesterov": [True, False],
    }  # fmt: skip
    assert read_settings([]) == {}


@pytest.mark.parametrize("text", ["momentum", "momentum=", "momentum=a,b", "2=1", "=1", "momentum=[0"])
def test_other_texts_are_an_error_with_an_example(text, capsys):
    assert main([*RUN, "--compare", text]) == 2
    assert f"got {text!r}; for example --compare weight_decay=0,1e-4,1e-3" in capsys.readouterr().err


def test_run_compares_saves_and_draws(capsys, tmp_path):
    assert main([*RUN, "--compare", "momentum=0.0,0.9", "--json", "c.json", "--plot", "c.png"]) == 0
    table = capsys.readouterr().out
    assert table.startswith("setting")
    assert (tmp_path / "c.png").stat().st_size > 1000
    assert list(Comparison.load("c.json").results) == ["momentum=0.0", "momentum=0.9"]
    assert main(["show", "c.json"]) == 0
    assert capsys.readouterr().out == table
    assert main(["plot", "c.json", "-o", "again.png"]) == 0
    assert (tmp_path / "again.png").exists()


def test_json_to_stdout_is_alone_there(capsys):
    assert main([*RUN, "--compare", "momentum=0.0,0.9", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["comparison"] == 1


def test_an_unknown_hyperparameter_is_bad_usage(capsys):
    assert main([*RUN, "--compare", "decay=0,1"]) == 2
    assert "lrfinder run: error: --compare takes hyperparameters of the optimizer's groups" in capsys.readouterr().err


def test_run_sweeps_each_group_saves_and_draws(capsys, tmp_path):
    run = [RUN[0], "train.py:in_groups", *RUN[2:]]
    assert main([*run, "--each-group", "--json", "g.json", "--plot", "g.png"]) == 0
    table = capsys.readouterr().out
    assert [line.partition("  ")[0] for line in table.splitlines()[:4]] == ["swept", "all groups", "weight", "bias"]
    assert (tmp_path / "g.png").stat().st_size > 1000
    assert list(GroupResults.load("g.json")) == ["all groups", "weight", "bias"]
    assert main(["show", "g.json"]) == 0
    assert capsys.readouterr().out == table
    assert main(["plot", "g.json", "-o", "again.png"]) == 0
    assert (tmp_path / "again.png").exists()


def test_each_group_needs_several_and_goes_with_no_comparison(capsys):
    assert main([*RUN, "--each-group"]) == 2
    assert "error: --each-group needs an optimizer with at least two parameter groups" in capsys.readouterr().err
    assert main([*RUN, "--each-group", "--compare", "momentum=0.0,0.9"]) == 2
    assert "not allowed with argument" in capsys.readouterr().err


def test_nothing_measured_is_the_status_of_no_suggestion(capsys):
    assert main([*RUN, "--set", "scale=nan", "--compare", "momentum=0.0,0.9"]) == 3
    out = capsys.readouterr().out
    assert out.count("The very first loss was NaN or infinite") == 1


def test_several_results_judge_no_single_lr(capsys):
    assert main([*RUN, "--compare", "momentum=0.0,0.9", "--json", "c.json"]) == 0
    assert main(["show", "c.json", "--lr", "0.1"]) == 2
    assert "got several in 'c.json'" in capsys.readouterr().err


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("target", "option", "names"),
    [
        ("build", ["--compare", "momentum=0.0,0.9"], ["momentum=0.0", "momentum=0.9"]),
        ("in_groups", ["--each-group"], ["all groups", "weight"]),
    ],
)
def test_a_warning_is_on_the_screen_once_with_its_name(capsys, monkeypatch, target, option, names):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    main([RUN[0], f"train.py:{target}", *RUN[2:], "--end-lr", "1e-3", *option])
    out, err = capsys.readouterr()
    for name in names:
        assert (out + err).count(f"warning: {name}: The loss did not diverge") == 1
