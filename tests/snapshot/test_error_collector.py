"""One failure does not stop the attempts after it."""

import pytest

from lrfinder.snapshot.error_collector import ErrorCollector


def test_attempts_go_on():
    done, failures = [], ErrorCollector()
    error = ValueError("why")

    def fail():
        raise error

    failures.attempt("first", fail)
    failures.attempt("second", lambda: done.append(2))
    assert done == [2]
    assert failures == [("first", error)]


def test_an_interrupt_is_no_failure():
    def interrupt():
        raise KeyboardInterrupt

    failures = ErrorCollector()
    with pytest.raises(KeyboardInterrupt):
        failures.attempt("interrupted", interrupt)
    assert failures == []
