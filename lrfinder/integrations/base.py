"""How to support a framework: what an integration drives, with a worked example.

A find needs to know how the framework takes a training step, and what a step changes. An integration says both in a
`TrainingSetup`, and `LRFinder.from_setup(setup).find(loader)` runs scout, sweep and refining, stops, and restores.

1. **A step**: an object with the attributes of `lrfinder.training.Step` that is called with a list of
   `accumulation_steps` micro-batches, lets the framework take one optimizer step on them, and returns their mean loss,
   detached. The finder has written the learning rates to `optimizer.param_groups` before. Do not compute a step
   again: call the framework's own method, so that precision, clipping and hooks are its.
2. **One list of what a step changes** besides model and optimizer: the framework's objects, in a function `captured`.
   Their attributes are captured and restored, with everything that is reached from them through modules, optimizers
   and containers. What they lead to and must not be entered, such as data sets, goes into `skipped`.
3. **Getting ready**: if the framework has to create, wrap or register something first, do it within
   `with restored(captured(...)):`, which undoes it.
4. **In several processes** the step calls `ranks.before_backward()` before each backward pass and
   `ranks.after_backward()` after it, and `ranks.any_skipped(...)` where a gradient scaler may skip. `make_step` is
   given the ranks; in a single process these calls do nothing.
5. **The interface**: `find_lr(..., apply=False, extra_state=(), snapshot_device=None, snapshot_frozen=True,
   **find_options)`. `apply=True` makes the next training use `result.suggestion`, which raises `NoSuggestionError`
   where the curve has none.

No private method of `LRFinder` is overridden. A complete integration for a framework whose `Coach` trains a `net`:

    >>> import torch
    >>> from dataclasses import replace
    >>> from lrfinder import LRFinder
    >>> class Coach:
    ...     "The framework: `coach.fit(batches)` trains."
    ...     def __init__(self, net, lr):
    ...         self.net, self.lr, self.seen = net, lr, []
    ...         self.optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    ...     def train_on(self, batch):
    ...         loss = self.net(batch).square().mean()
    ...         self.optimizer.zero_grad()
    ...         loss.backward()
    ...         self.optimizer.step()
    ...         self.seen.append(len(batch))
    ...         return loss
    ...     def fit(self, batches):
    ...         self.optimizer.param_groups[0]["lr"] = self.lr
    ...         return [self.train_on(batch).item() for batch in batches]
    >>> class CoachStep:
    ...     "One optimizer step of a coach."
    ...     accumulation_steps, skipped, record_grad_norm, grad_norm = 1, False, None, None
    ...     def __init__(self, coach):
    ...         self.coach = coach
    ...     def __call__(self, micro_batches):
    ...         return self.coach.train_on(micro_batches[0]).detach()
    >>> def find_lr(
    ...     coach, batches, *, apply=False, extra_state=(), snapshot_device=None, snapshot_frozen=True, **find_options
    ... ):
    ...     setup = TrainingSetup(
    ...         model=coach.net,
    ...         optimizer=coach.optimizer,
    ...         make_step=lambda ranks: CoachStep(coach),
    ...         extra_state=tuple(extra_state),
    ...         captured=(coach,),
    ...         snapshot_device=snapshot_device,
    ...         snapshot_frozen=snapshot_frozen,
    ...     )
    ...     result = LRFinder.from_setup(setup).find(batches, **find_options)
    ...     if apply:
    ...         coach.lr = result.suggestion.lr
    ...     return replace(result, next_step="coach.lr = result.suggestion.lr")

    >>> _ = torch.manual_seed(0)
    >>> coach = Coach(torch.nn.Linear(4, 1), lr=0.1)
    >>> batches = list(torch.randn(20, 16, 4))
    >>> result = find_lr(coach, batches, apply=True, total_steps=20, progress=False)
    >>> coach.lr == result.suggestion.lr, coach.seen
    (True, [])
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lrfinder.snapshot import ErrorCollector, ObjectGraph, RandomStreams, interrupts_deferred
from lrfinder.training import Step, TrainingSetup

__all__ = ["Step", "TrainingSetup", "needs", "restored"]


@contextmanager
def needs(package: str) -> Iterator[None]:
    """Say how to install a framework if it is missing when it is imported.

    Args:
        package: The name of the package that the block imports, and of the extra that installs it.

    Yields:
        Nothing.

    Raises:
        ModuleNotFoundError: The package is not installed; the message has the command that installs it.

    Example:
        >>> with needs("torch"):
        ...     import torch
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise  # something that the package needs itself
        raise ModuleNotFoundError(
            f"lrfinder.integrations.{package} needs {package}, which is not installed; "
            f'run: pip install "lrfinder[{package}]"',
            name=error.name,
        ) from error


@contextmanager
def restored(objects: Iterable[Any], skip: Iterable[Any] = (), devices: Iterable[torch.device] = ()) -> Iterator[None]:
    """Restore, when the block ends or raises, the attributes of objects and the random number generators.

    Around `LRFinder.find` this undoes what getting ready for it changes: objects that a framework creates, wraps or
    registers. The values of tensors are not copied: `find` restores those that training changes.

    Args:
        objects: Their attributes are captured, and all that is reached from these through modules, optimizers and plain
            containers.
        skip: What is not entered on the way, such as data sets.
        devices: The accelerators in use.

    Raises:
        RestoreError: Something could not be restored; everything else was.

    Example:
        >>> class Trainer:
        ...     optimizer, hooks = None, []
        >>> trainer = Trainer()
        >>> with restored([trainer]):
        ...     trainer.optimizer = "made for the sweep"
        >>> trainer.optimizer is None
        True
    """  # noqa: DOC502 - raised by the collector
    graph = ObjectGraph(objects, skip=skip)
    streams = RandomStreams(graph.generators, devices)
    try:
        yield
    finally:
        errors = ErrorCollector()
        with interrupts_deferred():
            graph.restore(errors)
            streams.restore(errors)
        errors.raise_if_any()
