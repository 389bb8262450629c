import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lrfinder.training.loss_queue import LAG, LossQueue

CPU = torch.device("cpu")


def put_all(queue, values):
    """Record one by one; return what each call gave, then the rest."""
    tensors = [None if value is None else torch.tensor(value, dtype=torch.float64) for value in values]
    return [queue.put(tensor) for tensor in tensors], queue.drain()


def test_a_cpu_is_read_at_once():
    assert put_all(LossQueue(3, CPU), [1.0, 2.0, 3.0]) == ([[1.0], [2.0], [3.0]], [])


def test_an_accelerator_is_read_a_fixed_few_steps_late():
    ready, rest = put_all(LossQueue(6, CPU, lag=LAG), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    assert ready == [[], [], [], [0.0], [1.0], [2.0]]
    assert rest == [3.0, 4.0, 5.0]


@given(st.lists(st.none() | st.floats(allow_nan=False), max_size=12), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_all_losses_come_out_once_in_order_and_exactly(values, lag):
    ready, rest = put_all(LossQueue(len(values), CPU, lag=lag), values)
    assert [loss for losses in ready for loss in losses] + rest == values
    assert all(len(losses) <= 1 for losses in ready)
    assert len(rest) == min(lag, len(values))


def test_skipped_steps_keep_their_place_and_take_no_room():
    assert put_all(LossQueue(1, CPU, lag=2), [None, 7.0, None, None]) == ([[], [], [None], [7.0]], [None, None])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_arrive(value):
    ready, _ = put_all(LossQueue(1, CPU), [value])
    assert np.array_equal(ready[0], [value], equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64])
def test_any_precision_is_widened(dtype, device):
    queue = LossQueue(1, device)
    losses = queue.put(torch.tensor(3, dtype=dtype, device=device)) + queue.drain()
    assert losses == [3.0]
    assert type(losses[0]) is float


def test_a_loss_that_is_overwritten_later_was_read_before(device):
    static = torch.tensor(1.0, device=device)  # as a captured graph returns
    queue = LossQueue(2, device, lag=2)
    queue.put(static)
    static.fill_(2.0)
    queue.put(static)
    assert queue.drain() == [1.0, 2.0]


def test_a_loss_with_a_graph_is_let_go():
    parameter = torch.ones((), requires_grad=True)
    queue = LossQueue(1, CPU, lag=1)
    queue.put(parameter * 2)
    assert not queue._buffer.requires_grad


def test_a_loss_from_the_host_is_taken_too(device):
    queue = LossQueue(1, device)
    losses = queue.put(torch.tensor(0.5, dtype=torch.float64)) + queue.drain()
    assert losses == [0.5]


def test_a_reader_is_asked_for_a_loss_before_it_has_to_bring_it():
    class Reader:
        calls = []

        def request(self, index):
            self.calls.append(("request", index))

        def read(self, index):
            self.calls.append(("read", index))
            return float(index)

    queue = LossQueue(3, CPU, lag=1, reader=Reader())
    for _ in range(3):
        queue.put(torch.tensor(0.0))
    assert queue.drain() == [2.0]
    requested = [("request", 0), ("request", 1), ("read", 0), ("request", 2), ("read", 1), ("read", 2)]
    assert Reader.calls == requested


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_reading_late_never_waits_for_the_newest_step():
    device = torch.device("cuda")
    queue = LossQueue(20, device)
    values = []
    for index in range(20):
        values += queue.put(torch.full((), float(index), device=device))
    assert values + queue.drain() == list(map(float, range(20)))
