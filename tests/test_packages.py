"""The packages import each other only along the allowed edges, and only through their public names."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import lrfinder

ROOT = Path(lrfinder.__file__).parent
BELOW = {"curve", "optim", "snapshot", "distributed", "training", "display"}
FOR_ALL = {"lrfinder.errors", "lrfinder.version"}
MAY_IMPORT = {  # in addition to FOR_ALL
    "curve": set(),
    "optim": set(),
    "snapshot": set(),
    "distributed": set(),
    "training": {"curve", "optim", "snapshot", "distributed"},
    "display": {"curve", "optim"},
    "": BELOW,  # the modules directly in lrfinder/
    "comparison": {"", *BELOW},
    "cli": {"", "comparison", *BELOW},
    "integrations": {"", *BELOW},
}
FILES = [path for path in ROOT.rglob("*.py") if path.name != "__main__.py"]
MODULES = [found.name for found in pkgutil.walk_packages([str(ROOT)], "lrfinder.") if "integrations." not in found.name]


def package_of(module):
    """Return the package that a module such as "lrfinder.curve.sweep" lies in, "" for those directly in lrfinder."""
    parts = module.split(".")[1:]
    return parts[0] if parts and parts[0] in MAY_IMPORT else ""


def imports_of(source):
    """Return the module and the names of each import from this package, those inside functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "an import must be absolute"
            yield node.module or "", [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)


def problems(module, source):
    here = package_of(module)
    for target, names in imports_of(source):
        if target.split(".")[0] != "lrfinder" or target in FOR_ALL:
            continue
        there = package_of(target)
        if there == here:
            continue
        if module == "lrfinder.__init__" and there == "comparison":
            continue  # the door opens to it
        if there not in MAY_IMPORT[here]:
            yield f"{module} imports {target}"
        elif there and target != f"lrfinder.{there}":
            yield f"{module} imports {target} instead of lrfinder.{there}"
        elif there and not set(names) <= set(importlib.import_module(target).__all__):
            yield f"{module} imports {names}, which {target} does not list in __all__"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_packages_import_only_along_the_allowed_edges(path):
    module = ".".join(["lrfinder", *path.relative_to(ROOT).with_suffix("").parts])
    assert list(problems(module, path.read_text(encoding="utf-8"))) == []


def test_forbidden_imports_are_found_wherever_they_stand():
    source = "def f():\n    from lrfinder.training import Batches\n"
    assert list(problems("lrfinder.curve.sweep", source)) == ["lrfinder.curve.sweep imports lrfinder.training"]
    deep = list(problems("lrfinder.training.loop", "from lrfinder.curve.sweep import grid"))
    assert deep == ["lrfinder.training.loop imports lrfinder.curve.sweep instead of lrfinder.curve"]
    assert "does not list" in next(problems("lrfinder.finder", "from lrfinder.curve import nothing"))
    with pytest.raises(AssertionError, match="absolute"):
        list(problems("lrfinder.finder", "from .errors import LRFinderError"))


def test_few_modules_lie_directly_in_the_package():
    assert len(list(ROOT.glob("*.py"))) <= 10


def test_every_package_has_a_contract_and_every_module_lists_its_public_names():
    for name in MODULES:
        module = importlib.import_module(name)
        assert module.__doc__, name
        if name != "lrfinder.integrations":
            assert all(hasattr(module, public) for public in module.__all__), name


def test_no_module_has_the_name_of_a_public_function_or_name():
    for name in MODULES:
        own = name.rpartition(".")[2]
        assert own not in lrfinder.__all__, name
        if not hasattr(importlib.import_module(name), "__path__"):
            assert own not in importlib.import_module(name).__all__, name


def test_importing_the_curve_package_loads_no_torch():
    code = "import lrfinder.curve, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert done.stdout.split() == ["False"]
