"""Run the tests with the versions that `pyproject.toml` promises, each row in its own environment.

    python -m tests.versions                     # all rows, one after the other
    python -m tests.versions oldest newest       # these rows
    python -m tests.versions --table             # the table in CONTRIBUTING.md

A row needs its Python, `python3.10` and so on, on the path or among pyenv's. An environment takes 4 to 6 GB:
torch brings the libraries of its accelerators. The next run with the same folder uses it again.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROWS", "Row", "main"]

ROOT = Path(__file__).parents[1]
CORE = ("tests/curve", "tests/optim", "tests/snapshot", "tests/training", "tests/display", "tests/test_restore.py")
INTEGRATIONS = ("tests/integrations",)


@dataclass(frozen=True, kw_only=True)
class Row:
    """Versions that are run together.

    Args:
        python: Major and minor version.
        pins: Versions of what the package requires; a name without a version is the newest one.
        frameworks: Versions of the frameworks of the integrations.
    """

    python: str
    pins: tuple[str, ...]
    frameworks: tuple[str, ...] = ()

    @property
    def tests(self) -> tuple[str, ...]:
        """The folders and files that pytest runs."""
        return (*CORE, *INTEGRATIONS) if self.frameworks else CORE


ROWS = {
    "oldest": Row(
        python="3.10",
        pins=("torch==2.6.0", "numpy==1.24.4", "scipy==1.10.1", "matplotlib==3.7.5", "tqdm==4.60.0"),
        frameworks=(
            "transformers==4.57.1",
            "accelerate==1.3.0",
            "peft==0.14.0",
            "lightning==2.5.0",
            "pytorch-ignite==0.5.1",
        ),
    ),
    "between": Row(
        python="3.12",
        pins=("torch==2.7.1", "numpy==2.0.2", "scipy==1.14.1", "matplotlib==3.9.4", "tqdm==4.66.5"),
    ),
    "newest": Row(python="3.13", pins=("torch", "numpy", "scipy", "matplotlib", "tqdm")),
}


def interpreter(version: str) -> str:
    """Return the path of a Python: one of pyenv's, or the one on the path."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [str(path / "bin" / "python") for path in sorted(pyenv.glob(f"{version}.*"))]
    on_path = shutil.which(f"python{version}") or (sys.executable if sys.version.startswith(f"{version}.") else None)
    if not found and on_path is None:
        raise SystemExit(
            f"python -m tests.versions needs Python {version}, which is missing; install it or name a row."
        )
    return found[-1] if found else str(on_path)


def environment(name: str, row: Row, folder: Path) -> str:
    """Make a row's virtual environment where it is not there yet; return its Python."""
    python = folder / f"env-{name}" / "bin" / "python"
    if not python.exists():
        subprocess.run([interpreter(row.python), "-m", "venv", str(python.parents[1])], check=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "-e", f"{ROOT}[test]", *row.pins, *row.frameworks], check=True)
    return str(python)


def run(name: str, row: Row, folder: Path) -> bool:
    """Run the tests of one row; return whether they passed."""
    print(f"== {name}: Python {row.python}, {', '.join(row.pins)}", flush=True)
    python = environment(name, row, folder)
    settings = os.environ | {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *row.tests]
    return subprocess.run(command, cwd=ROOT, env=settings, check=False).returncode == 0


def table() -> str:
    """Return the rows as a table in Markdown."""
    head = ["| row | Python | versions | tests |", "|---|---|---|---|"]
    rows = [
        f"| {name} | {row.python} | {', '.join(pin.replace('==', ' ') for pin in (*row.pins, *row.frameworks))} | "
        f"{'core, integrations' if row.frameworks else 'core'} |"
        for name, row in ROWS.items()
    ]
    return "\n".join([*head, *rows])


def main(argv: list[str] | None = None) -> int:
    """Run the rows; return 0 if all of them passed."""
    parser = argparse.ArgumentParser(prog="python -m tests.versions", description="Run the tests with other versions.")
    parser.add_argument("rows", nargs="*", choices=[[], *ROWS], metavar="ROW", help=f"one of {', '.join(ROWS)}")
    parser.add_argument("--envs", type=Path, default=Path(tempfile.gettempdir()), help="where environments are kept")
    parser.add_argument("--table", action="store_true", help="print the table of the rows, and run nothing")
    args = parser.parse_args(argv)
    if args.table:
        print(table())
        return 0
    passed = {name: run(name, ROWS[name], args.envs) for name in args.rows or ROWS}
    for name, fine in passed.items():
        print(f"{name}: {'passed' if fine else 'FAILED'}")
    return 0 if all(passed.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
