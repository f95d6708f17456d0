"""The loss by learning rate, as a range test measured it, and what follows from it. Needs no torch."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from components.step import StepError

Floats = NDArray[np.float64]

SMOOTHED = 11
"""Batches around each whose mean loss is looked at: a third of a decade of the learning rate."""
FALLEN = 0.05
"""The share of its first value by which the loss has to fall, or nothing was learnt."""
TENTH = 0.1
"""Of the learning rate at which the loss diverges."""


@dataclass(frozen=True)
class Curve:
    """Learning rates, ascending, and the loss of the batch that was learnt at each of them."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]

    @cached_property
    def smoothed(self) -> Floats:
        """Of each loss the mean with its neighbours, float64 [N]: one that looked back alone would come late."""
        count, half = len(self.losses), SMOOTHED // 2
        around = (self.losses[max(0, place - half) : place + half + 1] for place in range(count))
        return np.array([np.mean(losses) for losses in around])

    @property
    def first(self) -> float:
        """The loss before anything was learnt."""
        return float(np.mean(self.losses[:SMOOTHED]))

    @property
    def learnt(self) -> float:
        """By how much the smoothed loss falls, at most."""
        return self.first - float(self.smoothed.min())

    @property
    def end(self) -> int | None:
        """Where three quarters of what was learnt are lost again, for the first time after half of it was learnt."""
        begin = int((self.smoothed <= self.first - self.learnt / 2).argmax())
        lost = self.smoothed[begin:] >= self.first - self.learnt / 4
        return begin + int(lost.argmax()) if lost.any() else None

    @property
    def diverges(self) -> float | None:
        """The learning rate there; None where it did not happen."""
        return None if self.end is None else self.rates[self.end]

    @property
    def steepest(self) -> float:
        """The learning rate at which the smoothed loss falls the fastest, before it diverges."""
        lowest = int(self.smoothed[: self.end].argmin())
        return self.rates[int(np.gradient(self.smoothed)[: lowest + 1].argmin())]

    @property
    def suggested(self) -> tuple[float, str]:
        """The learning rate to train with, to two digits, and why.

        It is the larger one of the rate at which the loss falls the fastest and a tenth of that at which it diverges.
        At both of them the loss still fell, and the larger one trains faster, in particular as the peak of a schedule,
        which is held for a few batches alone. Neither serves alone. AdamW learns the easy part of a data set at a
        tenth of the rate that serves it best, and so falls the fastest too early; SGD without batch normalisation
        learns right before it diverges, where a tenth is too little.

        Raises StepError where the loss did not fall.
        """
        if not self.learnt > FALLEN * self.first:
            raise StepError(
                f"the loss does not fall at any learning rate from {self.rates[0]:.2g} to {self.rates[-1]:.2g}: it "
                f"begins at {self.first:.4g} and comes down to {self.smoothed.min():.4g}; try another recipe, "
                "larger batches or --start pretrained"
            )
        rate, reason = self.steepest, "where the loss falls the fastest"
        if self.diverges and self.diverges * TENTH > rate:
            rate, reason = self.diverges * TENTH, f"a tenth of {self.diverges:.2g}, where the loss diverges"
        return float(f"{rate:.2g}"), reason
