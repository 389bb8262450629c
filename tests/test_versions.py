"""The versions that are promised are those that `tests/versions.py` runs, and what is written about them is true."""

import re
from pathlib import Path

from tests.versions import ROWS, table

ROOT = Path(__file__).parents[1]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_the_oldest_row_runs_the_lower_bounds():
    dependencies = re.search(r"^dependencies = \[(.*?)\]", PROJECT, re.MULTILINE | re.DOTALL)[1]
    pins = dict(pin.split("==") for pin in (*ROWS["oldest"].pins, *ROWS["oldest"].frameworks))
    extras = "".join(re.findall(r"^(?:transformers|accelerate|peft|lightning|ignite) = (.*)$", PROJECT, re.MULTILINE))
    bounds = dict(re.findall(r'"([\w-]+)>=([\d.]+)"', dependencies + extras))
    assert bounds.keys() == pins.keys()
    assert {name: pins[name].startswith(bound) for name, bound in bounds.items()} == dict.fromkeys(bounds, True)
    assert f'requires-python = ">={ROWS["oldest"].python}"' in PROJECT


def test_the_table_in_contributing_is_that_of_the_rows():
    assert table() in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_forge_runs_every_row():
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    rows = re.findall(r'row: ([\w-]+), python: "([\d.]+)"', workflow)
    assert dict(rows) == {name: row.python for name, row in ROWS.items()}
