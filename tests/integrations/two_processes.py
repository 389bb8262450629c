"""What one of two processes does in a test: `python -m tests.integrations.two_processes FOLDER`."""

import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

__all__ = ["launch"]

LIMIT = 240  # seconds
SWEEP = {"start_lr": 1e-4, "end_lr": 1e-2, "num_iter": 6, "progress": False}


def launch(folder):
    """Run `main` in two processes under a time limit.

    Returns:
        The report of each rank: name of a check -> what was found.
    """
    from tests.distributed.launch import environment_of, free_port, wait

    port, processes = free_port(), []
    for rank in range(2):
        environment = environment_of(
            RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=2, LOCAL_WORLD_SIZE=2, MASTER_ADDR="127.0.0.1", MASTER_PORT=port,
            ACCELERATE_USE_CPU="true", HF_HUB_OFFLINE="1",
        )  # fmt: skip
        with (folder / f"{rank}.log").open("w") as log:
            command = [sys.executable, "-X", "faulthandler", "-m", "tests.integrations.two_processes", str(folder)]
            root = Path(__file__).parents[2]
            processes.append(subprocess.Popen(command, cwd=root, env=environment, stdout=log, stderr=log))
    wait(processes, LIMIT)
    reports = []
    for rank, process in enumerate(processes):
        path, log = folder / f"{rank}.json", (folder / f"{rank}.log").read_text()[-3000:]
        finished = process.returncode == 0 and path.exists()
        reports.append(
            {
                **(json.loads(path.read_text()) if finished else {}),
                "log": "" if finished else log or "killed",
            }
        )
    return reports


def main(folder):
    import torch

    from tests.integrations.accelerated import HAS_FSDP2, Setup
    from tests.integrations.test_transformers import build, gpt2, outcome

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rank, report = int(os.environ["RANK"]), {}

    def setup():
        made = Setup(accumulation=2, max_grad_norm=0.1)
        assert isinstance(made.model, torch.nn.parallel.DistributedDataParallel)
        return made

    def trainer():
        return build(folder / "trainer", model=gpt2, gradient_accumulation_steps=2)

    def find(made):
        return made.finder().find(made.loader, **SWEEP)

    check(report, rank, "accelerate", setup, find, Setup.train, Setup.parts, (torch.nn.CrossEntropyLoss, "forward"))
    from lrfinder.integrations.transformers import find_lr
    from tests.integrations.test_transformers import parts

    def train(made):
        tensors, logs = outcome(made)
        return {name: torch.as_tensor(value).tolist() for name, value in tensors.items()}, logs

    check(
        report, rank, "transformers", trainer, lambda made: find_lr(made, **SWEEP), train, parts,
        (type(trainer()), "compute_loss"),
    )  # fmt: skip
    if HAS_FSDP2:
        check_fsdp2(report, folder)
    (folder / f"{rank}.json").write_text(json.dumps(report))


def check_fsdp2(report, folder):
    """Sharded models, through Accelerate and through a Trainer; faults come on both ranks.

    A rank that fails alone between FSDP's collectives is waited for until it exits.
    """
    import torch

    from lrfinder.integrations.transformers import find_lr
    from tests.integrations.accelerated import Setup, local, use_fsdp2
    from tests.integrations.test_transformers import build, gpt2

    def setup():
        made = Setup(accumulation=2, max_grad_norm=0.1, fsdp2=True)
        assert type(made.model).__name__ == "FSDPSequential"
        return made

    def find(made):
        return made.finder().find(made.loader, **SWEEP)

    check(report, 1, "accelerate fsdp2", setup, find, Setup.train, Setup.parts, (torch.nn.CrossEntropyLoss, "forward"))

    def trainer():
        made = build(folder / "trainer", model=gpt2, gradient_accumulation_steps=2)
        use_fsdp2(made.accelerator)
        made.is_fsdp_enabled = True
        return made

    def sharded():  # as after a first training: sharding stays
        made = trainer()
        find_lr(made, **SWEEP)
        return made

    def train(made):
        made.train()
        assert type(made.model).__name__.startswith("FSDP")
        return [log.get("loss") for log in made.state.log_history], [local(p).tolist() for p in made.model.parameters()]

    from tests.integrations.test_transformers import parts

    expected = train(trainer())
    report["transformers fsdp2: trains as without, sharded by the find"] = train(sharded()) == expected
    check(
        report, 1, "transformers fsdp2", sharded, lambda made: find_lr(made, **SWEEP), train, parts,
        (type(trainer()), "compute_loss"),
    )  # fmt: skip


def check(report, rank, name, make, find, train, parts, place):
    """Compare trainings after a find, and after a find that failed on one rank, with one without."""
    from tests.fingerprint import Fingerprint, differences

    expected = train(make())
    made = make()
    before = Fingerprint(**parts(made))
    result = find(made)
    left = differences(before.values, Fingerprint(**parts(made)).values)
    # Accelerate moves a model from "cpu" to "cpu:0", which copies it, when it prepares one; so does `train()`.
    report[f"{name}: left behind"] = [
        path for path in left if not re.search("reducer|logger|^trainer.*:storage$", path)
    ]
    report[f"{name}: losses"] = result.losses.tolist()
    report[f"{name}: world size"] = result.meta["world_size"]
    report[f"{name}: trains as without"] = train(made) == expected
    made = make()
    report[f"{name}: fault"] = raised(lambda: find(made), rank, *place)
    report[f"{name}: trains as without, after a fault"] = train(made) == expected


class Fault(Exception):
    """The user's own."""


def raised(find, rank, owner, name):
    """Let a method raise on rank 1 at its fifth call, and return the name of what comes out of `find`."""
    method, calls = getattr(owner, name), []

    def faulty(*args, **kwargs):
        calls.append(name)
        if rank == 1 and len(calls) == 5:
            raise Fault
        return method(*args, **kwargs)

    setattr(owner, name, faulty)
    try:
        find()
    except Exception as error:  # noqa: BLE001 - its name is the report
        return type(error).__name__
    finally:
        setattr(owner, name, method)
    return "nothing"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    os._exit(0)  # the groups of several accelerators may wait for each other when Python ends
