"""Ctrl-C, SIGTERM and SIGHUP, which raise KeyboardInterrupt wherever the main thread happens to be."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Has an interrupt wait for the end of the block: what the block starts is then known to whoever has to end it."""
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    def interrupt() -> None:
        if came:
            signal.raise_signal(came[0])

    with contextlib.ExitStack() as restoring:
        if threading.current_thread() is threading.main_thread():  # no other thread is ever interrupted
            restoring.callback(interrupt)  # the last to be called
            for number in NUMBERS:
                if callable(signal.getsignal(number)):  # neither ignored nor the system's
                    restoring.callback(signal.signal, number, signal.signal(number, note))
        yield
