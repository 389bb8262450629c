"""The demo: what it prints, that it is honest, and what it says without scikit-learn."""

import re
import sys
from pathlib import Path

import pytest
import torch

from lrfinder.cli import demo
from lrfinder.cli.commands import main


@pytest.fixture(scope="module")
def digits():
    return demo.load_digits()


def test_digits_are_real_and_split_once(digits):
    assert (len(digits.train), len(digits.test)) == (1437, 360)
    images, labels = digits.train.tensors
    assert images.shape == (1437, 1, 8, 8)
    assert (float(images.min()), float(images.max())) == (0.0, 1.0)
    assert set(labels.tolist()) == set(range(10))
    both = torch.cat([images, digits.test.tensors[0]]).flatten(1)
    assert len(both.unique(dim=0)) == len(both)  # no test image was trained on
    assert torch.equal(demo.load_digits().train.tensors[0], images)


def test_usual_learning_rate_is_the_default_of_torch():
    model, optimizer = demo.small_cnn(seed=0)
    assert torch.optim.Adam(model.parameters()).defaults["lr"] == demo.USUAL_LR == optimizer.defaults["lr"]


def test_trainings_differ_only_in_the_learning_rate(digits):
    with demo.one_thread():
        once = demo.compare(digits, epochs=1, lrs=[1e-3], seeds=[0, 1])
        again = demo.compare(digits, epochs=1, lrs=[1e-2, 1e-3], seeds=[1])
    assert again[1e-3][0] == once[1e-3][1]
    assert again[1e-2][0] != once[1e-3][1]


def test_demo_prints_block_path_and_accuracies(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    assert main(["demo", "--epochs", "5", "--seeds", "1"]) == 0
    out, err = capsys.readouterr()
    assert torch.get_num_threads() == threads
    assert err == ""
    block, table = out.split("\n\n")
    *block, path = block.splitlines()
    assert block[0].startswith("LR range test: stopped at ")
    assert re.fullmatch(
        r'use: scheduler = lrfinder.make_scheduler\(optimizer, "one_cycle", \S+, total_steps=115\)', block[-1]
    )
    assert path == "plot: lrfinder-demo.png"
    assert Path("lrfinder-demo.png").read_bytes().startswith(b"\x89PNG")
    rows = dict(re.findall(r"^(\w+) +\S+ +([\d.]+) %", table, re.MULTILINE))
    suggested, usual = float(rows["suggested"]), float(rows["usual"])
    assert 95 < suggested <= 100
    assert 50 < usual < suggested  # so few steps at the usual learning rate are far from enough
    assert re.search(rf"^suggested +{re.escape(block[1].split()[1])} ", table, re.MULTILINE)


def test_without_scikit_learn_the_remedy_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert main(["demo"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.endswith('run: pip install "lrfinder[demo]"\n')


def test_help_names_the_extra(capsys):
    assert main(["demo", "--help"]) == 0
    assert 'pip install "lrfinder[demo]"' in capsys.readouterr().out
