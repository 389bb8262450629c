import json

import pytest

import lrfinder
from lrfinder.display import serialization as archive
from lrfinder.display.serialization import read_fields, versions, write_json
from lrfinder.errors import ArgumentError


def test_versions_name_this_package_and_what_it_stands_on():
    assert set(versions()) == {"lrfinder", "torch", "numpy", "python"}
    assert versions()["lrfinder"] == lrfinder.__version__


def test_what_json_cannot_hold_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "r.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}


def test_the_call_is_named_where_data_is_refused():
    with pytest.raises(ArgumentError, match=r"^f\(x=...\) must name a file that RangeTestResult.save wrote.*KeyError"):
        read_fields({"schema": archive.SCHEMA}, "f(x=...)")
    with pytest.raises(ArgumentError, match=r"^f\(x=...\) reads the schemas 1 and 2, got schema=None"):
        read_fields([], "f(x=...)")
