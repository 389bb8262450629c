"""Starts one process a rank, each with a hard time limit, and collects what they report."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIMIT = 240  # seconds for a launch, whatever happens in it; it takes 60 on two idle cores


def launch(scenarios, world_size, folder, limit=LIMIT):
    """Run scenarios of `worker` in `world_size` processes.

    Returns:
        For each rank: its report (name of a check -> what was found) and the tail of what it printed.
    """
    port = free_port()
    processes = []
    for rank in range(world_size):
        log = (folder / f"{rank}.log").open("w")
        command = [sys.executable, "-X", "faulthandler", "-m", "tests.distributed.worker", str(folder), *scenarios]
        environment = environment_of(RANK=rank, WORLD_SIZE=world_size, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log))
        log.close()
    wait(processes, limit)
    return [read_report(folder, rank, process.returncode) for rank, process in enumerate(processes)]


def environment_of(**variables):
    kept = {name: value for name, value in os.environ.items() if name not in {"RANK", "WORLD_SIZE", "LOCAL_RANK"}}
    return {**kept, "OMP_NUM_THREADS": "1", **{name: str(value) for name, value in variables.items()}}


def wait(processes, limit):
    deadline = time.monotonic() + limit
    try:
        with suppress(subprocess.TimeoutExpired):  # what still runs then is stopped
            for process in processes:
                process.wait(max(deadline - time.monotonic(), 0.1))
    finally:
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGABRT)  # faulthandler writes to the log where each thread was
                process.wait()


def read_report(folder, rank, returncode):
    path = folder / f"{rank}.json"
    report = json.loads(path.read_text()) if path.exists() else {}
    report["log"] = (folder / f"{rank}.log").read_text()[-6000:]
    report["returncode"] = returncode
    return report


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
