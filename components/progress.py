"""How far, how fast, how long still: one line at a time, readable in a terminal and in a pod's log alike."""

import os
import sys
import time

MARK = "progress: "
"""Starts every line of progress, so that `retrain run` can show the newest in place of the one before."""


class Progress:
    """Counts towards a total and says so on stderr, at most once in RETRAIN_PROGRESS_SECONDS (default 10).

    `what` may be empty, where the step itself is meant; `total` is None where nobody knows it.
    """

    def __init__(self, what: str, total: int | None, unit: str) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.pause = float(os.environ.get("RETRAIN_PROGRESS_SECONDS", "10"))
        self.done = 0
        self.start = self.spoken = time.monotonic()

    def advance(self, count: int, note: str = "") -> None:
        """Adds `count` units; `note` is shown at the end of the line."""
        self.done += count
        now = time.monotonic()
        if now - self.spoken >= self.pause or (self.total is not None and self.done >= self.total):
            self.spoken = now
            print(MARK + self.line(now, note), file=sys.stderr, flush=True)

    def line(self, now: float, note: str = "") -> str:
        speed = self.done / max(now - self.start, 1e-9)
        if self.total is None:
            far, left = f"{self.done:,} {self.unit}", ""
        else:
            far = f"{100 * self.done / self.total if self.total else 100:.0f}%"
            left = f"{(self.total - self.done) / speed if speed else 0:.0f} s left"
        pieces = [f"{self.what} {far}".lstrip(), f"{speed:,.0f} {self.unit}/s", left, note]
        return ", ".join(piece for piece in pieces if piece)
