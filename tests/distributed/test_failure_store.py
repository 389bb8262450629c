"""FailureStore in the store, and which errors are but consequences of another rank's."""

from types import SimpleNamespace

import pytest
import torch.distributed as dist

from lrfinder.distributed.failure_store import FailureStore, is_cut_off, quote


def test_the_first_failure_of_a_find_stays(group_of_one):
    failures, others = (
        FailureStore(SimpleNamespace(group_name="7"), find=1),
        FailureStore(SimpleNamespace(group_name="7"), find=2),
    )
    assert failures.read() is None
    failures.post(3, ValueError("two  words"))
    failures.post(1, KeyError("later"))
    assert failures.read() == (3, "ValueError: two  words")
    assert others.read() is None


def test_a_store_without_a_name_has_no_failures(group_of_one, monkeypatch):
    monkeypatch.delattr(dist.distributed_c10d, "_get_default_store")
    failures = FailureStore(SimpleNamespace(group_name="7"), find=1)
    failures.post(0, ValueError("no"))
    assert failures.read() is None


def test_a_very_long_message_is_cut():
    assert len(quote(ValueError("x" * 10_000))) == 1000


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("[/x/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1"), True),
        (RuntimeError("Application timeout caused pair closure"), True),
        (dist.DistNetworkError("Connection was likely closed."), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (RuntimeError("DataLoader timed out after 5 seconds"), False),
        (ValueError("gloo"), False),
    ],
)
def test_which_errors_are_but_consequences_of_anothers(error, expected):
    assert is_cut_off(error) is expected
