"""SIGTERM, with which Kubernetes takes a node away, held back until a training has said where it is."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Self


class Interruption:
    """Whether this process was asked to end; in the block it is not ended by it."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Self:
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:  # no other thread may set a handler
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._main:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
