"""Run the tests with the versions that `pyproject.toml` promises, each row in its own environment.

    python -m tests.versions                     # all rows, one after the other
    python -m tests.versions oldest newest       # these rows
    python -m tests.versions oldest --core       # without frameworks and what starts processes: minutes
    python -m tests.versions between --envs .envs -- tests/distributed -x
    python -m tests.versions --table             # the table in CONTRIBUTING.md

A row needs its Python: this one, python3.10 and so on from the path, or pyenv's. An environment takes 4 to 7 GB,
since torch brings the libraries of its accelerators; the next run in the same folder uses it again.
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

__all__ = ["ROWS", "Row", "main", "table"]

ROOT = Path(__file__).parents[1]
CORE = ("tests/curve", "tests/optim", "tests/snapshot", "tests/training", "tests/display", "tests/test_restore.py")


@dataclass(frozen=True, kw_only=True)
class Row:
    """Versions that are run together; a name without a version is the newest one.

    Args:
        python: Major and minor version.
        package: What the package requires.
        frameworks: The frameworks of the integrations; without them their tests are skipped.
        test: What the tests require.
    """

    python: str
    package: tuple[str, ...]
    frameworks: tuple[str, ...] = ()
    test: tuple[str, ...] = ()

    @property
    def requirements(self) -> tuple[str, ...]:
        """All of them."""
        return self.package + self.frameworks + self.test


ROWS = {
    "oldest": Row(
        python="3.10",
        package=("torch==2.6.0", "numpy==1.24.0", "scipy==1.10.0", "matplotlib==3.7.0", "tqdm==4.60.0"),
        frameworks=(
            "transformers==4.57.1",
            "accelerate==1.3.0",
            "peft==0.14.0",
            "lightning==2.5.0",
            "pytorch-ignite==0.5.1",
            "fastai==2.7.19",
        ),
        test=(
            "scikit-learn==1.2.0",
            "torchdata==0.11.0",
            "pytest==8.1.1",
            "pytest-timeout==2.3.1",
            "hypothesis==6.100.0",
            "nbclient==0.10.0",
            "nbformat==5.10.0",
            "ipykernel==6.29.0",
        ),
    ),
    "between": Row(
        python="3.12",
        package=("torch==2.7.1", "numpy==2.0.2", "scipy==1.14.1", "matplotlib==3.9.4", "tqdm==4.66.5"),
    ),
    "newest": Row(
        python="3.13",
        package=("torch", "numpy", "scipy", "matplotlib", "tqdm"),
        frameworks=("transformers", "accelerate", "peft", "lightning", "pytorch-ignite"),
        test=("scikit-learn", "torchdata", "pytest"),
    ),
}


def interpreter(version: str) -> str | None:
    """Return a Python of this version: the one that runs, one on the path, or one of pyenv's."""
    if sys.version.startswith(f"{version}."):
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = sorted(pyenv.glob(f"{version}.*/bin/python"))
    return str(found[-1]) if found else shutil.which(f"python{version}")


def environment(name: str, row: Row, folder: Path) -> str:
    """Make a row's virtual environment where it is not there yet; return its Python."""
    home = (folder / f"env-{name}").absolute()
    python = str(home / "bin" / "python")
    if not Path(python).exists():
        subprocess.run([str(interpreter(row.python)), "-m", "venv", str(home)], check=True)
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--upgrade"]
    subprocess.run([*pip, "-e", f"{ROOT}[test]", *row.requirements], check=True)
    return python


def installed(python: str, row: Row) -> str:
    """Return which versions of a row's packages are there."""
    names = [pin.partition("==")[0] for pin in row.requirements]
    code = (
        "import sys, importlib.metadata as m; print(*(f'{name} {m.version(name)}' for name in sys.argv[1:]), sep=', ')"
    )
    return subprocess.run([python, "-c", code, *names], check=True, capture_output=True, text=True).stdout.strip()


def run(name: str, row: Row, folder: Path, tests: list[str]) -> bool:
    """Run the tests of one row; return whether they passed."""
    print(f"== {name}: installing {', '.join(row.requirements)} into {folder}", flush=True)
    try:
        python = environment(name, row, folder)
    except subprocess.CalledProcessError as error:
        print(f"== {name}: FAILED, {error.cmd[0]} -m {error.cmd[2]} says why above", flush=True)
        return False
    print(f"== {name}: Python {row.python}, {installed(python, row)}", flush=True)
    settings = os.environ | {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    return subprocess.run(command, cwd=ROOT, env=settings, check=False).returncode == 0


def table() -> str:
    """Return the rows as a table in Markdown."""
    columns = {name: pins(row) for name, row in ROWS.items()}
    names = list(dict.fromkeys(package for pins_ in columns.values() for package in pins_))
    lines = [["", *ROWS], ["---"] * (len(ROWS) + 1), ["Python", *(row.python for row in ROWS.values())]]
    lines += [[name, *(columns[row].get(name, "") for row in ROWS)] for name in names]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def pins(row: Row) -> dict[str, str]:
    """Return the version of each package of a row; "newest" where none is given."""
    return {name: version or "newest" for name, _, version in (pin.partition("==") for pin in row.requirements)}


def arguments_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line, up to what goes to pytest."""
    summary, _, details = str(__doc__).partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m tests.versions",
        usage="%(prog)s [-h] [--envs FOLDER] [--core | --table] [ROW ...] [-- PYTEST ARGUMENTS]",
        description=summary,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = Path(tempfile.gettempdir()) / "lrfinder-versions"
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"{', '.join(ROWS)}; all of them by default")
    parser.add_argument("--envs", type=Path, metavar="FOLDER", default=default, help="where environments are kept")
    parser.add_argument("--core", action="store_true", help=f"run these tests only: {', '.join(CORE)}")
    parser.add_argument("--table", action="store_true", help="print the table of the rows, and run nothing")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the rows; return 0 if all of them passed."""
    given = sys.argv[1:] if argv is None else argv
    end = given.index("--") if "--" in given else len(given)
    parser = arguments_parser()
    args = parser.parse_args(given[:end])
    unknown = [name for name in args.rows if name not in ROWS]
    if unknown:
        parser.error(f"there is no row {', '.join(unknown)}; the rows are {', '.join(ROWS)}")
    if args.table:
        print(table())
        return 0
    rows = {name: ROWS[name] for name in args.rows or ROWS}
    missing = [f"Python {row.python} for {name}" for name, row in rows.items() if interpreter(row.python) is None]
    if missing:
        parser.error(f"{', '.join(missing)} is missing on the path and among pyenv's; install it, or name other rows")
    tests = [*(CORE if args.core else ()), *given[end + 1 :]]
    passed = {name: run(name, row, args.envs, tests) for name, row in rows.items()}
    for name, fine in passed.items():
        print(f"== {name}: {'passed' if fine else 'FAILED'}")
    return 0 if all(passed.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
