"""Puts what there is to see of a training into the store, in the background: the loop never waits for it."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from components.progress import say
from components.step import StepError, UserError
from components.storage import Store
from components.train.events import Events, Scalars

PAGE_SECONDS = 10.0
"""Between two versions of the page; an epoch that ends does not wait for it."""

EVENTS_SECONDS = 30.0
"""Between the first event files; each pause is a twentieth longer than the one before, so that there are never many."""

LONGEST_SECONDS = 3600.0
"""The longest of these pauses."""

CLOSING_SECONDS = 20.0
"""How long the end of a training waits for the store at most."""


class Board:
    """The page `live.html` and TensorBoard's files below `tensorboard/` of a training.

    A store that fails costs a warning. What could not be written is written when it is back.
    """

    def __init__(
        self, store: Store, prefix: str, page: Callable[[], str], done: int, epochs: Sequence[Scalars]
    ) -> None:
        """`page` makes the page; `done` batches and these `epochs` are what counts of what earlier processes told."""
        self.store, self.prefix, self.page, self.done, self.epochs = store, prefix, page, done, list(epochs)
        self.points: list[Scalars] = []
        """Those of batches, of earlier processes too."""
        self._events = Events(store, f"{prefix}/tensorboard")
        self._new: deque[Scalars] = deque()
        self._resumed = self._warned = self._closing = False
        self._due = time.monotonic() + EVENTS_SECONDS
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name="board", daemon=True)

    @property
    def location(self) -> str:
        """Of the page."""
        return f"{self.store.uri}/{self.prefix}/live.html"

    def start(self) -> None:
        """Begins to write; from now on `page` is called in another thread."""
        self._thread.start()

    def add(self, new: Scalars) -> None:
        """Values for TensorBoard and the page."""
        self._new.append(new)

    def wake(self) -> None:
        """Has the page written now."""
        self._woken.set()

    def close(self) -> None:
        """Writes the last, and waits until it is written, or for CLOSING_SECONDS."""
        self._closing = True
        self.wake()
        self._thread.join(CLOSING_SECONDS)
        if self._thread.is_alive():
            self._warn(f"store {self.store.uri} did not answer for {CLOSING_SECONDS:.0f} s")

    def _run(self) -> None:
        last = False
        while not last:
            last = self._closing  # asked before what is written last is gathered
            try:
                self._write(last)
                self._warned = False
            except (StepError, UserError, OSError) as error:
                self._warn(str(error))
            self._woken.wait(0 if last else PAGE_SECONDS)
            self._woken.clear()

    def _write(self, last: bool) -> None:
        if not self._resumed:
            self._resume()
        while self._new:
            self._take(self._new.popleft())
        self.store.write(f"{self.prefix}/live.html", self.page().encode())
        if last or time.monotonic() >= self._due:
            self._events.put()
            self._due = time.monotonic() + min(EVENTS_SECONDS * 1.05**self._events.files, LONGEST_SECONDS)

    def _resume(self) -> None:
        """Takes up what earlier processes told; what this one does again, it tells again."""
        steps = {epoch.step for epoch in self.epochs}
        found = self._events.resume(
            self.done, lambda told: told.step <= self.done if is_point(told) else told.step in steps
        )
        self.points = [told for told in found if is_point(told)]
        known = {told.step for told in found if not is_point(told)}
        for epoch in self.epochs:
            if epoch.step not in known:
                self._events.add(epoch)
        self._resumed = True

    def _take(self, new: Scalars) -> None:
        self._events.add(new)
        if is_point(new):
            self.points.append(new)

    def _warn(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            say("warning", f"warning: what there is to see of the training cannot be written; it goes on. {why}")


def is_point(told: Scalars) -> bool:
    """Whether it tells of batches, and not of the validation after an epoch."""
    return "train/loss" in told.values
