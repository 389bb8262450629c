"""Attempts that go on after a failure, and remember what failed."""

from collections.abc import Callable

__all__ = ["ErrorCollector"]


class ErrorCollector(list[tuple[str, Exception]]):
    """What could not be put back so far: pairs of a name and the error.

    Example:
        >>> failures = ErrorCollector()
        >>> failures.attempt("the rate", lambda: 1 / 0)
        >>> failures
        [('the rate', ZeroDivisionError('division by zero'))]
    """

    __slots__ = ()

    def attempt(self, name: str, put_back: Callable[[], object]) -> None:
        """Put one thing back; if that fails, take a note and let the caller go on with the rest.

        Args:
            name: What messages call the thing.
            put_back: Puts it back.
        """
        try:
            put_back()
        except Exception as error:  # noqa: BLE001 - whatever went wrong here, the rest still has to be put back
            self.append((name, error))
