"""Options and fixtures that all tests share."""

import gc
import signal
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from tests.loaded_modules import ForkedImports

# Programs that tests start in processes of their own.
collect_ignore = ["integrations/lightning_ranks.py", "integrations/two_processes.py", "distributed/worker.py"]

ROOT = Path(__file__).parents[1]
FRAMEWORKS = {"integrations", "test_other_packages.py", "test_distribution.py"}  # where tests need further packages


def pytest_configure():
    # A shell starts background jobs with Ctrl-C ignored; the tests press it, and the processes they start inherit this.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    for item in items:
        if FRAMEWORKS & {*item.path.parts[len(ROOT.parts) :]}:
            item.add_marker("frameworks")


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="where the tests train: cpu (default) or cuda")


@pytest.fixture
def device(request) -> torch.device:
    """Return the device named on the command line; skip where the machine lacks it."""
    device = torch.device(request.config.getoption("--device"))
    if device.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("--device cuda: this machine has no CUDA device")
    return device


@pytest.fixture(autouse=True)
def _one_thread_and_a_seed():
    torch.set_num_threads(1)  # the models are tiny, and two processes that share two cores would spin
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _collecting_garbage_is_cheap():
    gc.collect()
    gc.freeze()  # a test's own collections look at its own objects, not at those of all imported packages


@pytest.fixture(scope="session")
def modules_after():
    """Return a function from a statement to the modules that are loaded after it, beside those of NumPy and torch."""
    forked = ForkedImports()
    yield forked
    forked.close()


@pytest.fixture
def group_of_one(tmp_path):
    """Make this process the only rank of a process group."""
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    timeout = timedelta(seconds=17)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1, timeout=timeout)
    yield
    torch.distributed.destroy_process_group()
