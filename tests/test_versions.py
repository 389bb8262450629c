"""The versions that are promised are those that `tests/versions.py` runs, and what is written about them is true."""

import re
from pathlib import Path

import pytest
from packaging.version import Version

from tests.versions import ROWS, main, pins, table

ROOT = Path(__file__).parents[1]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_the_oldest_row_runs_the_lower_bounds():
    promised = PROJECT.partition("\n[project]")[2].partition("\n[project.scripts]")[0]
    promised = re.sub("\ndev = .*", "", promised)  # what developers use is no promise
    bounds = {name: Version(bound) for name, bound in re.findall(r'"([\w-]+)>=([\d.]+)"', promised)}
    assert {name: Version(pin) for name, pin in pins(ROWS["oldest"]).items()} == bounds
    assert f'requires-python = ">={ROWS["oldest"].python}"' in PROJECT


def test_the_table_in_contributing_is_that_of_the_rows():
    assert table() in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_forge_runs_every_row():
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    rows = re.findall(r'row: ([\w-]+), python: "([\d.]+)"', workflow)
    assert dict(rows) == {name: row.python for name, row in ROWS.items()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["middle"], "there is no row middle; the rows are oldest, between, newest"),
        (["between"], "Python 3.12 for between is missing on the path and among pyenv's; install it"),
    ],
)
def test_error_before_anything_is_installed(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setattr("sys.version", "3.99.0")
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--envs", str(tmp_path / "envs")])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "envs").exists()
