"""Facts of images that nobody ever saw: what the workers leave behind, for as many images as a test wants."""

import hashlib
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from components.dataset import facts
from components.dataset.manifest import SPLITS, Shard
from components.dataset.plan import Part, Plan, encode, part_key, plan_key
from components.dataset.splits import Cuts
from components.storage import DirectoryStore

PLAN = "ab" * 32


def write_plan(store: DirectoryStore, images: int, images_per_chunk: int) -> str:
    """A plan of which every chunk is done; returns its digest. Its shards are there, but hold nothing."""
    chunks = -(-images // images_per_chunk)
    for number in range(chunks):
        write_part(store, number, min(images_per_chunk, images - number * images_per_chunk))
    plan = Plan(
        digest=PLAN,
        source="synthetic",
        kind="tree",
        shape=None,
        chunks=chunks,
        images=images,
        bytes=2000 * images,
        cuts=Cuts(0.1, 0.2, {}),
        parent=None,
        max_pixels=10**6,
    )
    store.write(plan_key(PLAN), encode(plan))
    return PLAN


def write_part(store: DirectoryStore, number: int, images: int) -> None:
    """A chunk of images whose hashes are random."""
    random = np.random.default_rng(number)
    words = random.integers(0, 2**63, (images, 4), np.uint64)
    splits = np.searchsorted([0.8, 0.9], random.random(images))
    rows = np.zeros(images, np.int32)
    shards = []
    for index, split in enumerate(SPLITS):
        of_split = splits == index
        rows[of_split] = np.arange(of_split.sum())
        content = f"{number} {split}".encode()
        sha256 = hashlib.sha256(content).hexdigest()
        shards.append(Shard(f"datasets/shards/{sha256}.parquet", sha256, len(content), split, int(of_split.sum())))
        store.write(shards[-1].key, content)
    columns = {
        "sha256": pa.array([row.tobytes() for row in words], pa.binary(32)),
        "label": [f"class {label}" for label in random.integers(0, 100, images)],
        "split": [SPLITS[split] for split in splits],
        "group": pa.nulls(images, pa.string()),
        "name": [f"class/image {number} {row}.jpg" for row in range(images)],
        "width": np.full(images, 256, np.int32),
        "height": np.full(images, 256, np.int32),
        "channels": np.full(images, 3, np.int8),
        "bytes": np.full(images, 2000, np.int64),
        "phash": random.integers(0, 2**63, images, np.uint64),
        "shard": [shards[split].sha256 for split in splits],
        "row": rows,
    }
    with tempfile.TemporaryDirectory() as folder:
        writer = facts.Writer(Path(folder, "facts"))
        writer.add(pa.table([columns[name] for name in facts.SCHEMA.names], schema=facts.SCHEMA))
        file = writer.close(store)
    part = Part(
        shards=tuple(shards),
        facts=file,
        quarantine=None,
        rejected={},
        known=0,
        sums={"pixels": [1000], "sum": [9999] * 3, "squares": [999_999] * 3},
        seconds=1.0,
    )
    store.write(part_key(PLAN, number), encode(part))


COMMIT = """
import sys
from pathlib import Path
from tests.components.ingest.trees import commit
from components.storage import DirectoryStore
from tests.memory import peak
commit(sys.argv[1], DirectoryStore(Path(sys.argv[2])), Path(sys.argv[3]))
print(peak() // 1024)
"""
"""Commits a plan and says at the end how many MiB that took."""
