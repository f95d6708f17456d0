"""The training loop against the usual tutorial loop and against the network alone; memory of the step.

All contestants train the same LeNet-5 with the same AdamW on the same images of the real MNIST, in turns of a quarter
of a second or so, so that whatever else the machine does hits all of them alike. Ratios are medians of the turns' own.

    python -m benchmarks.training
"""

import contextlib
import io
import itertools
import math
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.optim import AdamW
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

from benchmarks.loading import Contestant, rate, show, tell
from components.dataset.manifest import Manifest, read_manifest
from components.loader.batches import UNCHANGED, Augment, TrainingBatches
from components.loader.stream import Batch
from components.memory import keep_freed_memory
from components.models.artifact import Classifier, build
from components.source import mnist
from components.step import fields
from components.storage import DirectoryStore
from components.train.augmentation import DISTORT
from components.train.checkpoint import Checkpoints
from components.train.course import Course
from components.train.hardware import BATCH_SIZES, LENET5_RATE
from components.train.interface import Train
from components.train.journal import Journal
from components.train.learner import Learner
from components.train.loop import Loop
from components.train.recipe import Recipe
from components.train.train import describe
from tests.ingestion import make_dataset

TURNS = 15
IMAGES = 8192
"""Images a turn."""
BATCH_SIZE = BATCH_SIZES["lenet5"]
EPOCHS = 1000
"""More than any benchmark has turns: the learning rate hardly moves."""

TUTORIAL = "tutorial loop, batch 64"
SAME = "train, batch 64, nothing distorted"
SAME_ALONE = "forward + backward alone, batch 64"
DEFAULT = f"train, default recipe, batch {BATCH_SIZE}"
DEFAULT_ALONE = f"forward + backward alone, batch {BATCH_SIZE}"
GOALS = ((SAME, TUTORIAL, 2.0), (DEFAULT, TUTORIAL, 2.5), (SAME, SAME_ALONE, 0.9), (DEFAULT, DEFAULT_ALONE, 0.9))
"""Who is to be how many times as fast as whom."""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        store = DirectoryStore(room / "store")
        make_dataset("mnist", store.uri, room)
        outputs: dict[str, Any] = {name: room / name for name in ("model", "metrics", "curves")}
        step = Train(dataset=room / "dataset", store=store.uri, **outputs)
        keep_freed_memory()  # as the step does; it makes every contestant faster
        compare(contestants(step, room))
        print(f"peak memory of the step: {peak_memory(step) / 2**30:.2f} GiB (goal: at most 1.5)")


class PartOfBatches(TrainingBatches):
    """Of each epoch as many images as a turn has."""

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        return itertools.islice(super().epoch(number, start), IMAGES // self.batch_size)


def contestants(step: Train, room: Path) -> dict[str, Contestant]:
    """Every contestant by name."""
    manifest = read_manifest(step.dataset)
    config = describe(step, manifest)

    def batches(size: int, augment: Augment) -> TrainingBatches:
        return PartOfBatches(DirectoryStore(room / "store"), manifest, config.shape, size, step.seed, augment)

    def loop(size: int, augment: Augment) -> Contestant:
        return ours(make_loop(room, build(config), Recipe(), LENET5_RATE, batches(size, augment)), IMAGES)

    return {
        TUTORIAL: tutorial(build(config), manifest, room),
        SAME: loop(64, UNCHANGED),
        SAME_ALONE: alone(build(config), next(batches(64, DISTORT).epoch(0)), IMAGES),
        DEFAULT: loop(BATCH_SIZE, DISTORT),
        DEFAULT_ALONE: alone(build(config), next(batches(BATCH_SIZE, DISTORT).epoch(0)), IMAGES),
    }


def tutorial(classifier: Classifier, manifest: Manifest, room: Path) -> Contestant:
    """The loop of the tutorials: MNIST of torchvision with ToTensor and Normalize, a DataLoader, batches of 64."""
    (room / "MNIST").mkdir()
    (room / "MNIST" / "raw").symlink_to(mnist.cache())
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(manifest.mean, manifest.std)])
    loader = DataLoader(Subset(datasets.MNIST(room, transform=transform), range(IMAGES)), batch_size=64, shuffle=True)
    network = classifier.network
    optimizer = AdamW(network.parameters(), fused=True)

    def turn() -> int:
        total = 0.0
        for images, labels in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(network(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item()
        return IMAGES

    return turn


def make_loop(
    room: Path,
    classifier: Classifier,
    recipe: Recipe,
    learning_rate: float,
    batches: TrainingBatches,
    precision: str = "fp32",
) -> Loop:
    """The loop of components/train, with all that it does besides: the journal tells of it, checkpoints are looked for.

    It never ends by itself, and says nothing.
    """
    classifier.to(memory_format=torch.channels_last)  # as the step does
    classes, counts = len(batches.stream.manifest.classes), {"all": 1}
    total = EPOCHS * len(batches)
    how: dict[str, Any] = {"epochs": EPOCHS, "learning_rate": learning_rate, "precision": precision}
    learner = Learner(classifier, recipe, classes=classes, batches=total, **how)
    store = DirectoryStore(room / "told")
    sizes: dict[str, Any] = {"epochs": EPOCHS, "batches": len(batches), "images": batches.images}
    with contextlib.redirect_stdout(io.StringIO()):
        journal = Journal(store, f"training/{id(learner)}", title="benchmark", validation=counts, **sizes)
    journal.progress.pause = math.inf
    checkpoints = Checkpoints(store, f"training/{id(learner)}/checkpoints/", Train.checkpoint_minutes)
    return Loop(learner, batches, Course(), EPOCHS, journal, checkpoints, {})


def ours(loop: Loop, images: int) -> Contestant:
    """An epoch of the loop, which has so many images."""

    def turn() -> int:
        loop.run_epoch()
        loop.course.epoch, loop.course.batch = loop.course.epoch + 1, 0
        return images

    return turn


def alone(classifier: Classifier, batch: Batch, count: int) -> Contestant:
    """Forward and backward on one batch that is there already: no reading, no distortion, no optimizer."""
    images, labels = batch
    batches = count // len(labels)
    classifier.to(memory_format=torch.channels_last)

    def turn() -> int:
        for _ in range(batches):
            classifier.zero_grad()
            F.cross_entropy(classifier(images), labels).backward()  # type: ignore[no-untyped-call]
        return batches * len(labels)

    return turn


def compare(contestants: dict[str, Contestant]) -> None:
    """Prints images/s and the promised ratios."""
    for turn in contestants.values():
        turn()  # warm
    turns = [{name: rate(turn) for name, turn in contestants.items()} for _ in range(TURNS)]
    show(turns, contestants)
    for name, other, goal in GOALS:
        tell(turns, name, other, goal)


def peak_memory(step: Train) -> int:
    """The largest resident size, in bytes, of the step as a process of its own; it is the same in every epoch."""
    subprocess.run([sys.executable, "-m", *command(replace(step, epochs=1))], check=True, capture_output=True)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def command(step: Train) -> list[str]:
    """The step as a process of its own: its module and its flags."""
    return ["components.train", *(f"{field.flag}={getattr(step, field.name)}" for field in fields(Train))]


if __name__ == "__main__":
    main()
