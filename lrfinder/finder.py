"""LRFinder: puts the parts together."""

import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lrfinder import checks
from lrfinder.curve import RULES, CustomRule, curve_warnings, lr_spreads
from lrfinder.display import Progress, versions
from lrfinder.distributed import Ranks, rank_group
from lrfinder.errors import ArgumentError
from lrfinder.optim import group_index, group_names, optimizer_layers
from lrfinder.options import FindOptions, Mode, RuleName, ScheduleName, Smoothing, ValMode
from lrfinder.result import RangeTestResult
from lrfinder.search import Search, SearchOutcome
from lrfinder.snapshot import Snapshot, is_sharded, reshard
from lrfinder.training import (
    Batches,
    BatchLoss,
    Step,
    TrainingSetup,
    TrainingStep,
    UserStep,
    forbid_other_optimizers,
    use_exclusively,
)
from lrfinder.warnings import setup_warnings, unused_lr_warnings, validation_warnings

__all__ = ["LRFinder"]


class LRFinder:
    """Find a learning rate for a training setup, and leave the setup as it was, bit for bit.

    A batch becomes a loss in one of four ways:

    - `criterion(model(inputs), targets)`, for `(inputs, targets)` batches; `((a, b), y)` calls `model((a, b))`,
      `(a, b, y)` calls `model(a, b)`.
    - Without a criterion the model returns its loss: `model(**batch).loss` for a mapping, `model(*batch)` for a tuple.
    - `loss_fn(model, batch)` for everything else. It may return None to skip a batch. Without it, a batch that is None
      is skipped.
    - `step(batch)` is your own forward pass, backward pass and optimizer step, as for a GAN.

    Args:
        model: The model, in the mode and on the device in which it is trained.
        optimizer: Its optimizer. With several parameter groups the learning rate of the largest group is swept, and the
            other groups keep their ratios to it.
        criterion: `criterion(outputs, targets)` returns a scalar loss.
        loss_fn: `loss_fn(model, batch)` returns a scalar loss, in place of a criterion.
        step: `step(batch)` trains on one batch and returns its loss, in place of everything else.
        device: Where batches are moved; by default where the model is.
        autocast: A dtype, or keyword arguments, for `torch.autocast` around forward pass and loss.
        grad_scaler: The `GradScaler` of the training, for float16.
        accumulation_steps: Micro-batches per optimizer step; a point of the curve is their mean loss.
        max_grad_norm: Clip gradients to this norm before each step.
        backward: `backward(loss)` in place of `loss.backward()`, for each micro-batch; it has to divide by
            `accumulation_steps` itself.
        closure: Call `optimizer.step(closure)` after the backward pass, with a closure that computes loss and gradients
            again. By default where the optimizer needs it: LBFGS, SAM.
        extra_state: More that the training changes: modules, optimizers, random number generators, objects with a
            `state_dict`, ordinary objects, containers. What the model, the optimizer and the functions above lead to
            (attributes, closures, bound methods' objects) is captured without it. Not captured are global variables,
            attributes of classes, data sets, iterators, files and other resources, objects of frameworks such as
            trainers and loggers, and state inside C extensions.
        snapshot_device: Where copies are kept: beside their tensors (default), or `"cpu"`.
        snapshot_frozen: Copy frozen parameters too, to host memory. False saves that memory, and checks instead that
            they are not written to.

    Attributes:
        partial: After a `find` that raised, what it had measured until then; else None.

    Raises:
        ArgumentError: The parts do not fit together; the message says which and what to do.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Linear(4, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> batches = [(x, x.sum(1, keepdim=True)) for x in torch.randn(4, 32, 4)]
        >>> before = model.weight.detach().clone()
        >>> result = LRFinder(model, optimizer, nn.MSELoss()).find(
        ...     batches, start_lr=1e-4, end_lr=10.0, num_iter=40, progress=False
        ... )
        >>> 0.01 < result.suggestion.lr < 1.0, bool((model.weight == before).all())
        (True, True)
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        criterion: Callable[[Any, Any], Tensor] | None = None,
        *,
        loss_fn: Callable[[Any, Any], Tensor] | None = None,
        step: Callable[[Any], Any] | None = None,
        device: torch.device | str | None = None,
        autocast: torch.dtype | Mapping[str, Any] | None = None,
        grad_scaler: torch.amp.GradScaler | None = None,
        accumulation_steps: int = 1,
        max_grad_norm: float | None = None,
        backward: Callable[[Tensor], Any] | None = None,
        closure: bool | None = None,
        extra_state: Iterable[Any] = (),
        snapshot_device: torch.device | str | None = None,
        snapshot_frozen: bool = True,
    ) -> None:
        replaced = {
            "autocast": autocast is not None,
            "grad_scaler": grad_scaler is not None,
            "accumulation_steps": accumulation_steps != 1,
            "max_grad_norm": max_grad_norm is not None,
            "backward": backward is not None,
            "closure": closure is not None,
        }
        ways = {"criterion": criterion, "loss_fn": loss_fn, "step": step}
        checks.check_ways_to_a_loss(criterion, loss_fn, step, replaced)
        checks.check_step_options(autocast, max_grad_norm, backward, closure=closure, grad_scaler=grad_scaler)
        accumulation_steps = checks.positive_int("LRFinder(accumulation_steps=...)", accumulation_steps)
        device = None if device is None else torch.device(device)
        batch_loss = BatchLoss(model, criterion, loss_fn, device, autocast)

        def make_step(ranks: Ranks) -> Step:
            if step is not None:
                return UserStep(step, batch_loss.device)
            return TrainingStep(
                batch_loss,
                optimizer,
                grad_scaler=grad_scaler,
                accumulation_steps=accumulation_steps,
                max_grad_norm=max_grad_norm,
                backward=backward,
                closure=closure,
                ranks=ranks,
            )

        self._begin(
            TrainingSetup(
                model=model,
                optimizer=optimizer,
                make_step=make_step,
                batch_loss=None if step is not None else batch_loss,
                device=device,
                accumulation_steps=accumulation_steps,
                collective_steps=step is not None,
                grad_scaler=grad_scaler,
                extra_state=checks.extra_states(extra_state),
                captured=tuple(each for each in (criterion, loss_fn, step, backward) if each is not None),
                snapshot_device=snapshot_device,
                snapshot_frozen=snapshot_frozen,
                description="".join(f", {name}={_name(way)}" for name, way in ways.items() if way is not None),
            )
        )

    @classmethod
    def from_setup(cls, setup: TrainingSetup) -> "LRFinder":
        """Return a finder for a training that steps in its own way, as integrations make it.

        Args:
            setup: The training; see `lrfinder.integrations.base`.

        Returns:
            The finder.

        Raises:
            ArgumentError: Its model or optimizer cannot be swept.
        """  # noqa: DOC502 - raised by the checks
        finder = cls.__new__(cls)
        finder._begin(setup)
        return finder

    def _begin(self, setup: TrainingSetup) -> None:
        self._setup = setup
        self._name = ""
        self.partial: RangeTestResult | None = None
        _check(setup)

    @property
    def setup(self) -> TrainingSetup:
        """The training as a find sees it."""
        return self._setup

    @property
    def model(self) -> nn.Module:
        """The model."""
        return self._setup.model

    @property
    def optimizer(self) -> Any:
        """The optimizer whose learning rate is swept."""
        return self._setup.optimizer

    def __repr__(self) -> str:
        """Return one line that names the parts."""
        return f"LRFinder({_name(self.model)}, {_name(self.optimizer)}{self._setup.description})"

    @contextmanager
    def named(self, name: str) -> Iterator[None]:
        """Within this context the warnings of `find` begin with a name, to tell several finds apart.

        Args:
            name: What they begin with.
        """
        before, self._name = self._name, name
        try:
            yield
        finally:
            self._name = before

    def find(
        self,
        loader: Iterable[Any],
        *,
        start_lr: float | None = None,
        end_lr: float | None = None,
        num_iter: int = 100,
        mode: Mode = "exponential",
        val_loader: Iterable[Any] | None = None,
        val_batches: int = 8,
        val_mode: ValMode = "eval",
        smoothing: Smoothing = "gaussian",
        rule: RuleName | CustomRule = "auto",
        total_steps: int | None = None,
        schedule: ScheduleName = "one_cycle",
        refine: bool | int = False,
        repeats: int = 1,
        early_stop: bool = True,
        grad_norms: bool = False,
        group: int | str | None = None,
        progress: bool = True,
        on_step: Callable[[int, float, float], None] | None = None,
    ) -> RangeTestResult:
        """Sweep the learning rate over some training steps, then put everything back.

        The setup is restored when this returns, and when it raises: a user's exception and Ctrl-C arrive unchanged,
        with the points so far in `partial`. The loss at a learning rate is the training loss of a new batch before the
        step at that learning rate. (Smith, "Cyclical Learning Rates for Training Neural Networks", 2017.)

        In a process group every rank calls this with the same arguments. Losses are means over ranks, all take the same
        decisions and return the same result; rank 0 shows the bar and issues the warnings.

        Args:
            loader: The training data: a `DataLoader` or any iterable of batches. An iterator is consumed.
            start_lr: The first learning rate. By default a scout of at most 30 steps finds where the sweep begins.
            end_lr: The last learning rate. By default the scout finds it.
            num_iter: Number of points of the sweep, at least 5. The scout's steps are extra.
            mode: How the learning rates are spaced: `"exponential"` or `"linear"`.
            val_loader: Measure the loss on held-out data instead, after each step.
            val_batches: How many batches of it, as many as each rank has; they are kept on the device.
            val_mode: How the validation loss is computed: `"eval"` is eval mode without gradients, `"train"` the mode
                that the model is in, with gradients. Refining computes it too.
            smoothing: How noise is taken out of the curve: a key of `lrfinder.SMOOTHINGS`.
            rule: Which rule makes the suggestion: a key of `lrfinder.RULES`, or a function `(curve, context) -> lr`.
            total_steps: Length of the training in optimizer steps: long trainings need smaller learning rates.
            schedule: The schedule of the training, one of `lrfinder.SCHEDULES`: `refine` trains under it. `auto`
                suggests the same peak for all, since no factor per schedule held on tasks that were left out. Under
                `"constant"` the best learning rate is mostly lower, by a factor of 3 in the median.
            refine: Also try a few learning rates in short trainings under the schedule. Needs `total_steps`; pass a
                `val_loader` where the loader has few batches. A number is the budget in optimizer steps; True is
                600, or 5 % of `total_steps` if that is more. The same as `rule="refine"`.
            repeats: The number of sweeps, over different batches, whose mean is the curve.
            early_stop: End the sweep when the loss diverges. False runs all points; a loss that is not finite still
                ends the sweep.
            group: Sweep the learning rate of one parameter group only, by its index or its `name`, while the others
                train at their own; by default all groups are swept at their ratios.
            grad_norms: Record the norm of the gradients of each step, before clipping, in `result.grad_norms`.
            progress: Show a progress bar.
            on_step: Called as `on_step(index, lr, loss)` for each point of the main sweep, in order.

        Returns:
            The curve, the suggestions, and the way to a scheduler.

        Raises:
            ArgumentError: An argument breaks a rule; nothing has been changed.
            RankError: Another rank of the process group failed; the message quotes it.
            RestoreError: Something could not be put back; the message names it.
        """  # noqa: DOC502 - raised by the parts
        self.partial = None
        checks.check_recording()
        with rank_group() as ranks:  # around the checks too: if they fail on one rank, all ranks have to know
            options = FindOptions(
                start_lr=start_lr,
                end_lr=end_lr,
                num_iter=num_iter,
                mode=mode,
                val_loader=val_loader,
                val_batches=val_batches,
                val_mode=val_mode,
                smoothing=smoothing,
                rule=rule,
                total_steps=total_steps,
                schedule=schedule,
                refine=refine,
                repeats=repeats,
                early_stop=early_stop,
                grad_norms=grad_norms,
                group=group,
                progress=progress,
                on_step=on_step,
            )
            with use_exclusively([*self.model.parameters(), self.optimizer]):
                result = self._find(loader, options, ranks)
        self.partial = result  # in case that a filter turns a warning into an error
        if ranks.rank == 0:
            result.issue_warnings(name=self._name)
            result = replace(result, warnings_issued=True)
        self.partial = None
        return result

    def _find(self, loader: Iterable[Any], options: FindOptions, ranks: Ranks) -> RangeTestResult:
        setup = self._setup
        _check(setup)
        if options.val_loader is not None and setup.batch_loss is None:
            raise ArgumentError(
                "LRFinder.find(val_loader=...) needs to know how a batch becomes a loss without a step, which "
                "LRFinder(step=...) hides; use loss_fn, or let step return the loss that you want."
            )
        options.check_loader(loader)
        if options.group is not None:
            group_index(setup.optimizer, options.group)
        ranks.check_same_arguments(options.shared(loader) | {"accumulation_steps": setup.accumulation_steps})
        begin = time.perf_counter()
        outcome = self._search(loader, options, ranks, begin)
        result = self._result(outcome, options, ranks, time.perf_counter() - begin)
        local = {"context": result.context, "seconds": result.seconds, "warnings": result.warnings, "meta": result.meta}
        return replace(result, **ranks.share(local))

    def _search(self, loader: Iterable[Any], options: FindOptions, ranks: Ranks, begin: float) -> SearchOutcome:
        setup = self._setup
        ranks.collective_steps = setup.collective_steps or is_sharded(setup.model.modules())
        snapshot: Snapshot | None = None
        try:
            with ExitStack() as stack:
                shown = options.progress and ranks.rank == 0
                progress = stack.enter_context(Progress(enabled=shown, total=options.num_iter * options.repeats))
                stack.enter_context(ranks.meet_before_forward(setup.model))
                snapshot = _take_snapshot(setup, loader, options.val_loader)
                stack.enter_context(snapshot)
                stack.enter_context(forbid_other_optimizers(snapshot.optimizers, setup.model.parameters()))
                batches = Batches(loader, remember=options.start_lr is None and options.end_lr is None)
                stack.callback(batches.close)
                search = Search(
                    setup=setup, batches=batches, options=options, snapshot=snapshot, ranks=ranks, progress=progress
                )
                try:
                    return search.run()
                except BaseException:
                    self.partial = self._result(search.outcome(), options, ranks, time.perf_counter() - begin)
                    raise
        finally:
            if snapshot is not None:
                snapshot.restore()  # once more: an interrupt may have come before the stack's own call

    def _result(self, outcome: SearchOutcome, options: FindOptions, ranks: Ranks, seconds: float) -> RangeTestResult:
        curve, context, optimizer = outcome.curve, outcome.context, self._setup.optimizer
        refined = outcome.refined
        rules = dict.fromkeys([options.rule, *RULES])
        lr_warnings = unused_lr_warnings(outcome, optimizer)  # without an effect of lr the curve's shape is no news
        return RangeTestResult(
            curve=curve,
            context=context,
            rule=options.rule,
            group_ratios=outcome.group_ratios,
            fixed_lrs=outcome.fixed_lrs,
            group_names=group_names(optimizer),
            initial_lrs=outcome.initial_lrs,
            steps=outcome.steps,
            seconds=seconds,
            warnings=(
                *(() if lr_warnings else curve_warnings(curve, context)),
                *(() if refined is None else refined.warnings),
                *lr_warnings,
                *setup_warnings(outcome, options, optimizer),
                *validation_warnings(outcome, options, self._setup.model),
            ),
            spreads=lr_spreads(outcome.repeats, context, rules) if len(outcome.repeats) > 1 else {},
            probes=() if refined is None else refined.probes,
            refined=None if refined is None else refined.suggestion,
            meta={
                "accumulation_steps": self._setup.accumulation_steps,
                "world_size": ranks.world_size,
                "device": str(self._setup.find_device()),
                "versions": versions(),
            },
            optimizer=weakref.ref(optimizer),
        )


def _check(setup: TrainingSetup) -> None:
    checks.check_model(setup.model)
    reshard(setup.model.modules())  # the optimizer holds shards
    checks.check_optimizer(setup.optimizer, setup.model, setup.grad_scaler)
    if setup.batch_loss is not None:  # a step of the user may return anything
        checks.check_minimizes(setup.optimizer)


def _take_snapshot(setup: TrainingSetup, loader: Any, val_loader: Any) -> Snapshot:
    loaders = [loader] if val_loader is None else [loader, val_loader]
    inner = [layer for extra in setup.extra_state for layer in optimizer_layers(extra)[1:]]
    return Snapshot(
        modules=[setup.model, *setup.captured],
        optimizers=[*optimizer_layers(setup.optimizer), *inner],
        grad_scaler=setup.grad_scaler,
        extra_state=setup.extra_state,
        loaders=loaders,
        skip=setup.skipped,
        devices=[setup.find_device()],
        snapshot_device=setup.snapshot_device,
        snapshot_frozen=setup.snapshot_frozen,
        outer=setup.outer_snapshot,
    )


def _name(part: Any) -> str:
    """Return the name of a function, or of an object's class."""
    return str(getattr(part, "__name__", type(part).__name__))
