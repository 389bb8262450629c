"""One error does not stop the attempts after it."""

import pytest

from lrfinder import RestoreError
from lrfinder.snapshot.error_collector import ErrorCollector


def test_attempts_go_on():
    done, errors = [], ErrorCollector()
    error = ValueError("why")

    def fail():
        raise error

    errors.attempt("first", fail)
    errors.attempt("second", lambda: done.append(2))
    assert done == [2]
    assert errors == [("first", error)]


def test_an_interrupt_is_not_collected():
    def interrupt():
        raise KeyboardInterrupt

    errors = ErrorCollector()
    with pytest.raises(KeyboardInterrupt):
        errors.attempt("interrupted", interrupt)
    assert errors == []


def test_one_error_names_everything_that_failed():
    errors = ErrorCollector()
    errors.raise_if_any()
    errors.attempt("first", lambda: {}[1])
    errors.attempt("second", lambda: 1 / 0)
    with pytest.raises(
        RestoreError,
        match=r"^Could not put back: first \(KeyError: 1\); second \(Zero.*\)\. Everything else .* More\.$",
    ) as caught:
        errors.raise_if_any("More.")
    assert caught.value.__cause__ is errors[0][1]
    with pytest.raises(RestoreError, match=r"^Only this\.$"):
        ErrorCollector().raise_if_any("Only this.")
