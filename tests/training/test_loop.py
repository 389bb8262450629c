"""The plain loop, driven by scripted losses: which point is last, what is cut, which loss belongs to which rate."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lrfinder.curve.stop_rule import StopReason, StopRule
from lrfinder.curve.sweep import Sweep, grid
from lrfinder.distributed import ALONE
from lrfinder.training.batches import Batches
from lrfinder.training.loop import MAX_RETRIES, run_sweep
from lrfinder.training.loss_queue import LossQueue

CPU = torch.device("cpu")
NAN, INF = math.nan, math.inf
LAGS = pytest.mark.parametrize("lag", [0, 1, 3, 50])


class Rates:
    def __init__(self):
        self.written = []

    def write(self, lr):
        self.written.append(lr)


class Scripted:
    """A step that gives the next loss of a script; "skip" is a step that a GradScaler skipped."""

    accumulation_steps = 1

    def __init__(self, script, log=None):
        self.script = iter(script)
        self.skipped = False
        self.batches = []
        self.log = [] if log is None else log

    def __call__(self, micro_batches):
        self.batches.append(list(micro_batches))
        self.log.append("step")
        loss = next(self.script)
        if isinstance(loss, BaseException):
            raise loss
        self.skipped = loss == "skip"
        return torch.tensor(0.0 if self.skipped else loss, dtype=torch.float64)


def run(script, *, num=None, lag=0, batches=None, stop_rule=None, step=None, **options):
    lrs = grid(1e-4, 1.0, num if num is not None else len(script))
    sweep = Sweep(lrs, stop_rule)
    step = Scripted(script) if step is None else step
    rates = Rates()
    stream = Batches([0] if batches is None else batches)
    error = run_sweep(sweep, rates.write, step, stream, queue=LossQueue(len(lrs), CPU, lag=lag), ranks=ALONE, **options)
    return sweep, step, rates, error


@LAGS
def test_each_loss_belongs_to_the_lr_written_before_its_step(lag):
    log, points = [], []

    class Logged(Rates):
        def write(self, lr):
            log.append(lr)

    lrs = grid(1e-4, 1.0, 8)
    sweep = Sweep(lrs, None)
    step = Scripted([float(i) for i in range(8)], log)
    queue = LossQueue(8, CPU, lag=lag)
    run_sweep(sweep, Logged().write, step, Batches([0]), queue=queue, ranks=ALONE, on_point=lambda *p: points.append(p))
    assert log == [entry for lr in lrs for entry in (lr, "step")]
    assert np.array_equal(sweep.lrs, lrs)
    assert np.array_equal(sweep.losses, np.arange(8.0))
    assert points == [(i, lrs[i], float(i)) for i in range(8)]
    assert sweep.stop_reason is StopReason.FINISHED


@LAGS
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("at", [0, 1, 5, 9])
def test_a_loss_that_is_not_finite_ends_the_sweep_and_is_cut(lag, bad, at):
    points = []
    script = [float(i) if i != at else bad for i in range(10)]
    sweep, step, rates, error = run(script, lag=lag, on_point=lambda *p: points.append(p))
    lrs = grid(1e-4, 1.0, 10)
    assert sweep.stop_reason is StopReason.NONFINITE
    assert sweep.stop_lr == lrs[at]
    assert np.array_equal(sweep.losses, np.arange(float(at)))
    assert np.array_equal(sweep.lrs, lrs[:at])
    assert points == [(i, lrs[i], float(i)) for i in range(at)]
    assert len(step.batches) == len(rates.written) == min(at + 1 + lag, 10)  # it runs on by the lag at most
    assert error is None


@LAGS
def test_steps_after_divergence_are_cut(lag):
    rule = StopRule(patience=3, patience_share=0.0, warmup=5)
    script = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 9.0, 9.0, 9.0, -5.0, -5.0, NAN, -5.0, -5.0]
    points = []
    sweep, step, _, _ = run(script, lag=lag, stop_rule=rule, on_point=lambda *p: points.append(p[2]))
    assert sweep.stop_reason is StopReason.DIVERGED
    assert sweep.losses.tolist() == script[:10] == points  # up to the one that completed the persistence
    assert sweep.stop_lr == sweep.lrs[-1] == grid(1e-4, 1.0, 15)[9]
    assert len(step.batches) == min(10 + lag, 15)


@LAGS
def test_the_loader_may_end_first(lag):
    sweep, step, rates, _ = run([3.0, 2.0, 1.0, 0.0, 0.0], lag=lag, batches=iter("abc"))
    assert sweep.stop_reason is StopReason.EXHAUSTED
    assert sweep.losses.tolist() == [3.0, 2.0, 1.0]
    assert step.batches == [["a"], ["b"], ["c"]]
    assert sweep.stop_lr is None
    assert len(rates.written) == 3  # no rate is written for a step that is not taken


@LAGS
def test_a_step_takes_as_many_batches_as_it_accumulates(lag):
    step = Scripted([float(i) for i in range(5)])
    step.accumulation_steps = 3
    sweep, _, _, _ = run([0.0] * 5, lag=lag, batches=[1, 2, 3, 4], step=step)
    assert step.batches == [[1, 2, 3], [4, 1, 2], [3, 4, 1], [2, 3, 4], [1, 2, 3]]
    assert sweep.losses.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_too_few_batches_for_a_whole_step_are_not_trained_on():
    step = Scripted([float(i) for i in range(5)])
    step.accumulation_steps = 2
    sweep, _, _, _ = run([0.0] * 5, batches=iter([1, 2, 3, 4, 5]), step=step)
    assert step.batches == [[1, 2], [3, 4]]
    assert sweep.losses.tolist() == [0.0, 1.0]


@LAGS
def test_validation_is_measured_after_the_step_at_its_lr(lag):
    log = []
    values = iter([10.0, 11.0, NAN, 13.0, 14.0, 15.0])

    def validate():
        log.append("validate")
        return torch.tensor(next(values))

    step = Scripted([0.0] * 6, log)
    sweep, _, _, _ = run([0.0] * 6, lag=lag, step=step, validate=validate)
    assert sweep.losses.tolist() == [10.0, 11.0]
    assert sweep.stop_lr == grid(1e-4, 1.0, 6)[2]
    assert log == ["step", "validate"] * min(3 + lag, 6)


@LAGS
def test_a_scalers_first_skips_are_retried_at_the_first_lr(lag):
    sweep, step, rates, _ = run(["skip"] * 4 + [5.0, 4.0, 3.0, 2.0, 1.0], num=5, lag=lag)
    lrs = grid(1e-4, 1.0, 5)
    assert rates.written == [lrs[0]] * 5 + lrs[1:].tolist()
    assert sweep.losses.tolist() == [5.0, 4.0, 3.0, 2.0, 1.0]
    assert sweep.stop_reason is StopReason.FINISHED
    assert len(step.batches) == 9


@LAGS
def test_a_later_skip_is_a_gap_that_keeps_its_place(lag):
    points = []
    sweep, *_ = run([5.0, "skip", 3.0, "skip", "skip", 0.0], lag=lag, on_point=lambda *p: points.append(p))
    lrs = grid(1e-4, 1.0, 6)
    assert sweep.indices.tolist() == [0, 2, 5]
    assert sweep.lrs.tolist() == lrs[[0, 2, 5]].tolist()
    assert points == [(0, lrs[0], 5.0), (1, lrs[2], 3.0), (2, lrs[5], 0.0)]
    assert sweep.stop_reason is StopReason.FINISHED


@LAGS
def test_five_skips_in_a_row_are_divergence(lag):
    sweep, step, _, _ = run([5.0, 4.0] + ["skip"] * 4 + [3.0] + ["skip"] * 5 + [2.0] * 8, lag=lag)
    assert sweep.stop_reason is StopReason.DIVERGED
    assert sweep.losses.tolist() == [5.0, 4.0, 3.0]
    assert sweep.stop_lr == grid(1e-4, 1.0, 20)[11]
    assert len(step.batches) == min(12 + lag, 20)


def test_a_scaler_that_never_finds_its_scale_ends_the_retries():
    sweep, step, _, _ = run(["skip"] * (MAX_RETRIES + 10), num=10)
    assert len(sweep.losses) == 0
    assert len(step.batches) == MAX_RETRIES + 10


def test_validation_is_not_measured_for_a_skipped_step():
    calls = []
    run(["skip", 1.0, "skip", 1.0, 1.0, 1.0], num=5, validate=lambda: calls.append(1) or torch.tensor(0.0))
    assert len(calls) == 4


def test_after_step_counts_retries_too():
    counts = []
    run(["skip", 1.0, "skip", 1.0, 1.0, 1.0], num=5, after_step=counts.append)
    assert counts == [1, 2, 3, 4, 5, 6]


# Errors


@LAGS
@pytest.mark.parametrize("at", [0, 3, 5])
@pytest.mark.parametrize("error", [OSError("fault"), KeyboardInterrupt(), StopIteration()])
def test_an_error_of_the_step_passes_unchanged_and_all_points_before_it_are_kept(lag, at, error):
    points = []
    lrs = grid(1e-4, 1.0, 6)
    sweep = Sweep(lrs, None)
    step = Scripted([float(i) if i != at else error for i in range(6)])
    queue = LossQueue(6, CPU, lag=lag)
    with pytest.raises(type(error)) as caught:
        run_sweep(
            sweep, Rates().write, step, Batches([0]), queue=queue, ranks=ALONE, on_point=lambda *p: points.append(p[0])
        )
    assert caught.value is error
    assert sweep.losses.tolist() == [float(i) for i in range(at)]
    assert sweep.stop_reason is None
    assert points == list(range(max(at - lag, 0)))  # the callback that interrupted is not called again


@pytest.mark.parametrize("lag", [2, 3, 50])
@pytest.mark.parametrize("via", ["step", "validate"])
def test_training_code_that_raises_on_a_nan_not_read_yet_ends_the_sweep_there(lag, via):
    error = ValueError("loss is NaN")
    script = [2.0, 1.0, NAN, 0.0, error, 0.0]
    if via == "step":
        sweep, _, _, noted = run(script, lag=lag)
    else:
        step = Scripted(script)
        sweep, _, _, noted = run([1.0] * 6, lag=lag, validate=lambda: step([0]))
    assert noted is error
    assert sweep.stop_reason is StopReason.NONFINITE
    assert sweep.losses.tolist() == [2.0, 1.0]


def test_ctrl_c_on_a_nan_is_raised():
    with pytest.raises(KeyboardInterrupt):
        run([2.0, NAN, KeyboardInterrupt(), 0.0, 0.0], lag=3)


def test_an_error_with_finite_losses_unread_is_an_error():
    with pytest.raises(ValueError, match="mine"):
        run([2.0, 1.0, ValueError("mine"), 0.0, 0.0], lag=3)


@pytest.mark.parametrize("where", ["on_point", "loader", "after_step"])
def test_errors_outside_of_the_training_code_are_raised_in_spite_of_a_nan(where):
    def fail_at(count):
        if count == 4:
            raise OSError(where)

    def data():
        for i in range(9):
            if where == "loader":
                fail_at(i)
            yield i

    options = {
        "on_point": {"on_point": lambda index, lr, loss: fail_at(index + 4)},
        "after_step": {"after_step": fail_at},
        "loader": {},
    }[where]
    with pytest.raises(OSError, match=where):
        run([2.0, 1.0, NAN, 0.0, 0.0, 0.0], lag=3, batches=data(), **options)


@LAGS
@pytest.mark.parametrize("at", [0, 3, 5])
def test_an_error_of_on_point_passes_and_the_losses_measured_by_then_are_kept(lag, at):
    calls = []

    def on_point(index, lr, loss):
        calls.append(index)
        if index == at:
            raise OSError("mine")

    lrs = grid(1e-4, 1.0, 6)
    sweep, step = Sweep(lrs, None), Scripted([float(i) for i in range(6)])
    with pytest.raises(OSError, match="mine"):
        run_sweep(
            sweep, Rates().write, step, Batches([0]), queue=LossQueue(6, CPU, lag=lag), ranks=ALONE, on_point=on_point
        )
    assert calls == list(range(at + 1))
    assert len(sweep.losses) == len(step.batches) == min(at + 1 + lag, 6)


def test_a_device_that_broke_does_not_hide_the_users_error():
    class Broken:
        def request(self, index):
            pass

        def read(self, index):
            raise RuntimeError("device lost")

    error = OSError("mine")
    sweep = Sweep(grid(1e-4, 1.0, 5), None)
    queue = LossQueue(5, CPU, lag=3, reader=Broken())
    with pytest.raises(OSError, match="mine") as caught:
        run_sweep(sweep, Rates().write, Scripted([1.0, error]), Batches([0]), queue=queue, ranks=ALONE)
    assert caught.value is error


@given(
    st.lists(st.floats(-10, 10) | st.just(NAN) | st.just("skip"), min_size=5, max_size=30),
    st.integers(1, 10),
)
@settings(max_examples=80, deadline=None)
def test_reading_late_changes_nothing_that_is_measured(script, lag):
    rule = StopRule(patience=2, patience_share=0.0)
    results = []
    for each in (0, lag):
        points = []
        sweep, *_ = run(
            script + [0.0] * 30, num=len(script), lag=each, stop_rule=rule, on_point=lambda *p, to=points: to.append(p)
        )
        results.append((sweep.lrs.tolist(), sweep.losses.tolist(), sweep.stop_reason, sweep.stop_lr, points))
    assert results[0] == results[1]
    lrs, losses, _, _, points = results[0]
    assert [p[1:] for p in points] == list(zip(lrs, losses, strict=True))


def test_the_cost_of_a_step_does_not_grow_with_the_sweep():
    import sys

    def operations(num):
        calls = 0

        def count(frame, event, arg):
            nonlocal calls
            calls += 1

        step = Scripted([1.0 / (i + 1) for i in range(num)])
        sweep, queue = Sweep(grid(1e-7, 10.0, num)), LossQueue(num, CPU, lag=3)
        sys.setprofile(count)
        try:
            run_sweep(sweep, Rates().write, step, Batches([0]), queue=queue, ranks=ALONE)
        finally:
            sys.setprofile(None)
        assert len(sweep.losses) == num
        return calls

    few, many = operations(1_000), operations(20_000)
    assert many < 25 * few
