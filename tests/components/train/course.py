"""A training of made-up numbers, and what is told of it."""

import math
from collections.abc import Sequence
from typing import Any

from components.progress import Figure
from components.storage import Store
from components.train.events import Scalars
from components.train.journal import Journal
from components.train.live import Status

EPOCHS, BATCHES, IMAGES = 4, 10, 320
PREFIX = "training/4f2a"


def journal(store: Store, **options: Any) -> Journal:
    whole: dict[str, Any] = {"title": "flowers: lenet5", "epochs": EPOCHS, "batches": BATCHES, "images": IMAGES}
    return Journal(store, PREFIX, **whole, validation={"rose": 50, "tulip": 50}, **options)


def row(epoch: int, **values: float) -> dict[str, Any]:
    """A row of the learning curve."""
    return {
        "epoch": epoch,
        "train_loss": 1 / epoch,
        "validation_loss": 1.2 / epoch,
        "validation_accuracy": 1 - 0.3 / epoch,
        "learning_rate": 0.01 / epoch,
        "data_wait": 0.02,
        "seconds": 12.5,
        **values,
    }


def batch(journal: Journal, step: int) -> None:
    """Tells of a batch, counted from 1 over all epochs."""
    epoch, number = divmod(step - 1, BATCHES)
    journal.batch(epoch + 1, number + 1, 32, 2 / step, 0.01, 0.001 * step)


def learn(journal: Journal, steps: range) -> None:
    """Tells of these batches, and of the epochs that they end."""
    for step in steps:
        batch(journal, step)
        if step % BATCHES == 0:
            journal.epoch(row(step // BATCHES))


def status(epochs: int = 3, **changes: Any) -> Status:
    """A training in the middle of the epoch after so many."""
    done = 100 * epochs + 40
    known: dict[str, Any] = {
        "title": "flowers: lenet5",
        "state": "running",
        "sentence": "",
        "epoch": epochs + 1,
        "epochs": 12,
        "batches": 100,
        "share": done / 1200,
        "seconds_left": 754.0,
        "images_per_second": 18_040.4,
        "figures": [Figure("epoch", "4/12"), Figure("loss", "0.0312"), Figure("memory", "1,812", "MiB")],
        "curve": [row(epoch) for epoch in range(1, epochs + 1)],
        "points": points(range(1, done, 2)),
        "notes": ["batch size 256, the largest that fits"],
        "hints": [],
    }
    return Status(**known | changes)


def points(steps: Sequence[int]) -> list[Scalars]:
    return [
        Scalars(
            step,
            {
                "train/loss": 2 * math.exp(-step / 150) + 0.05 * math.sin(step) ** 2,
                "train/learning_rate": 0.006 * math.sin(math.pi * step / 1200),
                "train/images_per_second": 18_000 + 500 * math.sin(step),
                "train/data_wait": 0.01,
            },
            1_700_000_000.0 + step,
        )
        for step in steps
    ]
