"""An integration whose package is not installed says how to install it."""

import importlib
import sys
from pathlib import Path

import pytest

import lrfinder
from lrfinder.integrations.base import needs

PROJECT = Path(lrfinder.__file__).parents[1] / "pyproject.toml"


@pytest.mark.parametrize("name", ["accelerate", "fastai", "lightning", "transformers"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(name, monkeypatch):
    for module in [module for module in sys.modules if module.startswith("lrfinder.integrations.")]:
        if module != "lrfinder.integrations.base":
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    message = rf'integrations.{name} needs {name}, which is not installed; run: pip install "lrfinder\[{name}\]"'
    with pytest.raises(ModuleNotFoundError, match=message) as caught:
        importlib.import_module(f"lrfinder.integrations.{name}")
    assert caught.value.name.partition(".")[0] == name
    assert f"\n{name} = [" in PROJECT.read_text(encoding="utf-8")


def test_a_package_that_is_broken_itself_says_so():
    with pytest.raises(ModuleNotFoundError, match="No module named 'missing_dependency'"), needs("lightning"):
        import missing_dependency  # noqa: F401
