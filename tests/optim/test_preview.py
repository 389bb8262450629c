"""The preview against a scheduler that is really stepped, and what it leaves behind: nothing."""

import copy
import threading
import warnings

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler as stock

from lrfinder.errors import ArgumentError
from lrfinder.optim.preview import preview_schedule

TOTAL = 40


def _optimizer(kind=torch.optim.SGD, tensor=False, groups=2, **kwargs):
    lrs = [0.4 * 0.5**place for place in range(groups)]
    if kind is torch.optim.SGD:
        kwargs.setdefault("momentum", 0.9)
    if kind is torch.optim.Adam and tensor:
        kwargs.setdefault("capturable", True)
    lrs = [torch.tensor(lr) if tensor else lr for lr in lrs]
    return kind([{"params": [torch.ones(3, requires_grad=True)], "lr": lr} for lr in lrs], **kwargs)


def _warm_cosine(o):
    return stock.SequentialLR(o, [stock.LinearLR(o, 0.1, total_iters=10), stock.CosineAnnealingLR(o, 30)], [10])


def _nested(o):
    inner = stock.SequentialLR(o, [stock.ConstantLR(o, 0.5, 5), stock.StepLR(o, 4)], [5])
    return stock.ChainedScheduler([inner, stock.ExponentialLR(o, 0.9)], o)


class Counting:
    """A factor with state, which torch saves in the scheduler's state_dict."""

    def __init__(self):
        self.calls = 0

    def __call__(self, step):
        self.calls += 1
        return 1 / (1 + step)


class Locked(Counting):
    """The same, holding what cannot be deep-copied."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


class Trainer:
    """Owner of a bound method, too large to copy."""

    def __deepcopy__(self, memo):
        raise AssertionError("the trainer was copied")

    def factor(self, step):
        return 0.9**step


FACTORIES = {
    "lambda": lambda o: stock.LambdaLR(o, lambda step: 0.95**step),
    "counting": lambda o: stock.LambdaLR(o, [Counting(), Locked()]),
    "bound": lambda o: stock.LambdaLR(o, Trainer().factor),
    "multiplicative": lambda o: stock.MultiplicativeLR(o, lambda step: 0.95),
    "step": lambda o: stock.StepLR(o, 7),
    "multi_step": lambda o: stock.MultiStepLR(o, [5, 20]),
    "constant": lambda o: stock.ConstantLR(o, 0.3, 8),
    "linear": lambda o: stock.LinearLR(o, 0.3, total_iters=20),
    "exponential": lambda o: stock.ExponentialLR(o, 0.9),
    "polynomial": lambda o: stock.PolynomialLR(o, 30, 2.0),
    "cosine": lambda o: stock.CosineAnnealingLR(o, TOTAL),
    "restarts": lambda o: stock.CosineAnnealingWarmRestarts(o, 6, 2),
    "one_cycle": lambda o: stock.OneCycleLR(o, [0.4, 0.2], TOTAL),
    "cyclic": lambda o: stock.CyclicLR(o, 0.01, 0.4, 8, mode="triangular2"),
    "cyclic_custom": lambda o: stock.CyclicLR(o, 0.01, 0.4, 8, scale_fn=Counting()),
    "warm_cosine": _warm_cosine,
    "nested": _nested,
    "swa": lambda o: torch.optim.swa_utils.SWALR(o, 0.05, anneal_epochs=10),
    "plateau": lambda o: stock.ReduceLROnPlateau(o, patience=3),
    "plateau_max": lambda o: stock.ReduceLROnPlateau(o, "max", patience=3, cooldown=2, threshold_mode="abs"),
}


def _step(optimizer, scheduler):
    optimizer.step()
    scheduler.step(0.0) if isinstance(scheduler, stock.ReduceLROnPlateau) else scheduler.step()


def _trained(optimizer, scheduler, steps):
    lrs, momenta = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of chained schedulers
        for _ in range(steps):
            lrs.append([float(group["lr"]) for group in optimizer.param_groups])
            momenta.append([group.get("momentum", group.get("betas", [0])[0]) for group in optimizer.param_groups])
            _step(optimizer, scheduler)
    return np.array(lrs), np.array(momenta)


def _state(value, seen=None):
    """Everything reachable from a scheduler or an optimizer, with identities, as plain data that compares by bits."""
    seen = set() if seen is None else seen
    if isinstance(value, torch.Tensor):
        return id(value), value._version, value.detach().numpy().tobytes()
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    if id(value) in seen:
        return id(value)
    seen.add(id(value))
    if isinstance(value, dict):
        return id(value), [(str(key), _state(part, seen)) for key, part in value.items()]
    if isinstance(value, (list, tuple)):
        return id(value), [_state(part, seen) for part in value]
    return id(value), _state(vars(value), seen) if hasattr(value, "__dict__") else None


@pytest.mark.parametrize("tensor", [False, True], ids=["float", "tensor"])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("name", FACTORIES)
@pytest.mark.parametrize("taken", [0, 9], ids=["fresh", "mid"])
def test_a_preview_is_what_training_then_does_and_disturbs_nothing(name, kind, tensor, taken):
    optimizer = _optimizer(kind, tensor)
    scheduler = FACTORIES[name](optimizer)
    _trained(optimizer, scheduler, taken)
    setup = [scheduler, optimizer]
    before = _state(setup)
    course = preview_schedule(scheduler, TOTAL)
    assert _state(setup) == before
    lrs, momenta = _trained(optimizer, scheduler, TOTAL - taken)
    assert course.steps.tolist() == list(range(taken, TOTAL))
    np.testing.assert_allclose(course.lrs, lrs, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(course.momenta, momenta, rtol=1e-6)


def test_the_warning_of_torch_for_a_wrong_order_still_comes_afterwards():
    optimizer = _optimizer()
    scheduler = stock.ExponentialLR(optimizer, 0.9)
    preview_schedule(scheduler, 5)
    with pytest.warns(UserWarning, match=r"before `optimizer.step\(\)`"):
        scheduler.step()


def test_lrs_that_share_one_tensor_stay_shared():
    groups = [{"params": [torch.ones(1, requires_grad=True)]} for _ in range(2)]
    optimizer = torch.optim.SGD(groups, lr=torch.tensor(0.5))
    assert optimizer.param_groups[0]["lr"] is optimizer.param_groups[1]["lr"]
    scheduler = stock.LambdaLR(optimizer, [lambda step: 1.0, lambda step: 0.5])
    course = preview_schedule(scheduler, 4)
    np.testing.assert_array_equal(course.lrs, _trained(optimizer, scheduler, 4)[0])


def test_a_user_s_metric_is_better_or_worse_as_before():
    optimizer = _optimizer(groups=1)
    scheduler = stock.ReduceLROnPlateau(optimizer, patience=2)
    for metric in (-1.0, -2.0):  # torch takes a constant negative metric for an improving one
        scheduler.step(metric)
    course = preview_schedule(scheduler, 8)
    assert course.lrs[:, 0] == pytest.approx([0.4, 0.4, 0.4, 0.04, 0.04, 0.04])
    assert scheduler.best == -2.0


def test_groups_with_the_same_lrs_share_an_entry():
    optimizer = _optimizer(groups=1)
    for lr, extra in ((0.4, {}), (0.1, {"name": "head"}), (0.4, {}), (0.4, {})):
        optimizer.add_param_group({"params": [torch.ones(1, requires_grad=True)], "lr": lr, **extra})
    course = preview_schedule(stock.ExponentialLR(optimizer, 0.9), 3)
    assert list(course.distinct()) == ["group 0, group 1, group 3, …", "head"]
    assert course.distinct()["head"].tolist() == pytest.approx([0.1, 0.09, 0.081])


def test_names_of_momentum():
    assert preview_schedule(stock.StepLR(_optimizer(), 3), 5).momentum == "momentum"
    assert preview_schedule(stock.StepLR(_optimizer(torch.optim.Adam), 3), 5).momentum == "beta1"
    assert np.isnan(preview_schedule(stock.StepLR(_optimizer(torch.optim.Adagrad), 3), 5).momenta).all()


def test_what_does_not_fit_is_said():
    optimizer = _optimizer()
    scheduler = stock.OneCycleLR(optimizer, 0.1, 10)
    assert len(preview_schedule(scheduler, 10).steps) == 10
    with pytest.raises(ArgumentError, match=r"OneCycleLR ends after 1\d steps .*got total_steps=20"):
        preview_schedule(scheduler, 20)
    with pytest.raises(ArgumentError, match=r"must exceed the 0 steps .*got total_steps=0"):
        preview_schedule(scheduler, 0)
    with pytest.raises(ArgumentError, match=r"takes a torch\.optim\.lr_scheduler object, got 'one_cycle'"):
        preview_schedule("one_cycle", 10)
    _trained(optimizer, scheduler, 5)
    with pytest.raises(ArgumentError, match="must exceed the 5 steps"):
        preview_schedule(scheduler, 5)


def test_an_optimizer_with_history_is_not_copied():
    class Uncopyable(torch.Tensor):
        def __deepcopy__(self, memo):
            raise AssertionError("a parameter was copied")

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2).as_subclass(Uncopyable))], lr=0.1)
    with pytest.raises(AssertionError, match="a parameter was copied"):
        copy.deepcopy(optimizer.param_groups[0]["params"])
    assert preview_schedule(stock.StepLR(optimizer, 2, 0.5), 3).lrs[:, 0].tolist() == pytest.approx([0.1, 0.1, 0.05])
