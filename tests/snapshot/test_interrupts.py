"""Interrupts wait for a block of work, and none gets lost."""

import signal
import threading

import pytest

from lrfinder.snapshot.interrupts import interrupts_deferred


class Failed(Exception):
    """What a block raises of its own."""


def work(done, *, error=None):
    with interrupts_deferred():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        done.append("work")
        if error is not None:
            raise error


@pytest.mark.parametrize("error", [None, ValueError("the block's own")])
def test_an_interrupt_comes_after_the_block(error):
    done, handler = [], signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as caught:
        work(done, error=error)
    assert done == ["work"]
    assert caught.value.__context__ is error
    assert signal.getsignal(signal.SIGINT) is handler


def test_the_users_handler_is_called():
    received = []
    before = signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    try:
        work([])
        assert received == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


def test_ignored_interrupts_stay_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        done = []
        work(done)
        assert done == ["work"]
    finally:
        signal.signal(signal.SIGINT, before)


def test_blocks_may_nest():
    done = []

    def nest():
        with interrupts_deferred():
            with pytest.raises(Failed):
                work(done, error=Failed())
            done.append("outer")

    with pytest.raises(KeyboardInterrupt):
        nest()
    assert done == ["work", "outer"]


def test_another_thread_installs_nothing():
    handlers = []

    def look():
        with interrupts_deferred():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGINT)]
