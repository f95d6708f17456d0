"""Two processes that train a network together on two cores, by torchrun, against one that has both.

After each batch they exchange the gradients through gloo: 45 MB of ResNet-18, 9 MB of MobileNet V2. Both train with
the same batches: those that two processes take by default, and half as large ones.

python -m benchmarks.processes
"""

import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.loading import show, tell
from benchmarks.networks import NETWORKS, write_files
from benchmarks.training import command
from components.dataset.manifest import read_manifest
from components.models.artifact import read_curve
from components.train.hardware import CPU_BATCH_SIZE
from components.train.interface import Train
from tests.ingestion import make_dataset

IMAGES = 1024
TURNS = 3
CORES = 2
BATCH_SIZES = (CORES * CPU_BATCH_SIZE, CPU_BATCH_SIZE)
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
        for (network, side), size in itertools.product(NETWORKS, BATCH_SIZES):
            print(f"\n{network} at {side}x{side}, batch {size}", flush=True)
            turns = [{name: run(room, dataset, network, side, size, name) for name in STARTERS} for _ in range(TURNS)]
            show(turns, STARTERS)
            tell(turns, TOGETHER, ALONE, 0.9)


def run(room: Path, dataset: Path, network: str, side: int, size: int, name: str) -> float:
    """Images a second in the second epoch of a training, its validation included."""
    threads, starter = STARTERS[name]
    outputs: dict[str, Any] = {output: room / output for output in ("model", "metrics", "curves")}
    step = Train(
        dataset=dataset,
        store=str(room / "store"),
        architecture=network,
        image_size=side,
        batch_size=size,
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
