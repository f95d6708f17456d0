"""Two processes that train ResNet-18 together on two cores, by torchrun, against one that has both.

python -m benchmarks.processes
"""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.networks import write_files
from benchmarks.training import command
from components.dataset.manifest import read_manifest
from components.models.artifact import read_curve
from components.train.interface import Train
from tests.ingestion import make_dataset

IMAGES = 768
TURNS = 3
CORES = 2
ALONE = f"1 process, {CORES} threads"
TOGETHER = f"{CORES} processes, 1 thread each"
STARTERS = {
    ALONE: (CORES, ("-m",)),
    # --: or torchrun takes --start for a beginning of --start-method.
    TOGETHER: (1, ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={CORES}", "-m", "--")),
}
"""Threads, and how Python is called."""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, few_cores():
        room = Path(folder)
        write_files(room / "tree", IMAGES)
        dataset = make_dataset(room / "tree", str(room / "store"), room, limits="near_duplicates=1")
        turns = [{name: run(room, dataset, name) for name in STARTERS} for _ in range(TURNS)]
    for name in STARTERS:
        print(f"{name:<38} {statistics.median(turn[name] for turn in turns):8,.0f} images/s")
    ratio = statistics.median(turn[TOGETHER] / turn[ALONE] for turn in turns)
    print(f"{ratio:.2f} times {ALONE!r}: {TOGETHER!r} (goal: at least 0.9)")


def run(room: Path, dataset: Path, name: str) -> float:
    """Images a second in the second epoch of a training, its validation included."""
    threads, starter = STARTERS[name]
    outputs: dict[str, Any] = {output: room / output for output in ("model", "metrics", "curves")}
    step = Train(
        dataset=dataset,
        store=str(room / "store"),
        architecture="resnet18",
        image_size=64,
        batch_size=64,
        epochs=2,
        **outputs,
    )
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    subprocess.run([sys.executable, *starter, *command(step)], env=environment, check=True, capture_output=True)
    return read_manifest(dataset).images("train") / float(read_curve(step.model)[-1]["seconds"])


@contextmanager
def few_cores() -> Iterator[None]:
    """Leaves this process, and those that it starts, so many cores of those that it has."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:CORES])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


if __name__ == "__main__":
    main()
