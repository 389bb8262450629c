"""LRFinder: puts the parts together."""

import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lrfinder import checks
from lrfinder.curve import RULES, Context, Curve, CustomRule, Refined, curve_warnings, lr_spreads, rule_name
from lrfinder.display import Progress, versions
from lrfinder.distributed import Ranks, before_forward, rank_group
from lrfinder.errors import ArgumentError
from lrfinder.optim import LRWriter, unwrap_optimizer
from lrfinder.options import FindOptions
from lrfinder.result import RangeTestResult
from lrfinder.search import Search
from lrfinder.snapshot import LoaderState, Snapshot, is_sharded, preserved, reshard
from lrfinder.training import Batches, BatchLoss, Step, TrainingStep, UserStep, Validation, forbid_other_optimizers
from lrfinder.warnings import setup_warnings

__all__ = ["LRFinder"]


class LRFinder:
    """Finds a learning rate for a training setup and leaves the setup as it was, bit for bit.

    A batch becomes a loss in one of four ways:

    - `criterion(model(inputs), targets)`, for `(inputs, targets)` batches; `((a, b), y)` calls `model((a, b))`,
      `(a, b, y)` calls `model(a, b)`.
    - Without a criterion the model returns its loss: `model(**batch).loss` for a mapping, `model(*batch)` for a tuple.
    - `loss_fn(model, batch)` for everything else.
    - `step(batch)` is your own forward, backward and optimizer step, for a GAN, say.

    Args:
        model: The model, in the mode in which it is trained, where it is trained.
        optimizer: Its optimizer. With several parameter groups the largest group's rate is swept, and the others keep
            their ratios to it.
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
        extra_state: More that the training changes: modules, optimizers, random generators, or objects with a
            `state_dict`.
        snapshot_device: Where copies are kept: with their tensors (default), or `"cpu"`.
        snapshot_frozen: Copy frozen parameters too, to host memory. False saves that memory, and checks instead that
            nobody writes to them.

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

    _framework: tuple[Any, ...] = ()  # an integration's objects, whose attributes are captured like a module's
    _leave: tuple[Any, ...] = ()  # what these lead to and is not entered, such as data sets

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
        extra_state: Iterable[Any] = (),
        snapshot_device: torch.device | str | None = None,
        snapshot_frozen: bool = True,
    ) -> None:
        """Check that the parts fit together; nothing is run or changed."""
        replaced = {
            "autocast": autocast is not None,
            "grad_scaler": grad_scaler is not None,
            "accumulation_steps": accumulation_steps != 1,
            "max_grad_norm": max_grad_norm is not None,
            "backward": backward is not None,
        }
        checks.check_ways_to_a_loss(criterion, loss_fn, step, replaced)
        checks.check_step_options(autocast, max_grad_norm, backward)
        self.model = model
        self.optimizer = optimizer
        self.partial: RangeTestResult | None = None
        self._criterion = criterion
        self._loss_fn = loss_fn
        self._user_step = step
        self._device = None if device is None else torch.device(device)
        self._autocast = autocast
        self._grad_scaler = grad_scaler
        self._accumulation_steps = checks.positive_int("LRFinder(accumulation_steps=...)", accumulation_steps)
        self._max_grad_norm = max_grad_norm
        self._backward = backward
        self._extra_state = checks.extra_states(extra_state)
        self._snapshot_device = snapshot_device
        self._snapshot_frozen = snapshot_frozen
        self._check_setup()

    def __repr__(self) -> str:
        """Return one line that names the parts."""
        ways = {"criterion": self._criterion, "loss_fn": self._loss_fn, "step": self._user_step}
        given = [f", {name}={_name(way)}" for name, way in ways.items() if way is not None]
        return f"LRFinder({_name(self.model)}, {_name(self.optimizer)}{''.join(given)})"

    def find(
        self,
        loader: Iterable[Any],
        *,
        start_lr: float | None = None,
        end_lr: float | None = None,
        num_iter: int = 100,
        mode: str = "exponential",
        val_loader: Iterable[Any] | None = None,
        val_batches: int = 8,
        smoothing: str = "gaussian",
        rule: str | CustomRule = "auto",
        total_steps: int | None = None,
        schedule: str = "one_cycle",
        refine: bool = False,
        repeats: int = 1,
        progress: bool = True,
        on_step: Callable[[int, float, float], None] | None = None,
    ) -> RangeTestResult:
        """Sweep the learning rate over some training steps, then put everything back.

        The setup is restored when this returns, and when it raises: a user's exception and Ctrl-C arrive unchanged,
        with the points so far in `partial`. The loss at a rate is the training loss of a fresh batch before the
        step at that rate. (Smith, "Cyclical Learning Rates for Training Neural Networks", 2017.)

        In a process group every rank calls this with the same arguments. Losses are means over ranks, all take the same
        decisions and return the same result; rank 0 shows the bar and issues the warnings.

        Args:
            loader: The training data: a `DataLoader` or any iterable of batches. An iterator is consumed.
            start_lr: The first rate. Left out, a scout of at most 30 steps finds where the sweep should begin.
            end_lr: The last rate, likewise.
            num_iter: Number of points of the sweep, at least 5. The scout's steps are extra.
            mode: How the rates are spaced: `"exponential"` or `"linear"`.
            val_loader: Measure the loss on held-out data instead, after each step.
            val_batches: How many batches of it; they are kept on the device.
            smoothing: How noise is taken out of the curve: a key of `lrfinder.SMOOTHINGS`.
            rule: Which rule makes the suggestion: a key of `lrfinder.RULES`, or a function `(curve, context) -> lr`.
            total_steps: How many optimizer steps the training will take: long trainings want smaller rates.
            schedule: The schedule that the rate is for: one of `lrfinder.SCHEDULES`.
            refine: Also try a few rates in short annealed trainings. Needs `total_steps`; pass a `val_loader` where
                the loader has few batches.
            repeats: Average so many sweeps over different batches.
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
        with rank_group() as ranks:
            options = FindOptions(
                start_lr=start_lr,
                end_lr=end_lr,
                num_iter=num_iter,
                mode=mode,
                val_loader=val_loader,
                val_batches=val_batches,
                smoothing=smoothing,
                rule=rule,
                total_steps=total_steps,
                schedule=schedule,
                refine=refine,
                repeats=repeats,
                progress=progress,
                on_step=on_step,
            )
            self._check_setup()
            if val_loader is not None and self._user_step is not None:
                raise ArgumentError(
                    "LRFinder.find(val_loader=...) needs to know how a batch becomes a loss without a step, which "
                    "LRFinder(step=...) hides; use loss_fn, or let step return the loss that you want."
                )
            options.check_loader(loader)
            if ranks is not None:
                ranks.same(options.shared(loader) | {"accumulation_steps": self._accumulation_steps})
            result = self._search(loader, options, ranks)
        self.partial = result  # in case that a filter turns a warning into an error
        if ranks is None or ranks.rank == 0:
            result.issue_warnings()
        self.partial = None
        return result

    def _search(self, loader: Iterable[Any], options: FindOptions, ranks: Ranks | None) -> RangeTestResult:
        begin = time.perf_counter()
        snapshot: Snapshot | None = None
        try:
            with ExitStack() as stack:
                shown = options.progress and (ranks is None or ranks.rank == 0)
                progress = stack.enter_context(Progress(enabled=shown, total=options.num_iter * options.repeats))
                if ranks is not None:
                    ranks.collective_steps = self._user_step is not None or is_sharded(self.model.modules())
                    stack.enter_context(before_forward(self.model, ranks.before_forward))
                snapshot = stack.enter_context(self._preserved(loader, options))
                stack.enter_context(forbid_other_optimizers([self.optimizer, *self._extra_state]))
                search = self._prepare(loader, options, snapshot, progress, ranks)
                stack.callback(search.batches.close)
                curves, refined = self._run(search, begin)
        finally:
            if snapshot is not None:
                snapshot.restore()  # once more: an interrupt may have come before the stack's own call
        result = self._result(search.mean(curves), curves, search, begin)
        if refined is not None:
            result = replace(result, refined=refined.suggestion, probes=refined.probes)
        if ranks is None:
            return result
        local = {"context": result.context, "seconds": result.seconds, "warnings": result.warnings, "meta": result.meta}
        return replace(result, **ranks.share(local))

    def _run(self, search: Search, begin: float) -> tuple[list[Curve], Refined | None]:
        try:
            curves = search.run()
            return curves, search.refine(search.mean(curves)) if search.options.refine else None
        except BaseException:
            self.partial = self._result(search.curve(), (), search, begin)
            raise

    def _prepare(
        self, loader: Iterable[Any], options: FindOptions, snapshot: Snapshot, progress: Progress, ranks: Ranks | None
    ) -> Search:
        batch_loss = BatchLoss(self.model, self._criterion, self._loss_fn, self._find_device(), self._autocast)
        return Search(
            step=self._training_step(batch_loss, ranks),
            optimizer=self.optimizer,
            batches=Batches(loader, remember=options.start_lr is None and options.end_lr is None),
            rates=LRWriter(self.optimizer),
            device=batch_loss.device,
            snapshot=snapshot,
            options=options,
            context=self._context(options),
            progress=progress,
            validate=self._validation(batch_loss, options, snapshot, ranks),
            hold_out=None if self._user_step is not None else lambda taken: Validation(batch_loss, taken, ranks),
            ranks=ranks,
        )

    def _preserved(self, loader: Any, options: FindOptions) -> Any:
        loaders = [loader] if options.val_loader is None else [loader, options.val_loader]
        parts = (self.model, *map(_module_behind, self._callables()), *self._framework)
        return preserved(
            modules=[part for part in parts if part is not None],
            optimizers=[self.optimizer],
            grad_scaler=self._grad_scaler,
            extra_state=self._extra_state,
            leave=self._leave,
            last=[LoaderState(each) for each in loaders],
            devices=[self._find_device()],
            snapshot_device=self._snapshot_device,
            snapshot_frozen=self._snapshot_frozen,
        )

    def _callables(self) -> tuple[Any, ...]:
        return self._criterion, self._loss_fn, self._user_step, self._backward

    def _check_setup(self) -> None:
        checks.check_model(self.model)
        reshard(self.model.modules())  # the optimizer holds shards
        checks.check_optimizer(self.optimizer, self.model, self._grad_scaler)

    def _find_device(self) -> torch.device:
        return self._device if self._device is not None else next(self.model.parameters()).device

    def _training_step(self, batch_loss: BatchLoss, ranks: Ranks | None) -> Step:
        if self._user_step is not None:
            return UserStep(self._user_step, batch_loss.device)
        return TrainingStep(
            batch_loss,
            self.optimizer,
            grad_scaler=self._grad_scaler,
            accumulation_steps=self._accumulation_steps,
            max_grad_norm=self._max_grad_norm,
            backward=self._backward,
            ranks=ranks,
        )

    def _validation(
        self, batch_loss: BatchLoss, options: FindOptions, snapshot: Snapshot, ranks: Ranks | None
    ) -> Validation | None:
        if options.val_loader is None:
            return None
        taken = Batches(options.val_loader, name="val_loader").take_first(options.val_batches)
        snapshot.rewind()  # reading it drew random numbers: the training batches are those of a find without it
        return Validation(batch_loss, taken, ranks)

    def _context(self, options: FindOptions) -> Context:
        optimizer = unwrap_optimizer(self.optimizer)
        group = optimizer.param_groups[0]
        momentum = group.get("momentum", group.get("betas", (0.0,))[0])
        return Context(
            optimizer=type(optimizer).__name__,
            momentum=float(momentum),
            nesterov=bool(group.get("nesterov", False)),
            total_steps=options.total_steps,
            schedule=options.schedule,
            val=options.val_loader is not None,
        )

    def _result(self, curve: Curve, curves: Iterable[Curve], search: Search, begin: float) -> RangeTestResult:
        curves = tuple(curves)
        context = replace(search.context, batch_size=search.batches.batch_size)
        rule = search.options.rule
        rules = [rule, *(name for name in RULES if name != rule_name(rule))]
        return RangeTestResult(
            curve=curve,
            context=context,
            rule=rule,
            group_ratios=tuple(search.rates.ratios),
            steps=search.progress.steps,
            seconds=time.perf_counter() - begin,
            warnings=(*curve_warnings(curve, context), *setup_warnings(search, curve, self.optimizer)),
            spreads=lr_spreads(curves, context, rules) if len(curves) > 1 else {},
            meta=self._meta(search, context),
            optimizer=weakref.ref(self.optimizer),
        )

    def _meta(self, search: Search, context: Context) -> dict[str, Any]:
        return {
            "optimizer": context.optimizer,
            "batch_size": context.batch_size,
            "accumulation_steps": self._accumulation_steps,
            "world_size": 1 if search.ranks is None else search.ranks.world_size,
            "total_steps": context.total_steps,
            "device": str(search.device),
            "versions": versions(),
        }


def _name(part: Any) -> str:
    """Return the name of a function, or of an object's class."""
    return str(getattr(part, "__name__", type(part).__name__))


def _module_behind(function: Any) -> nn.Module | None:
    """Return the module that a callable is, or is a method of: it may hold parameters and buffers."""
    owner = getattr(function, "__self__", function)
    return owner if isinstance(owner, nn.Module) else None
