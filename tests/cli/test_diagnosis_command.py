"""`lrfinder diagnose` reads the log of a training and prints, saves and draws the verdict."""

import io
import json

import numpy as np
import pytest

from lrfinder.cli import main

STEPS = np.arange(200)


@pytest.fixture
def log(tmp_path):
    def write(losses, name="log.csv", header="step,loss,lr"):
        path = tmp_path / name
        lines = [header, *(f"{i},{loss},{0.1}" for i, loss in enumerate(losses))]
        path.write_text("\n".join(lines), encoding="utf-8")
        return str(path)

    return write


def test_it_prints_the_verdict_the_reason_the_evidence_and_the_columns(log, capsys):
    assert main(["diagnose", log(2.3 - 0.001 * STEPS)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "learning rate: too low"
    text = " ".join(line.strip() for line in printed[1:])
    assert "along with the summed learning rate" in text
    assert "Try 10 times the learning rate. evidence: fine 0" in text
    assert printed[-1] == "  columns: loss, lr, 200 losses"


def test_an_unclear_verdict_has_the_status_of_no_suggestion(log, capsys):
    assert main(["diagnose", log(np.full(200, 0.7))]) == 3
    assert capsys.readouterr().out.startswith("learning rate: unclear")


def test_stdin_is_a_dash(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({"loss": (0.2 + 2 * 0.95**STEPS).tolist()})))
    assert main(["diagnose", "-"]) == 0
    assert capsys.readouterr().out.startswith("learning rate: fine")


def test_it_draws_and_saves(log, tmp_path, capsys):
    picture, saved = tmp_path / "lr.png", tmp_path / "lr.json"
    losses = 2.3 - 0.001 * STEPS
    losses[150:] = np.nan
    assert main(["diagnose", log(losses), "--plot", str(picture), "--json", str(saved)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    data = json.loads(saved.read_text(encoding="utf-8"))
    assert (data["verdict"], data["advice"]) == ("TOO_HIGH", 0.1)
    assert data["stretch"] == {"first": 150, "stop": 200, "name": "no finite loss"}
    assert "diverged" in capsys.readouterr().out


def test_the_picture_has_the_steps_of_the_file(log, tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr("lrfinder.display.plot_diagnosis", lambda *arguments, **options: given.update(options))
    path = log(2.3 - 0.001 * STEPS, header="global_step,loss,lr")
    main(["diagnose", path, "--plot", str(tmp_path / "lr.png")])
    assert given["steps"].tolist() == STEPS.tolist()
    assert given["steps_name"] == "global_step"


def test_json_alone_on_stdout(log, capsys):
    assert main(["diagnose", log(2.3 - 0.001 * STEPS), "--json", "-"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["verdict"] == "TOO_LOW"
    assert captured.err.startswith("learning rate: too low")


def test_columns_can_be_named_and_unknown_ones_are_listed(log, capsys):
    path = log(2.3 - 0.001 * STEPS, header="step,nll,rate")
    assert main(["diagnose", path]) == 2
    assert "its columns are step, nll, rate. Name the right one: --loss-column" in capsys.readouterr().err
    assert main(["diagnose", path, "--loss-column", "nll", "--lr-column", "rate"]) == 0
    assert "columns: nll, rate" in capsys.readouterr().out


def test_missing_rows_are_announced(log, capsys):
    assert main(["diagnose", log(2.3 - 0.001 * STEPS), "--total-steps", "2000"]) == 3
    assert "10% into the training" in capsys.readouterr().out
    assert main(["diagnose", log(2.3 - 0.001 * STEPS), "--total-steps", "20"]) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read"),
        (b"", "is empty"),
        (b"\xff\xfe\x00x", "no text file"),
        (b"hello", "table with a header line"),
    ],
)
def test_what_cannot_be_read_is_an_error_in_one_line(content, message, tmp_path, capsys):
    path = tmp_path / "log"
    if content is not None:
        path.write_bytes(content)
    assert main(["diagnose", str(path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
