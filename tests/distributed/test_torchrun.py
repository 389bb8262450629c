"""As users start it: under torchrun."""

import subprocess
import sys

from tests.distributed.launch import ROOT, environment_of, read_report, wait


def test_torchrun(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "tests.distributed.worker", str(tmp_path), "result_ddp"]
    with (tmp_path / "run.log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment_of(), stdout=log, stderr=log)
    wait([process], limit=100)
    for rank in range(2):
        (tmp_path / f"{rank}.log").touch()
    first, second = (read_report(tmp_path, rank, process.returncode) for rank in range(2))
    assert process.returncode == 0, (tmp_path / "run.log").read_text()
    assert first["result_ddp"]["losses"] == second["result_ddp"]["losses"]
    assert second["result_ddp"]["meta"]["world_size"] == 2
