"""The training loop against the usual tutorial loop and against the network alone; memory of the step.

All contestants train the same LeNet-5 with the same AdamW on the same images of the real MNIST, in turns of a quarter
of a second or so, so that whatever else the machine does hits all of them alike. Ratios are medians of the turns' own.

    python -m benchmarks.training
"""

import itertools
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch.nn.functional as F
from torch.optim import AdamW
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

from components.dataset.manifest import Manifest, read_manifest
from components.loader.batches import Augment, TrainingBatches
from components.models.artifact import Classifier, build
from components.progress import Progress
from components.source import mnist
from components.storage import DirectoryStore
from components.train.augmentation import distort
from components.train.interface import Train
from components.train.learner import Learner
from components.train.memory import keep_freed_memory
from components.train.train import describe, run_epoch
from tests.ingestion import make_dataset

TURNS = 15
IMAGES = 8192
"""Images a turn."""

TUTORIAL = "tutorial loop, batch 64"
SAME = "train, batch 64, nothing distorted"
SAME_ALONE = "forward + backward alone, batch 64"
DEFAULT = f"train, default recipe, batch {Train.batch_size}"
DEFAULT_ALONE = f"forward + backward alone, batch {Train.batch_size}"
GOALS = ((SAME, TUTORIAL, 2.0), (DEFAULT, TUTORIAL, 2.5), (SAME, SAME_ALONE, 0.9), (DEFAULT, DEFAULT_ALONE, 0.9))
"""Who is to be how many times as fast as whom."""

Contestant = Callable[[], object]
"""Trains on IMAGES images."""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        store = DirectoryStore(room / "store")
        make_dataset("mnist", store.uri, room)
        recipe = Train(dataset=room / "dataset", store=store.uri, model=room / "model", metrics=room / "metrics")
        keep_freed_memory()  # as the step does; it makes every contestant faster
        compare(contestants(recipe, room))
        print(f"peak memory of the step: {peak_memory(recipe) / 2**30:.2f} GiB (goal: at most 1.5)")


def contestants(recipe: Train, room: Path) -> dict[str, Contestant]:
    """Every contestant by name."""
    manifest = read_manifest(recipe.dataset)
    store = DirectoryStore(Path(recipe.store))
    config = describe(recipe, manifest)

    def batches(size: int, augment: Augment) -> TrainingBatches:
        return TrainingBatches(store, manifest, config.shape, size, recipe.seed, augment)

    def fresh() -> Classifier:
        return build(config)

    return {
        TUTORIAL: tutorial(fresh(), manifest, room),
        SAME: ours(fresh(), batches(64, lambda images, generator: images), 64),
        SAME_ALONE: alone(fresh(), batches(64, distort), 64),
        DEFAULT: ours(fresh(), batches(recipe.batch_size, distort), recipe.batch_size),
        DEFAULT_ALONE: alone(fresh(), batches(recipe.batch_size, distort), recipe.batch_size),
    }


def tutorial(classifier: Classifier, manifest: Manifest, room: Path) -> Contestant:
    """The loop of the tutorials: MNIST of torchvision with ToTensor and Normalize, a DataLoader, batches of 64."""
    (room / "MNIST").mkdir()
    (room / "MNIST" / "raw").symlink_to(mnist.cache())
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(manifest.mean, manifest.std)])
    loader = DataLoader(Subset(datasets.MNIST(room, transform=transform), range(IMAGES)), batch_size=64, shuffle=True)
    network = classifier.network
    optimizer = AdamW(network.parameters(), fused=True)

    def turn() -> None:
        total = 0.0
        for images, labels in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(network(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item()

    return turn


def ours(classifier: Classifier, batches: TrainingBatches, size: int) -> Contestant:
    """The loop of components/train itself."""
    turns = itertools.count()
    learner = Learner(classifier, (TURNS + 1) * (IMAGES // size), Train.learning_rate)
    progress = Progress("train", (TURNS + 2) * IMAGES, "images")
    progress.pause = float("inf")

    def turn() -> None:
        run_epoch(learner, itertools.islice(batches.epoch(next(turns)), IMAGES // size), progress, "benchmark")

    return turn


def alone(classifier: Classifier, batches: TrainingBatches, size: int) -> Contestant:
    """Forward and backward on one batch that is there already: no reading, no distortion, no optimizer."""
    images, labels = next(batches.epoch(0))

    def turn() -> None:
        for _ in range(IMAGES // size):
            classifier.zero_grad()
            F.cross_entropy(classifier(images), labels).backward()  # type: ignore[no-untyped-call]

    return turn


def compare(contestants: dict[str, Contestant]) -> None:
    """Prints images/s and the promised ratios."""
    for turn in contestants.values():
        turn()  # warm
    turns = [{name: seconds(turn) for name, turn in contestants.items()} for _ in range(TURNS)]
    for name in contestants:
        print(f"{name:<38} {IMAGES / statistics.median(turn[name] for turn in turns):8,.0f} images/s")
    for name, other, goal in GOALS:
        ratio = statistics.median(turn[other] / turn[name] for turn in turns)
        print(f"{ratio:.2f} times {other!r}: {name!r} (goal: at least {goal})")


def seconds(turn: Contestant) -> float:
    """How long a turn takes."""
    start = time.perf_counter()
    turn()
    return time.perf_counter() - start


def peak_memory(recipe: Train) -> int:
    """The largest resident size, in bytes, of the step as a process of its own; it is the same in every epoch."""
    paths = [f"--{name}={getattr(recipe, name)}" for name in ("dataset", "store", "model", "metrics")]
    subprocess.run([sys.executable, "-m", "components.train", *paths, "--epochs=1"], check=True, capture_output=True)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


if __name__ == "__main__":
    main()
