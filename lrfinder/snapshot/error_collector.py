"""Attempts that go on after an error and collect what failed."""

from collections.abc import Callable

from lrfinder.errors import RestoreError

__all__ = ["ErrorCollector"]


class ErrorCollector(list[tuple[str, Exception]]):
    """A list of what could not be put back: pairs of a name and the error.

    Example:
        >>> errors = ErrorCollector()
        >>> errors.attempt("the learning rate", lambda: 1 / 0)
        >>> errors
        [('the learning rate', ZeroDivisionError('division by zero'))]
    """

    __slots__ = ()

    def attempt(self, name: str, function: Callable[[], object]) -> None:
        """Call a function; if it raises, collect the error and return.

        Args:
            name: What messages call the thing that the function puts back.
            function: Called without arguments.
        """
        try:
            function()
        except Exception as error:  # noqa: BLE001 - the rest has to be put back whatever failed here
            self.append((name, error))

    def raise_if_any(self, more: str = "") -> None:
        """Raise one error that names everything that failed, if something did.

        Args:
            more: A sentence that the message ends with; an error is raised for it alone, too.

        Raises:
            RestoreError: There are errors, or `more` is not empty.
        """
        sentences = [more] if more else []
        if self:
            failed = "; ".join(f"{name} ({type(error).__name__}: {error})" for name, error in self)
            sentences.insert(0, f"Could not put back: {failed}. Everything else is as it was.")
        if sentences:
            raise RestoreError(" ".join(sentences)) from (self[0][1] if self else None)
