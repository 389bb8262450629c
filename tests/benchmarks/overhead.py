"""What a range test costs beyond its training steps, beside a bare loop and three other finders.

    python -m tests.benchmarks.overhead --report
    python -m tests.benchmarks.overhead --report --rows mlp cnn --rounds 15

In each round every contender does the same work once, on a model built afresh, in an order that changes; its time is
divided by the bare loop's in the same round. Reported are the medians over the rounds, with the quartiles as the
spread. Beside wall time stand processor time, which other programs on the machine disturb less, and, per step, how
many more operators torch dispatches and how many more Python functions are called than in the bare loop: these two
are the same in every run. Memory is the highest that a fresh process reaches, above what it held before.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from tests.benchmarks.contenders import CONTENDERS, Task, quiet

__all__ = ["ROWS", "main"]

RESULTS = Path(__file__).with_suffix(".json")
BARE, OURS, NO_COPY = "bare loop", "lrfinder", "lrfinder, frozen not copied"
PEERS = ("torch-lr-finder", "Ignite", "Lightning")
BATCHES = 20  # in memory; the loader starts over


def mlp() -> Task:
    """Some 0.4 ms a step."""
    layers = [nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)]
    return _task(nn.Sequential(*layers), (64, 64))


def cnn() -> Task:
    """Some 5 ms a step."""
    layers: list[nn.Module] = []
    for channels in ((3, 16), (16, 32)):
        layers += [nn.Conv2d(*channels, 3, padding=1), nn.BatchNorm2d(channels[1]), nn.ReLU(), nn.MaxPool2d(2)]
    return _task(nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 6 * 6, 10)), (16, 3, 24, 24))


def large(width: int) -> Task:
    """Four square layers."""
    layers = [nn.Linear(width, width) for _ in range(4)]
    return _task(nn.Sequential(*layers, nn.Linear(width, 10)), (8, width))


def many_tensors() -> Task:
    """1,000 small tensors."""
    return _task(nn.Sequential(*(nn.Linear(8, 8) for _ in range(499)), nn.Linear(8, 10)), (8, 8))


def many_groups() -> Task:
    """200 parameter groups, each with a rate of its own."""
    model = nn.Sequential(*(nn.Linear(16, 16) for _ in range(99)), nn.Linear(16, 10))
    groups = [{"params": [p], "lr": 0.1 / (1 + i)} for i, p in enumerate(model.parameters())]
    return _task(model, (8, 16), groups)


class LowRank(nn.Module):
    """A frozen square layer with a trainable detour of a low rank."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.frozen = nn.Linear(width, width).requires_grad_(False)
        self.down, self.up = nn.Linear(width, rank, bias=False), nn.Linear(rank, width, bias=False)

    def forward(self, x):
        return self.frozen(x) + self.up(self.down(x))


def adapters() -> Task:
    """100 M parameters, 1 % of them trainable."""
    return _task(nn.Sequential(*(LowRank(5000, 25) for _ in range(4)), nn.Linear(5000, 10)), (8, 5000))


def _task(model: nn.Module, shape: tuple[int, ...], groups: Any = None) -> Task:
    batches = [(torch.randn(shape), torch.randint(0, 10, shape[:1])) for _ in range(BATCHES)]
    parameters = [p for p in model.parameters() if p.requires_grad] if groups is None else groups
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    return Task(
        model=model,
        optimizer=optimizer,
        loader=DataLoader(batches, batch_size=None, shuffle=True),  # type: ignore[arg-type]  # a list will do
        criterion=nn.CrossEntropyLoss(),
    )


ROWS: dict[str, tuple[str, Callable[[], Task], float | None]] = {
    "mlp": ("(a) MLP", mlp, 1.08),
    "cnn": ("(b) CNN", cnn, 1.02),
    "20M": ("(c) 20 M parameters", lambda: large(2236), 1.03),
    "100M": ("(c) 100 M parameters", lambda: large(5000), 1.03),
    "tensors": ("(d) 1,000 tensors", many_tensors, 1.10),
    "groups": ("(e) 200 groups", many_groups, 1.10),
    "adapters": ("(f) 100 M, 1 % trainable", adapters, None),
}
"""Label, how to build it, and how many times the bare loop's time the finder may take; None where that is not set."""


def contenders_of(row: str) -> list[str]:
    """Return who runs a row, the bare loop first."""
    return [BARE, OURS, *([NO_COPY] if row == "adapters" else []), *PEERS]


def measure(row: str, num_iter: int, rounds: int) -> dict[str, Any]:
    """Return times, counts and memory of one row."""
    names = contenders_of(row)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for number in range(-1, rounds):  # the first is the warm-up
        for name in random.sample(names, len(names)):
            taken = _timed(row, name, num_iter)
            if number >= 0:
                times[name].append(taken)
    wall = {name: [each[0] for each in times[name]] for name in names}
    cpu = {name: [each[1] for each in times[name]] for name in names}
    counts = {name: counted(row, name) for name in names}
    return {
        "num_iter": num_iter,
        "rounds": rounds,
        "step_ms": statistics.median(wall[BARE]) / num_iter * 1e3,
        "wall": {name: _ratios(wall[name], wall[BARE]) for name in names},
        "cpu": {name: _ratios(cpu[name], cpu[BARE]) for name in names},
        "operators": {name: counts[name][0] - counts[BARE][0] for name in names},
        "calls": {name: counts[name][1] - counts[BARE][1] for name in names},
        "memory_mib": {name: memory_of(row, name) for name in names},
    }


def _timed(row: str, name: str, num_iter: int) -> tuple[float, float]:
    task = _build(row)
    with _silence():
        wall, cpu = time.perf_counter(), time.process_time()
        CONTENDERS[name](task, num_iter)
        return time.perf_counter() - wall, time.process_time() - cpu


def _build(row: str) -> Task:
    torch.manual_seed(0)
    task = ROWS[row][1]()
    gc.collect()
    return task


def _keep_freed_memory() -> None:
    """Let glibc give no memory back between steps: else a step's time depends by a third on where the heap ends."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        trim_threshold, mmap_threshold = -1, -3
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(mmap_threshold, 2**25)


def _ratios(times: Sequence[float], bare: Sequence[float]) -> list[float]:
    """Return the lower quartile, the median and the upper quartile of the ratios."""
    return statistics.quantiles([a / b for a, b in zip(times, bare, strict=True)], n=4, method="inclusive")


class Operators(TorchDispatchMode):
    """Counts the operators that torch dispatches."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def counted(row: str, name: str) -> tuple[float, float]:
    """Return operators and Python calls a step: the difference of two runs, which leaves out what is paid once."""
    few, more = 10, 20
    operators = [_count_operators(row, name, steps) for steps in (few, more)]
    calls = [_count_calls(row, name, steps) for steps in (few, more)]
    return (operators[1] - operators[0]) / (more - few), (calls[1] - calls[0]) / (more - few)


def _count_operators(row: str, name: str, num_iter: int) -> int:
    task = _build(row)
    with _silence(), Operators() as operators:
        CONTENDERS[name](task, num_iter)
    return operators.count


def _count_calls(row: str, name: str, num_iter: int) -> int:
    task, count = _build(row), 0

    def profile(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    with _silence():
        sys.setprofile(profile)
        try:
            CONTENDERS[name](task, num_iter)
        finally:
            sys.setprofile(None)
    return count


def memory_of(row: str, name: str) -> float:
    """Return by how many MiB a fresh process grew at most, for five steps."""
    command = [sys.executable, "-m", "tests.benchmarks.overhead", "--memory", row, name]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _grown(row: str, name: str) -> float:
    with _silence():
        CONTENDERS[name](_build("mlp"), 5)  # what loads on first use is not counted
    task = _build(row)
    before = _status("VmRSS")
    with _silence():
        CONTENDERS[name](task, 5)
    return (_status("VmHWM") - before) / 2**10


def _status(key: str) -> int:
    """Return a number of KiB that Linux knows of this process; `getrusage` would count its parent's peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


@contextmanager
def _silence():
    yield from quiet()


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return the report as Markdown."""
    columns = [OURS, *PEERS]
    lines = [
        f"| task | bare steps | {' | '.join(columns)} | allowed |",
        f"|---|---|{'---|' * len(columns)}---|",
    ]
    for row, measured in results.items():
        label, _, allowed = ROWS[row]
        bound = "-" if allowed is None else f"{allowed:.2f}"
        for ours in (OURS, NO_COPY):
            if ours in measured["wall"]:
                cells = [_cell(measured["wall"][name]) for name in [ours, *PEERS]]
                note = ", not copied" if ours == NO_COPY else ""
                step = f"{measured['step_ms']:.2f} ms x {measured['num_iter']}"
                lines.append(f"| {label}{note} | {step} | {' | '.join(cells)} | {bound} |")
    lines += [
        "",
        f"| task: more than the bare loop | {' | '.join(columns)} |",
        f"|---|{'---|' * len(columns)}",
    ]
    for row, measured in results.items():
        for kind, unit in (("cpu", "processor time"), ("operators", "operators a step"), ("calls", "calls a step")):
            cells = [f"{_middle(measured[kind][name]):.2f}" for name in columns]
            lines.append(f"| {ROWS[row][0]}: {unit} | {' | '.join(cells)} |")
        memory = measured["memory_mib"]
        cells = [f"{memory[name]:,.0f} MiB" for name in columns]
        if NO_COPY in memory:
            cells[0] += f" ({memory[NO_COPY]:,.0f} not copied)"
        lines.append(f"| {ROWS[row][0]}: peak memory (bare: {memory[BARE]:,.0f} MiB) | {' | '.join(cells)} |")
    return "\n".join(lines)


def _middle(value: Any) -> float:
    return value[1] if isinstance(value, list) else value


def _cell(ratios: list[float]) -> str:
    low, middle, high = ratios
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true", help="print the table and write the JSON beside this file")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--num-iter", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", nargs=2, metavar=("ROW", "CONTENDER"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    if options.memory:
        print(_grown(*options.memory))
        return
    _keep_freed_memory()
    stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for row in options.rows:
        stored[row] = measure(row, options.num_iter, options.rounds)
        print(row, {name: round(ratio[1], 3) for name, ratio in stored[row]["wall"].items()}, flush=True)
        if options.report:
            RESULTS.write_text(json.dumps(stored, indent=1, default=float) + "\n")
    if options.report:
        print(table({row: stored[row] for row in ROWS if row in stored}))


if __name__ == "__main__":
    main()
