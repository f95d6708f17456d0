"""How far a training has come, and what it has shown so far."""

from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]
"""An epoch of the learning curve, or the results of a training: flat, so that the UI can list it."""


@dataclass
class Course:
    """Where a training is; with the learner's state it is all that a checkpoint holds."""

    epoch: int = 1
    """The one that is running, from 1."""
    batch: int = 0
    """Its batches that are done."""
    loss: float = 0.0
    """Of these, the sum over their images."""
    images: int = 0
    seconds: float = 0.0
    """That this epoch has taken, in all attempts."""
    waited: float = 0.0
    """Of these, waiting for data."""
    curve: list[Row] = field(default_factory=list)
    best_epoch: int = 0
    best: dict[str, Any] | None = None
    """The weights after it, kept where a training may end early."""

    def finish_epoch(self, validation_loss: float, accuracy: float, learning_rate: float) -> Row:
        """Adds a row to the curve and goes to the next epoch."""
        row = {
            "epoch": self.epoch,
            "train_loss": self.loss / self.images,
            "validation_loss": validation_loss,
            "validation_accuracy": accuracy,
            "learning_rate": learning_rate,  # at the end of the epoch
            "data_wait": self.waited / self.seconds,  # the share of them spent waiting for images
            "seconds": self.seconds,
        }
        self.curve.append(row)
        if accuracy > max((each["validation_accuracy"] for each in self.curve[:-1]), default=-1.0):
            self.best_epoch = self.epoch
        self.epoch, self.batch, self.loss, self.images, self.seconds, self.waited = self.epoch + 1, 0, 0.0, 0, 0.0, 0.0
        return row

    def is_over(self, epochs: int, patience: int) -> bool:
        """Whether all epochs are done, or so many in a row were no better than the best before them."""
        return self.epoch > epochs or (patience > 0 and len(self.curve) - self.best_epoch >= patience)

    def results(self, images: int) -> Row:
        """In numbers; `images` are those of an epoch."""
        shown = self.curve[self.best_epoch - 1] if self.best else self.curve[-1]
        seconds = sum(row["seconds"] for row in self.curve)
        data_wait = sum(row["data_wait"] * row["seconds"] for row in self.curve) / seconds
        last = {name: shown[name] for name in ("train_loss", "validation_loss", "validation_accuracy")}
        speed = images * len(self.curve) / seconds
        return last | {"seconds": seconds, "images_per_second": speed, "data_wait": data_wait}
