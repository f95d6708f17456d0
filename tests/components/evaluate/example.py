"""A model judged on three classes, by hand, and the page about it."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.dataset.manifest import Manifest
from components.dataset.splits import Cuts
from components.evaluate.metrics import score
from components.evaluate.report import Mistake, render
from components.models.config import ModelConfig
from components.verdict import Verdict

CLASSES = ("cat", "dog", "zebra")
CONFUSION = np.array([[48, 2, 0], [0, 50, 0], [1, 3, 46]])


def verdict(classes: tuple[str, ...] = CLASSES, confusion: NDArray[np.int64] = CONFUSION, **changes: Any) -> Verdict:
    scores = score(confusion)
    rows = zip(classes, scores.precision, scores.recall, scores.f1, confusion.sum(axis=1), strict=True)
    made = Verdict(
        accepted=True,
        reasons=("The test accuracy of 96 % reaches min_accuracy, 90 %.", "It beats the champion."),
        accuracy=scores.accuracy,
        macro_precision=scores.macro_precision,
        macro_recall=scores.macro_recall,
        macro_f1=scores.macro_f1,
        per_class=tuple({"class": n, "precision": p, "recall": r, "f1": f, "images": int(i)} for n, p, r, f, i in rows),
        confusion=tuple(map(tuple, confusion.tolist())),
        test_images=int(confusion.sum()),
        dataset="ab" * 32,
        test_digest="cd" * 32,
        champion={"version": 3, "accuracy": 143 / 150},
        seconds=1.93,
    )
    return replace(made, **changes)


def manifest(classes: tuple[str, ...] = CLASSES, **changes: Any) -> Manifest:
    made = Manifest(
        classes=classes,
        encoding="raw",
        shape=(28, 28, 1),
        counts={split: dict.fromkeys(classes, n) for split, n in {"train": 450, "validation": 60, "test": 50}.items()},
        mean=(0.1307,),
        std=(0.3081,),
        split_digests={"train": "aa" * 32, "validation": "bb" * 32, "test": "cd" * 32},
        digest="ab" * 32,
        shards=(),
        facts=(),
        cuts=Cuts(0.1, 0.2, {}),
        parent=None,
        provenance={"source": "/data/animals", "seconds": 3.21},
    )
    return replace(made, **changes)


def config(classes: tuple[str, ...] = CLASSES, **changes: Any) -> ModelConfig:
    made = ModelConfig(
        architecture="lenet5",
        options={"activation": "relu", "pooling": "max", "bias": True},
        classes=classes,
        shape=(28, 28, 1),
        mean=(0.1307,),
        std=(0.3081,),
        dataset="ab" * 32,
        training={"epochs": 3, "seed": 7, "seconds": 45.1, "images_per_second": 18234.2, "parameters": 60000},
    )
    return replace(made, **changes)


def curve(epochs: int) -> list[dict[str, float]]:
    return [
        {
            "epoch": epoch,
            "train_loss": 0.5 / epoch,
            "validation_loss": 0.4 / epoch,
            "validation_accuracy": 1 - 0.1 / epoch,
        }
        for epoch in range(1, epochs + 1)
    ]


def mistakes(count: int, channels: int = 1) -> list[Mistake]:
    image = np.arange(28 * 28 * channels, dtype=np.uint8).reshape(28, 28, channels)
    return [Mistake(image, "cat", "dog", 1 - index / 100) for index in range(count)]


def page(classes: tuple[str, ...] = CLASSES) -> str:
    """The report of this model, with these names for its classes."""
    return render("animals", verdict(classes), manifest(classes), config(classes), curve(3), mistakes(6))
