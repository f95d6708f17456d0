"""Interrupts that wait until what is being started is known."""

import signal
import threading

import pytest

from pipelines.interrupts import NUMBERS, held_back


def test_an_interrupt_waits_for_the_end_of_the_block() -> None:
    before, done = signal.getsignal(signal.SIGINT), list[str]()

    def start() -> None:
        with held_back():
            signal.raise_signal(signal.SIGINT)
            done.append("started")
            signal.raise_signal(signal.SIGINT)
            done.append("known")

    with pytest.raises(KeyboardInterrupt):
        start()
    assert done == ["started", "known"]
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_comes_also_where_the_block_fails() -> None:
    def start() -> None:
        with held_back():
            signal.raise_signal(signal.SIGINT)
            raise OSError

    with pytest.raises(KeyboardInterrupt):
        start()


def test_what_is_ignored_or_left_to_the_system_stays_so() -> None:
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGHUP, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with held_back():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
            signal.raise_signal(signal.SIGHUP)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_other_threads_change_no_handler() -> None:
    seen: list[object] = []

    def look() -> None:
        with held_back():
            seen.extend(map(signal.getsignal, NUMBERS))

    before = list(map(signal.getsignal, NUMBERS))
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == before
