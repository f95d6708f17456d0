"""Test accuracy of the default recipe, and of the paper's own form under the same recipe, over five seeds.

python -m benchmarks.accuracy
"""

import contextlib
import io
import statistics
import tempfile
from pathlib import Path
from typing import Any

from components.dataset.manifest import read_manifest
from components.loader.batches import OrderedBatches
from components.models.artifact import load
from components.storage import open_store
from components.train.interface import Train
from components.train.learner import judge
from components.train.train import train
from tests.ingestion import make_dataset

SEEDS = range(5)
FORMS: dict[str, dict[str, Any]] = {
    "default recipe": {},
    "the paper's own form": {"activation": "tanh", "pooling": "avg"},
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        store = str(room / "store")
        make_dataset("mnist", store, room)
        for form, options in FORMS.items():
            runs = [run(room, seed, options) for seed in SEEDS]
            accuracy, seconds = (statistics.median(figures) for figures in zip(*runs, strict=True))
            print(f"{form}: median {accuracy:.2%} on the test images, {seconds:.1f} s of training", flush=True)
    print("goal for the default recipe: at least 99.20% in at most 60 s")


def run(room: Path, seed: int, options: dict[str, Any]) -> tuple[float, float]:
    """Trains once; returns the accuracy on the test images and the seconds of training."""
    outputs: dict[str, Any] = {name: room / name for name in ("model", "metrics", "curves")}
    step = Train(dataset=room / "dataset", store=str(room / "store"), seed=seed, **outputs, **options)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        metrics = train(step)["metrics"]
    test = OrderedBatches(open_store(step.store), read_manifest(step.dataset), "test", (28, 28, 1))
    accuracy = judge(load(step.model)[0], test)[1]
    print(f"  seed {seed}: {accuracy:.2%}, {metrics['seconds']:.1f} s", flush=True)
    return accuracy, metrics["seconds"]


if __name__ == "__main__":
    main()
