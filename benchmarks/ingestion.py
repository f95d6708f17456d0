"""Ingestion, from a tree of small JPEGs to a data set: how fast, whether the time is linear and the memory flat.

Beside it, what a user would write: a loop over the files that verifies each with Pillow and puts it into a WebDataset
tar. It knows no splits, finds no duplicates, and stops where it is interrupted. Every contestant is a process of its
own; what it needs to start, measured with a hundred images, is not counted.

Then the plan alone, of as many keys in an S3 bucket that does nothing but list them.

    python -m benchmarks.ingestion [IMAGES ...]
"""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg

from tests.servers.listing import Bucket

FEW = 100
"""Images, of which hardly anything but the start is felt."""
SIZES = (10_000, 100_000, 1_000_000)
"""Images, and keys; the million takes a quarter of an hour."""
FEW_KEYS = 5_000
"""Of which nobody looks at the objects, but which are soon listed."""
TURNS = 3
"""Of the smallest size; larger ones have their own scale of time, and one turn."""
CLASSES = 10
SIDE = 64
PICTURES = 500
"""That differ; the others differ from one of these in a comment."""

PEAK = """
import re, runpy, sys, time
from pathlib import Path
try:
    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
finally:
    peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]
    print(time.process_time(), int(peak) / 1024)
"""
"""Runs a module and says how long the processor worked for it, in seconds, and what memory it needed at most, in MiB.

getrusage would say what its parent needed, if that is more.
"""


class Cost(NamedTuple):
    seconds: float
    """Of the processor, so that whatever else the machine does is not counted."""
    mebibytes: float


def main() -> None:
    sizes = sorted(map(int, sys.argv[1:])) or SIZES
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        trees = {count: write_tree(room / f"tree {count}", count) for count in (FEW, sizes[0])}
        turns = [
            {
                name: [contestant(trees[count], room) for count in (FEW, sizes[0])]
                for name, contestant in CONTESTANTS.items()
            }
            for _ in range(TURNS)
        ]
        for name in CONTESTANTS:
            speeds = [speed(sizes[0], *turn[name]) for turn in turns]
            print(f"{name:<42} {statistics.median(speeds):8,.0f} images/s a core", flush=True)
        ratios = [speed(sizes[0], *turn[OURS]) / speed(sizes[0], *turn[LOOP]) for turn in turns]
        print(f"{statistics.median(ratios):.2f} times {LOOP!r}: {OURS!r}")
        scale(trees[FEW], sizes, room)
        scale_listing([count for count in sizes if count > FEW_KEYS], room)


def scale(few_images: Path, sizes: Sequence[int], room: Path) -> None:
    """Prints what the sizes cost, read from the disk: larger ones would not stay in memory."""
    few = ingest(few_images, room)
    speeds = []
    for count in sizes:
        with tempfile.TemporaryDirectory(dir=room) as folder:
            steps = ingest_steps(forget(write_tree(Path(folder, "tree"), count)), room)
        cost = total(steps)
        speeds.append(speed(count, few, cost))
        each = ", ".join(f"{step} {cost.seconds:.1f} s, {cost.mebibytes:.0f} MiB" for step, cost in steps.items())
        print(f"{count:9,} images: {speeds[-1]:7,.0f} images/s a core ({each})", flush=True)
    print(spread(speeds))


def scale_listing(sizes: Sequence[int], room: Path) -> None:
    """Prints what it costs to plan so many keys."""
    few = plan_bucket(FEW_KEYS, room)
    speeds = []
    for count in sizes:
        cost = plan_bucket(count, room)
        speeds.append((count - FEW_KEYS) / (cost.seconds - few.seconds))
        print(f"{count:9,} keys in S3: {speeds[-1]:7,.0f} keys/s a core, {cost.mebibytes:.0f} MiB", flush=True)
    print(spread(speeds))


def plan_bucket(count: int, room: Path) -> Cost:
    """What a bucket of so many keys costs the plan; the server is another process, this one."""
    with Bucket(count) as bucket, tempfile.TemporaryDirectory(dir=room) as folder:
        os.environ.update(bucket.environment)
        outputs = [f"--{name}={folder}/{name}" for name in ("store", "plan", "workers")]
        return run("components.plan", "--source=s3://images", *outputs)


def spread(speeds: Sequence[float]) -> str:
    """How far from linear that is."""
    return f"the slowest is {max(speeds) / min(speeds) - 1:.0%} slower than the fastest (goal: at most 15%)"


def speed(count: int, few: Cost, many: Cost) -> float:
    """Images/s without the start."""
    return (count - FEW) / (many.seconds - few.seconds)


def write_tree(root: Path, count: int) -> Path:
    """A tree of small JPEGs, none the same."""
    random = np.random.default_rng(0)
    fields = random.integers(0, 256, (PICTURES, 8, 8, 3))
    pictures = np.kron(fields, np.ones((1, SIDE // 8, SIDE // 8, 1))) + random.normal(0, 8, (PICTURES, SIDE, SIDE, 3))
    files = [bytes(simplejpeg.encode_jpeg(one, 85)) for one in pictures.clip(0, 255).astype(np.uint8)]
    for number in range(CLASSES):
        (root / f"class {number}").mkdir(parents=True)
    for number in range(count):
        file = files[number % PICTURES]
        comment = b"\xff\xfe\0\6" + number.to_bytes(4, "big")
        (root / f"class {number % CLASSES}" / f"{number:07d}.jpg").write_bytes(file[:2] + comment + file[2:])
    return root


def forget(tree: Path) -> Path:
    """Has the machine drop what it has of the files in memory."""
    os.sync()
    for path in tree.glob("*/*"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return tree


# Contestants: each takes a tree and an empty place


def ingest(tree: Path, room: Path) -> Cost:
    """The three steps, with one worker."""
    return total(ingest_steps(tree, room))


def ingest_steps(tree: Path, room: Path) -> dict[str, Cost]:
    with tempfile.TemporaryDirectory(dir=room) as folder:
        store = f"--store={folder}/store"
        outputs = [f"--{name}={folder}/{name}" for name in ("dataset", "report", "decision")]
        steps = {
            "plan": run(
                "components.plan", f"--source={tree}", store, f"--plan={folder}/plan", f"--workers={folder}/workers"
            )
        }
        plan = f"--plan={Path(folder, 'plan').read_text()}"
        steps["shard"] = run("components.shard", store, plan, "--worker=0", "--workers=1")
        steps["ingest"] = run("components.ingest", store, plan, "--limits=near_duplicates=1", *outputs)
        return steps


def loop(tree: Path, room: Path) -> Cost:
    """A plain loop into a tar."""
    with tempfile.TemporaryDirectory(dir=room) as folder:
        return run("benchmarks.ingestion", "loop", str(tree), folder)


def total(steps: dict[str, Cost]) -> Cost:
    """All the seconds, and the most memory."""
    return Cost(sum(cost.seconds for cost in steps.values()), max(cost.mebibytes for cost in steps.values()))


def run(module: str, *arguments: str) -> Cost:
    """What a module costs as a process."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, module, *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return Cost(*map(float, done.stdout.splitlines()[-1].split()))


OURS = "plan + shard + ingest"
LOOP = "loop: Pillow verifies, tarfile writes"
CONTESTANTS: dict[str, Callable[[Path, Path], Cost]] = {OURS: ingest, LOOP: loop}


def write_tar(tree: Path, folder: Path) -> None:
    """What a user would write."""
    import tarfile

    from PIL import Image

    with tarfile.open(folder / "000000.tar", "w") as archive:
        for path in sorted(tree.glob("*/*")):
            try:
                with Image.open(path) as image:
                    image.load()
            except OSError:
                continue
            archive.add(path, path.relative_to(tree))


if __name__ == "__main__":
    if sys.argv[1:2] == ["loop"]:
        write_tar(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
