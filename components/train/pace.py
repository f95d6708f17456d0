"""How a training moves: batches gathered into the points of its curves."""

import math
import time
from typing import TYPE_CHECKING

from components.train.events import Scalars

if TYPE_CHECKING:
    from torch import Tensor

POINTS = 500
"""About how many a whole training has."""

SHORTEST_SECONDS = 0.25
"""Of training that a point tells of, so that its speed is that of many batches."""


class Pace:
    """Counts batches; its clock stands still while the model is validated."""

    def __init__(self, batches: int, done: int) -> None:
        """`batches` are those of all epochs, of which earlier processes have `done` some."""
        self.batches, self.step = batches, done
        self.loss: float | Tensor = math.nan
        """Of the newest batch."""
        self.learning_rate, self.waited_seconds, self.seconds = math.nan, 0.0, 0.0
        self.data_wait = 0.0
        """The share of the time of the newest point that was spent waiting for images."""
        self._begun = self._stopped = time.monotonic()
        self._begin(self._begun)

    def advance(
        self, step: int, images: int, loss: "float | Tensor", learning_rate: float, waited_seconds: float
    ) -> bool:
        """Adds a batch; whether it is time for a point."""
        self.step, self.loss, self.learning_rate, self.waited_seconds = step, loss, learning_rate, waited_seconds
        self._losses.append(loss)
        self._images += images
        return len(self._losses) >= self._enough and time.monotonic() - self._begun >= SHORTEST_SECONDS

    def point(self) -> Scalars | None:
        """What the batches since the last point were like; None where there were none."""
        if not self._losses:
            return None
        now = time.monotonic()
        seconds = max(now - self._begun, 1e-9)
        self.data_wait = (self.waited_seconds - self._waited_before) / seconds
        self.seconds += seconds
        values = {
            "train/loss": float(sum(self._losses)) / len(self._losses),
            "train/learning_rate": self.learning_rate,
            "train/images_per_second": self._images / seconds,
            "train/data_wait": self.data_wait,
        }
        self._begin(now)
        return Scalars(self.step, values, time.time())

    def stop(self) -> None:
        """Stops the clock."""
        self._stopped = time.monotonic()

    def go_on(self) -> None:
        """Has it run again."""
        self._begun += time.monotonic() - self._stopped

    def _begin(self, now: float) -> None:
        self._begun, self._waited_before = now, self.waited_seconds
        self._losses: list[float | Tensor] = []  # added up only when they are shown: a GPU is not waited for before
        self._images = 0
        # Close together in the beginning, when much changes, and then evenly.
        self._enough = max(1, min(self.step // 100, self.batches // POINTS))
