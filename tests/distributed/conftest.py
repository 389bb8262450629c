"""One launch of all ranks serves all tests, which read its reports: to start a process takes longer than a scenario."""

import pytest

from tests.distributed.launch import launch
from tests.distributed.setups import HAS_FSDP

SCENARIOS = {
    2: (
        "clean_ddp", "nothing_changed_ddp", "result_ddp", "faults", "partial", "released", "decisions", "epochs",
        "validation", "scaler_ddp", "arguments", "suggestion", "common_fault_ddp", "clean_fsdp", "nothing_changed_fsdp",
        "result_fsdp", "grad_norms_fsdp", "full_weights_fsdp", "scaler_fsdp", "common_fault_fsdp", "interrupted",
        "lagging", "closures", "different_ways", "refining_ddp", "refining_fsdp", "several_ddp", "several_fsdp",
        "uneven_epochs", "fresh_buckets", "destroyed", "inside_ddp", "inside_fsdp", "missing_rank", "exit_inside",
    ),
    4: (
        "uncured", "clean_ddp", "nothing_changed_ddp", "result_ddp", "faults", "common_fault_ddp", "clean_fsdp",
        "common_fault_fsdp",
    ),
}  # fmt: skip
NEEDS_FSDP = pytest.mark.skipif(not HAS_FSDP, reason="FSDP2 on the CPU needs torch 2.7")
if not HAS_FSDP:
    SCENARIOS = {size: tuple(name for name in names if "fsdp" not in name) for size, names in SCENARIOS.items()}


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
