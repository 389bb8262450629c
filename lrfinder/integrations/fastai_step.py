"""One optimizer step as fastai's own loop takes it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from fastai.basics import Learner
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision
from torch import Tensor, nn

from lrfinder.training import total_grad_norm

__all__ = ["LearnerStep", "SweptOptimizer"]

_BEGUN = "_range_test_has_begun"  # an attribute of the learner; rewinding removes it


class SweptOptimizer(torch.optim.Optimizer):
    """A fastai optimizer with parameter groups in the form of torch's, whose `lr` and `momentum` count.

    fastai's own `param_groups` are made at each access: a learning rate that is written to them is lost.

    Args:
        inner: fastai's `Optimizer` or `OptimWrapper`. Everything else that is asked for is its.

    Attributes:
        inner: As given.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        groups: list[dict[str, Any]] = []
        for parameters, hyper in zip(inner.param_lists, inner.hypers, strict=True):
            momentum = {"momentum": hyper["mom"]} if "mom" in hyper else {}
            groups.append({"params": list(parameters), "lr": float(hyper["lr"]), **momentum})
        super().__init__(groups, {key: value for key, value in groups[0].items() if key != "params"})

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of fastai's optimizer."""
        return getattr(self.__dict__.get("inner"), name)

    def write(self) -> None:
        """Hand learning rates and momenta over to fastai's optimizer."""
        self.inner.set_hyper("lr", [group["lr"] for group in self.param_groups])
        if "momentum" in self.defaults:
            self.inner.set_hyper("mom", [group["momentum"] for group in self.param_groups])

    def zero_grad(self, set_to_none: bool = True) -> None:  # noqa: ARG002, FBT001 - torch's interface; fastai fills with zeros
        """Clear the gradients as fastai does."""
        self.inner.zero_grad()

    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # fastai's take no closure
        """Take a step of fastai's optimizer."""
        self.write()
        self.inner.step(*(() if closure is None else (closure,)))


class _Watch(Callback):  # type: ignore[misc]  # fastai has no types
    """Notes whether the optimizer stepped, and the norm of the gradients."""

    order = MixedPrecision.order + 0.5  # when gradients are unscaled and not yet clipped
    record_grad_norm = False

    def reset(self) -> None:
        self.steps = self.skips = 0
        self.grad_norm: Tensor | None = None

    def before_step(self) -> None:
        if self.record_grad_norm:
            self.grad_norm = total_grad_norm(self.learn.model.parameters())

    def after_cancel_step(self) -> None:
        self.skips += 1

    def after_step(self) -> None:
        self.steps += 1


class LearnerStep:
    """One optimizer step as in the learner's own loop."""

    def __init__(self, learner: Learner, optimizer: SweptOptimizer, accumulation_steps: int, n_epoch: int) -> None:
        self.accumulation_steps = accumulation_steps
        self.skipped = False
        self.record_grad_norm: bool | None = False
        self.grad_norm: Tensor | None = None
        self.watch = _Watch()
        self.watch.learn = learner
        self._learner = learner
        self._optimizer = optimizer
        self._n_epoch = n_epoch

    def __call__(self, micro_batches: Sequence[Any]) -> Tensor:
        """Take one optimizer step.

        Args:
            micro_batches: As many batches as the learner accumulates.

        Returns:
            Their mean loss, detached.
        """
        learner, watch = self._learner, self.watch
        if not vars(learner).get(_BEGUN):
            self._begin()
        self._optimizer.write()
        watch.reset()
        watch.record_grad_norm = bool(self.record_grad_norm)
        losses = []
        with _autocast_restored():
            for batch in micro_batches:
                learner.one_batch(learner.train_iter % learner.n_iter, batch)
                losses.append(_plain(learner.loss))
        self.skipped = watch.steps - watch.skips < 1
        self.grad_norm = watch.grad_norm
        return torch.stack(losses).mean()

    def _begin(self) -> None:
        learner = self._learner
        learner.n_epoch, learner.dl, learner.n_iter = self._n_epoch, learner.dls.train, len(learner.dls.train)
        learner("before_fit")
        learner.epoch = 0
        learner("before_epoch")
        learner("before_train")
        vars(learner)[_BEGUN] = True

    def validation_loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the loss of a validation batch, as the learner computes it in its validation."""
        learner, has_begun = self._learner, vars(self._learner).get(_BEGUN)
        if not has_begun:
            self._begin()
            model.eval()
        learner.training = False
        try:
            with _autocast_restored():
                learner.one_batch(0, batch)
            return _plain(learner.loss)
        finally:
            learner.training = True
            if not has_begun:
                del vars(learner)[_BEGUN]  # the next step begins the fit: now the model is in eval mode


def _plain(loss: Tensor) -> Tensor:
    return loss.detach().as_subclass(Tensor).clone()


@contextmanager
def _autocast_restored() -> Iterator[None]:
    """Restore torch's autocast state if the block raises: MixedPrecision leaves it only when a batch is complete."""
    kinds = ("cpu", "cuda")
    state = [(kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in kinds]
    cache, depth = torch.is_autocast_cache_enabled(), _autocast_depth()
    try:
        yield
    except BaseException:
        for kind, enabled, dtype in state:
            torch.set_autocast_enabled(kind, enabled)
            torch.set_autocast_dtype(kind, dtype)
        torch.set_autocast_cache_enabled(cache)
        while _autocast_depth() > depth:
            torch.autocast_decrement_nesting()
        if depth == 0:
            torch.clear_autocast_cache()
        raise


def _autocast_depth() -> int:
    depth = torch.autocast_increment_nesting() - 1
    torch.autocast_decrement_nesting()
    return depth
