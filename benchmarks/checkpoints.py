"""What a checkpoint costs while ResNet-18 is trained, and how long a training that was killed takes to go on from one.

Turns with checkpoints, as many as can be written one after the other, alternate with turns without.

    python -m benchmarks.checkpoints
"""

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.networks import make, write_files
from benchmarks.training import command, make_loop, ours
from components.dataset.manifest import read_manifest
from components.loader.batches import UNCHANGED, TrainingBatches
from components.memory import keep_freed_memory
from components.progress import MARK
from components.storage import DirectoryStore
from components.train.checkpoint import Checkpoints, State
from components.train.interface import Train
from components.train.recipe import Recipe
from tests.ingestion import make_dataset

IMAGES = 768
SIDE = 64
BATCH_SIZE = 64
TURNS = 5
STARTS = 3
PERIODS = (60 * Train.checkpoint_minutes, 30.0)
"""Seconds between two checkpoints: the default, and far more often."""


class Cost(NamedTuple):
    """Of a checkpoint, in seconds."""

    blocking: float
    """In which the training stands still."""
    slower: float
    """By which it is slower in all, until the checkpoint is in the store."""


def main() -> None:
    keep_freed_memory()  # as the step does
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        store = DirectoryStore(room / "store")
        dataset = make_dataset(write(room), store.uri, room, limits="near_duplicates=1")
        outputs: dict[str, Any] = {name: room / name for name in ("model", "metrics", "curves")}
        step = Train(dataset=dataset, store=store.uri, architecture="resnet18", image_size=SIDE, **outputs)
        tell_cost(step)
        tell_resumption(step)


def write(room: Path) -> Path:
    """A tree of JPEG files."""
    write_files(room / "tree", IMAGES)
    return room / "tree"


# The cost


class Counted(Checkpoints):
    """Counts the checkpoints, and how long the training stood still for them."""

    count, blocking = 0, 0.0

    def save(self, batches: int, state: State) -> None:
        start = time.perf_counter()
        super().save(batches, state)
        self.count, self.blocking = self.count + 1, self.blocking + time.perf_counter() - start


def tell_cost(step: Train) -> None:
    """Prints what a checkpoint costs, and the part of the throughput that this is."""
    manifest, shape = read_manifest(step.dataset), (SIDE, SIDE, 3)
    store = DirectoryStore(Path(step.store))
    batches = TrainingBatches(store, manifest, shape, BATCH_SIZE, 0, UNCHANGED)
    loop = make_loop(step.model.parent, make("resnet18", shape), Recipe(), 1e-3, batches)
    epoch = ours(loop, batches.images)

    def turn(minutes: float) -> tuple[float, Counted]:
        loop.checkpoints = checkpoints = Counted(store, "training/benchmark/", minutes)
        start = time.perf_counter()
        epoch()
        checkpoints.wait()
        return time.perf_counter() - start, checkpoints

    turn(0)  # warm
    costs = [cost(turn(float("inf"))[0], *turn(0)) for _ in range(TURNS)]
    blocking, slower = (statistics.median(each) for each in zip(*costs, strict=True))
    size = max(path.stat().st_size for path in (store.root / "training" / "benchmark").iterdir()) / 2**20
    pauses = f"stands still for {1000 * blocking:.0f} ms, {1000 * slower:.0f} ms slower in all"
    print(f"a checkpoint of resnet18 with AdamW, {size:.0f} MiB: {pauses}", flush=True)
    for seconds in PERIODS:
        print(f"one every {seconds:.0f} s costs {slower / seconds:.2%} of the throughput (goal: at most 2%)")


def cost(without: float, with_checkpoints: float, checkpoints: Counted) -> Cost:
    """What each of some checkpoints cost, by the seconds of a turn without and of one with them."""
    count = checkpoints.count
    return Cost(checkpoints.blocking / count, (with_checkpoints - without) / count)


# Going on


def tell_resumption(step: Train) -> None:
    """Prints how much later the first batch comes where a training has to find its place."""
    kill(first_batch(replace(step, checkpoint_minutes=0)), step)
    resumed, fresh = [], []
    for number in range(STARTS):
        fresh.append(seconds_to_first_batch(replace(step, seed=1 + number)))  # another training
        resumed.append(seconds_to_first_batch(step))
    later = statistics.median(after - before for before, after in zip(fresh, resumed, strict=True))
    print(
        f"first batch {statistics.median(fresh):.1f} s after the start, or {statistics.median(resumed):.1f} s ", end=""
    )
    print(f"from a checkpoint: {later:.1f} s to find its place (goal: at most 5)")


def seconds_to_first_batch(step: Train) -> float:
    """From the start of the process to its first batch."""
    start = time.perf_counter()
    process = first_batch(step)
    seconds = time.perf_counter() - start
    process.kill()
    process.communicate()
    return seconds


def first_batch(step: Train) -> "subprocess.Popen[str]":
    """A training that has just done its first batch."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command(step)],
        env=os.environ | {"RETRAIN_PROGRESS_SECONDS": "0"},  # a line a batch
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    said = []
    for line in process.stderr:
        if line.startswith(MARK):
            return process
        said.append(line)
    raise RuntimeError("".join(said))


def kill(process: "subprocess.Popen[str]", step: Train) -> None:
    """Kills a training in the middle of an epoch, when it has written a checkpoint."""
    assert process.stderr
    checkpoints = Path(step.store) / "training"
    for line in process.stderr:
        if line.startswith(MARK) and any(path.stat().st_size for path in checkpoints.glob("*/checkpoints/*")):
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()


if __name__ == "__main__":
    main()
