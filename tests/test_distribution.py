"""What is published: the source distribution holds the repository, the wheel holds the package and runs."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("build")
pytest.importorskip("setuptools", minversion="77")

ROOT = Path(__file__).parents[1]


def run(*command, **options):
    ended = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def tracked():
    if not (ROOT / ".git").exists():
        pytest.skip("only a git checkout knows which files belong to the repository")
    return {name for name in run("git", "ls-files", cwd=ROOT).splitlines() if (ROOT / name).exists()}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return the folder of a source distribution, and of the wheel that was built from it, and what building said."""
    folder, source = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("source") / "copy"
    run("git", "clone", "--quiet", str(ROOT), str(source))  # building leaves files behind
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source)]
    output = run(*command, env=environment)
    return folder, output


def test_building_warns_of_nothing(built):
    _, output = built
    assert [line for line in output.splitlines() if "warning" in line.replace("warnings.py", "").lower()] == []


def test_the_source_distribution_holds_the_repository(built):
    folder, _ = built
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        names = {name.name.partition("/")[2] for name in archive.getmembers() if name.isfile()}
    generated = {name for name in names if name.startswith("lrfinder.egg-info/")} | {"PKG-INFO", "setup.cfg"}
    assert names - generated == tracked() - {".gitignore"}


def test_the_wheel_holds_the_package_alone(built):
    folder, _ = built
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = {name for name in tracked() if name.startswith("lrfinder/")}
    assert names == {name for name in package if name.endswith((".py", "py.typed", "diagnosis.json"))}


def test_an_installed_wheel_runs_the_demo(built, tmp_path):
    pytest.importorskip("sklearn")
    folder, _ = built
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps", "--no-index"]
    run(*pip, "--target", str(site), str(next(folder.glob("*.whl"))))
    environment = os.environ | {"PYTHONPATH": str(site), "MPLBACKEND": "agg"}
    where = run(sys.executable, "-c", "import lrfinder; print(lrfinder.__file__)", cwd=tmp_path, env=environment)
    assert where.strip() == str(site / "lrfinder" / "__init__.py")
    command = [str(site / "bin" / "lrfinder"), "demo", "--epochs", "1", "--seeds", "1", "--no-progress"]
    assert "LR range test" in run(*command, cwd=tmp_path, env=environment)
    assert (tmp_path / "lrfinder-demo.png").exists()
