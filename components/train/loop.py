"""The training loop: an epoch's batches one after the other, and what has to be done between two of them."""

import math
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch
from torch import Generator, Tensor

from components.loader.batches import TrainingBatches
from components.loader.order import random
from components.step import StepError
from components.train.augmentation import mix
from components.train.checkpoint import Checkpoints, State, random_state
from components.train.course import Course
from components.train.interruption import Interruption
from components.train.journal import Journal
from components.train.learner import Learner

T = TypeVar("T")

MIXES = 7
"""Tells what is drawn for mixing from what the loader draws."""
UNREAD = 32
"""Batches whose loss is not looked at, where that would have to wait for a GPU or for other ranks."""


class Loop:
    """Takes a learner along its course."""

    def __init__(
        self,
        learner: Learner,
        batches: TrainingBatches,
        course: Course,
        epochs: int,
        journal: Journal | None,
        checkpoints: Checkpoints,
        choices: State,
    ) -> None:
        """`journal` is None on ranks that do not speak; `choices` go into the checkpoints as they are."""
        self.learner, self.batches, self.course, self.epochs = learner, batches, course, epochs
        self.journal, self.checkpoints, self.choices = journal, checkpoints, choices
        self.interruption = Interruption()
        self._unread: list[tuple[int, float, int, Tensor]] = []
        self._most_unread = 1 if learner.device.type == "cpu" and learner.ranks.ranks == 1 else UNREAD
        self._since, self._waited = time.monotonic(), batches.waited_seconds

    def run_epoch(self) -> None:
        """The batches of the epoch that are not done yet. Raises StepError where the loss ceases to be a number."""
        course, learner = self.course, self.learner
        learner.train()
        self.tick()
        found = self.batches.epoch(course.epoch, course.batch)
        for number, (images, labels) in enumerate(self.watched(found), course.batch + 1):
            count, rate = self.batches.count(number - 1), learner.learning_rate
            images, targets = self._mixed(images, learner.targets(labels), number)
            loss = learner.learn(images, targets, count)
            course.batch = number
            self._unread.append((number, rate, count, loss))
            if len(self._unread) >= self._most_unread:
                self._read()
            if self.journal:
                waited = self.batches.waited_seconds
                # Of several ranks this one's part stands for all; together they are looked at less often.
                shown = loss if learner.ranks.ranks == 1 else loss * learner.ranks.ranks
                self.journal.batch(course.epoch, number, count, shown, rate, waited)
        self._read()

    def watched(self, items: Iterable[T]) -> Iterator[T]:
        """The same items; after each of them a checkpoint is written where one is due, or this process is to end."""
        for item in items:
            yield item
            ending, due = self.interruption.requested, self.learner.ranks.first and self.checkpoints.due
            if self.learner.ranks.ranks > 1:  # all of them at the same batch
                ending, due = map(bool, self.learner.ranks.sum([float(ending), float(due)]))
            if ending or due:
                self.save()
            if ending:
                if self.checkpoints.wait():
                    print("ended by SIGTERM after a checkpoint; the same training goes on from it", file=sys.stderr)
                sys.exit(128 + signal.SIGTERM)

    def save(self) -> None:
        """Writes a checkpoint."""
        self._read()
        self.tick()
        state = {
            "learner": self.learner.state(),
            "course": dict(vars(self.course)),
            "random": random_state(self.learner.device),
        }
        if self.learner.ranks.first:
            self.checkpoints.save(self._done(), state | {"choices": self.choices})

    def tick(self) -> None:
        """Adds the time since it was last called to that of the epoch."""
        now, waited = time.monotonic(), self.batches.waited_seconds
        self.course.seconds += now - self._since
        self.course.waited += waited - self._waited
        self._since, self._waited = now, waited

    def _done(self) -> int:
        """Batches, in all epochs."""
        return (self.course.epoch - 1) * len(self.batches) + self.course.batch

    def _mixed(self, images: Tensor, targets: Tensor, number: int) -> tuple[Tensor, Tensor]:
        recipe = self.learner.recipe
        if not recipe.mixes:
            return images, targets
        generator = Generator()
        generator.manual_seed(int(random(self.batches.seed, MIXES, self.course.epoch, 0, number).integers(2**63)))
        return mix(images, targets, recipe.mixup, recipe.cutmix, generator)

    def _read(self) -> None:
        """Looks at the losses of the last batches."""
        if not self._unread:
            return
        losses = self.learner.ranks.sum(torch.stack([loss for *_, loss in self._unread]).tolist())
        for (number, rate, count, _), loss in zip(self._unread, losses, strict=True):
            check_loss(loss, f"in epoch {self.course.epoch}/{self.epochs}, batch {number}", rate)
            self.course.loss += loss * count
            self.course.images += count
        self._unread.clear()


def check_loss(loss: float, where: str, rate: float) -> None:
    """Raises StepError unless the loss is a number."""
    if not math.isfinite(loss):
        raise StepError(f"loss is {loss} {where}, at learning rate {rate:.3g}; try a smaller --learning-rate")
