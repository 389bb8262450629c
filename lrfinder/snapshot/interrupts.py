"""Ctrl-C waits until a block of work is done."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["interrupts_deferred"]


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Delay interrupts (Ctrl-C) until the end of a block; one that arrived meanwhile is raised there.

    Only the main thread receives interrupts: in other threads this does nothing.

    Example:
        >>> import signal
        >>> try:
        ...     with interrupts_deferred():
        ...         signal.raise_signal(signal.SIGINT)
        ...         print("the work is done")
        ... except KeyboardInterrupt:
        ...     print("then interrupted")
        the work is done
        then interrupted
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is None:  # None: a handler in C, which Python could not put back
        yield
        return
    received: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if received:
            signal.raise_signal(signal.SIGINT)
