"""One launch of all ranks serves all tests, which read its reports: to start a process takes longer than a scenario."""

import pytest
import torch

from tests.distributed.launch import launch

SCENARIOS = {
    2: (
        "clean_ddp", "nothing_changed_ddp", "result_ddp", "faults", "partial", "released", "decisions", "epochs",
        "validation", "scaler_ddp", "arguments", "suggestion", "common_fault_ddp", "clean_fsdp", "nothing_changed_fsdp",
        "result_fsdp", "grad_norms", "full_weights", "scaler_fsdp", "common_fault_fsdp", "interrupted",
        "lagging", "closures", "different_ways", "refining_ddp", "refining_fsdp", "several_ddp", "several_fsdp",
        "inside_collectives", "missing_rank", "exit_inside",
    ),
    4: (
        "uncured", "clean_ddp", "nothing_changed_ddp", "result_ddp", "faults", "common_fault_ddp", "clean_fsdp",
        "common_fault_fsdp",
    ),
}  # fmt: skip
# FSDP2 on the CPU fails in torch itself before 2.7.
HAS_FSDP = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 7)
NEED_FSDP = {"full_weights", "grad_norms"}
if not HAS_FSDP:
    SCENARIOS = {
        size: tuple(name for name in names if "fsdp" not in name and name not in NEED_FSDP)
        for size, names in SCENARIOS.items()
    }


@pytest.fixture(scope="session")
def reports(tmp_path_factory):
    """Return a function that gives the report of every rank, of two ranks or of four."""
    known = {}

    def of(world_size):
        if world_size not in known:
            known[world_size] = launch(SCENARIOS[world_size], world_size, tmp_path_factory.mktemp(f"ranks{world_size}"))
        crashed = [report for report in known[world_size] if report["returncode"] or "crash" in report]
        assert not crashed, "\n".join(f"{each['returncode']}: {each.get('crash')}\n{each['log']}" for each in crashed)
        return known[world_size]

    return of
