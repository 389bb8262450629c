"""What each learning-rate finder leaves as it was: ``python -m tests.benchmarks.restore`` prints a table.

One training, in the middle of which a range test of a dozen steps is run as the finder's documentation says: once to
its end, once with an exception out of the model's sixth forward pass, which the caller catches. Then each of eleven
kinds of state is compared by its bits with what it was before the call (identity is not asked for). All of them are
changed by plain training steps, which the first column shows. Against each finder counts what its documented call does,
and nothing that a careful user might add: see the column of torch-lr-finder with `reset()` in a `finally` of the
caller's. A finder that isn't installed gets no column, but a line.
"""

import importlib
import random
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from io import StringIO
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lrfinder import LRFinder
from tests.notes import Notes

__all__ = ["FINDERS", "KINDS", "kept", "measure", "table"]

STEPS = 12
RATES = (1e-4, 1e-2)  # below divergence, so that every finder takes all of its steps


class Fault(Exception):
    """What the model raises."""


class Net(nn.Module):
    """Dropout, a batch norm that is kept in eval mode, a teacher written through `.data`, a count of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm, self.frozen_norm = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.BatchNorm1d(8)
        self.dropout, self.head = nn.Dropout(0.2), nn.Linear(8, 3)
        self.teacher = nn.Linear(8, 3).requires_grad_(False)
        self.calls = 0
        self.fails_at: int | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls == self.fails_at:
            raise Fault
        for theirs, mine in zip(self.teacher.parameters(), self.head.parameters(), strict=True):
            theirs.data.mul_(0.9).add_(0.1 * mine.data)
        hidden = self.frozen_norm(self.norm(self.body(x)))
        return self.head(self.dropout(hidden)) + 0.1 * self.teacher(hidden)


class Samples(Dataset):
    """Augmented with Python's and NumPy's global random numbers."""

    def __init__(self) -> None:
        self.x = torch.randn(32, 6)
        self.y = (self.x @ torch.randn(6, 3)).argmax(1)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        noise = random.random() + float(np.random.rand())  # noqa: NPY002 - the global stream is what is watched
        return self.x[index] + 0.1 * noise, self.y[index]


def training() -> SimpleNamespace:
    """Return a training, three steps into an epoch, with the gradients of half an accumulation."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    model = Net()
    model.frozen_norm.eval()
    setup = SimpleNamespace(
        model=model,
        optimizer=torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3),
        criterion=nn.CrossEntropyLoss(),
        loader=DataLoader(Samples(), batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(1)),
    )
    steps(setup, 3)
    setup.criterion(model(setup.loader.dataset.x), setup.loader.dataset.y).backward()
    return setup


def steps(setup: SimpleNamespace, count: int = STEPS) -> None:
    """Train plainly."""
    for _ in range(count):
        inputs, targets = next(iter(setup.loader))
        setup.optimizer.zero_grad()
        setup.criterion(setup.model(inputs), targets).backward()
        setup.optimizer.step()


def _bits(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return (str(value.dtype), tuple(value.shape), value.detach().cpu().numpy().tobytes())
    if isinstance(value, dict):
        return {str(key): _bits(item) for key, item in value.items() if str(key) != "params"}
    if isinstance(value, (list, tuple)):
        return [_bits(item) for item in value]
    return repr(value)


# The kinds, and how each is read.
KINDS: dict[str, Callable[[SimpleNamespace], Any]] = {
    "parameters": lambda s: [p for p in s.model.parameters() if p.requires_grad],
    "buffers": lambda s: dict(s.model.named_buffers()),
    "frozen teacher, written through `.data`": lambda s: dict(s.model.teacher.named_parameters()),
    "optimizer state": lambda s: [s.optimizer.state.get(p) for g in s.optimizer.param_groups for p in g["params"]],
    "learning rates and other settings of the groups": lambda s: s.optimizer.param_groups,
    "gradients": lambda s: [p.grad for p in s.model.parameters()],
    "training flags": lambda s: [module.training for module in s.model.modules()],
    "plain attributes of modules": lambda s: s.model.calls,
    "torch's random numbers": lambda _: torch.get_rng_state(),
    "Python's and NumPy's random numbers": lambda _: [
        random.getstate(),
        [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],  # noqa: NPY002
    ],
    "the loader's generator": lambda s: s.loader.generator.get_state(),
}


# The finders, each used as its documentation says.


def run_nothing(setup: SimpleNamespace) -> None:
    """Take plain training steps in place of a range test; `train()` is called as an epoch does."""
    setup.model.train()
    for group in setup.optimizer.param_groups:
        group["lr"] = 1e-2
    steps(setup)


def run_lrfinder(setup: SimpleNamespace) -> None:
    """Run this package's finder."""
    finder = LRFinder(setup.model, setup.optimizer, setup.criterion)
    finder.find(setup.loader, start_lr=RATES[0], end_lr=RATES[1], num_iter=STEPS, progress=False)


def run_torch_lr_finder(setup: SimpleNamespace) -> None:
    """Run torch-lr-finder, and `reset()` after it."""
    import torch_lr_finder

    finder = torch_lr_finder.LRFinder(setup.model, setup.optimizer, setup.criterion)
    finder.range_test(setup.loader, start_lr=RATES[0], end_lr=RATES[1], num_iter=STEPS)
    finder.reset()


def run_torch_lr_finder_finally(setup: SimpleNamespace) -> None:
    """Run torch-lr-finder for a user who takes care that `reset()` is called also after an exception."""
    import torch_lr_finder

    finder = torch_lr_finder.LRFinder(setup.model, setup.optimizer, setup.criterion)
    try:
        finder.range_test(setup.loader, start_lr=RATES[0], end_lr=RATES[1], num_iter=STEPS)
    finally:
        finder.reset()


def run_ignite(setup: SimpleNamespace) -> None:
    """Run Ignite's FastaiLRFinder, which is attached in a context."""
    from ignite.engine import create_supervised_trainer
    from ignite.handlers import FastaiLRFinder

    trainer = create_supervised_trainer(setup.model, setup.optimizer, setup.criterion)
    trainer.logger.disabled = True
    to_save = {"model": setup.model, "optimizer": setup.optimizer}
    finder = FastaiLRFinder()
    with finder.attach(trainer, to_save, num_iter=STEPS, start_lr=RATES[0], end_lr=RATES[1]) as attached:
        attached.run(setup.loader)


def run_lightning(setup: SimpleNamespace) -> None:
    """Run Lightning's tuner on a module that holds the model and hands over the optimizer."""
    import tempfile

    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.lr = setup.model, 1e-3

        def training_step(self, batch: Any, _index: int) -> torch.Tensor:
            inputs, targets = batch
            return setup.criterion(self.model(inputs), targets)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return setup.optimizer

    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            default_root_dir=folder,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        lightning.pytorch.tuner.Tuner(trainer).lr_find(
            Module(), setup.loader, min_lr=RATES[0], max_lr=RATES[1], num_training=STEPS, update_attr=False
        )


@dataclass(frozen=True, kw_only=True)
class Finder:
    """A finder, the package that it comes from, and what to import before (imports may draw random numbers)."""

    run: Callable[[SimpleNamespace], None]
    package: str
    module: str


_TLF = {"package": "torch-lr-finder", "module": "torch_lr_finder"}
FINDERS = {
    "no finder: plain steps": Finder(run=run_nothing, package="torch", module="torch"),
    "lrfinder": Finder(run=run_lrfinder, package="lrfinder", module="lrfinder"),
    "torch-lr-finder": Finder(run=run_torch_lr_finder, **_TLF),
    "torch-lr-finder, `reset()` in `finally`": Finder(run=run_torch_lr_finder_finally, **_TLF),
    "Ignite": Finder(run=run_ignite, package="pytorch-ignite", module="ignite.handlers"),
    "Lightning": Finder(run=run_lightning, package="lightning", module="lightning.pytorch.tuner"),
}


def kept(name: str, *, fault: bool) -> dict[str, bool]:
    """Return for each kind whether it is as before.

    Args:
        name: A key of `FINDERS`.
        fault: Whether the model raises in the middle.

    Returns:
        By kind, whether its bits are the same.

    Raises:
        ImportError: The finder cannot be imported.
        RuntimeError: The finder did not train, or the fault did not get out of it.
    """
    importlib.import_module(FINDERS[name].module)
    setup = training()
    model, calls = setup.model, setup.model.calls
    before = {kind: _bits(read(setup)) for kind, read in KINDS.items()}
    model.fails_at = calls + 6 if fault else None
    passes = Notes()  # a plain list would be put back, too
    handle = model.register_forward_pre_hook(lambda *_: passes.append(1))
    raised = False
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):  # bars and messages
            FINDERS[name].run(setup)
    except Fault:
        raised = True
    handle.remove()
    model.fails_at = None
    expected = 6 if fault else STEPS
    if raised != fault or len(passes) < expected:
        raise RuntimeError(f"{name} took {len(passes)} of {expected} forward passes, {fault=}, {raised=}.")
    return {kind: _bits(read(setup)) == before[kind] for kind, read in KINDS.items()}


def measure() -> tuple[dict[tuple[str, bool], dict[str, bool]], dict[str, str]]:
    """Measure every finder that is installed.

    Returns:
        What is kept, by finder and whether there was a fault; and for each finder that could not be run, why.
    """
    found, missing = {}, {}
    for name, finder in FINDERS.items():
        try:
            importlib.import_module(finder.module)
        except ImportError as error:
            missing[name] = str(error)
            continue
        found |= {(name, fault): kept(name, fault=fault) for fault in (False, True)}
    return found, missing


def table() -> str:
    """Write the table.

    Returns:
        Markdown.
    """
    found, missing = measure()
    names = [name for name in FINDERS if name not in missing]
    heads = [name if FINDERS[name].package == "torch" else f"{name} {version(FINDERS[name].package)}" for name in names]
    rows = [["kind of state", *heads], ["---"] + [":-:"] * len(heads)]
    rows += [
        [kind, *(f"{_mark(found[name, False][kind])} / {_mark(found[name, True][kind])}" for name in names)]
        for kind in KINDS
    ]
    counts = [f"**{sum(found[name, False].values())} / {sum(found[name, True].values())}**" for name in names]
    rows.append([f"**kept of {len(KINDS)}**", *counts])
    lines = ["Kept on a clean run / after an exception:", "", *(f"| {' | '.join(row)} |" for row in rows)]
    lines += [f"\n{name} could not be imported: {why}" for name, why in missing.items()]
    return "\n".join(lines)


def _mark(is_kept: bool) -> str:
    return "yes" if is_kept else "no"


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sys.stdout.write(table() + "\n")
