"""What is known of every image without looking at it: a Parquet file a chunk, sorted by the SHA-256 of the images.

So files are merged, and searched, in little memory.
"""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as compute
from numpy.typing import NDArray

from components.dataset import table
from components.dataset.manifest import File
from components.storage import Store

SCHEMA = pa.schema(
    [
        pa.field("sha256", pa.binary(32), nullable=False),  # of the source's bytes; of raw data, of the pixels
        pa.field("label", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("group", pa.string()),
        pa.field("name", pa.string(), nullable=False),  # in the source
        pa.field("width", pa.int32(), nullable=False),  # of the image when it stands upright
        pa.field("height", pa.int32(), nullable=False),
        pa.field("channels", pa.int8(), nullable=False),  # 1 or 3
        pa.field("bytes", pa.int64(), nullable=False),  # of the image in its shard
        pa.field("phash", pa.uint64(), nullable=False),  # see images.phash
        pa.field("shard", pa.string(), nullable=False),  # its SHA-256
        pa.field("row", pa.int32(), nullable=False),  # in the shard
    ]
)
REPEATING = ["label", "split", "group", "shard"]
"""Columns that are read as dictionaries, since their values are few."""

GROUP_ROWS = 65_536
"""Of a row group, at most."""
BUCKETS = 256
"""By the first byte of the hash."""


class Writer:
    """Writes the facts of any number of images in little memory: until the end, sorted runs lie in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.runs: list[Path] = []

    def add(self, facts: pa.Table) -> None:
        """Adds facts in SCHEMA, in any order."""
        path = self.folder / str(len(self.runs))
        ordered = facts.take(_order(facts)).combine_chunks()
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
            writer.write_table(ordered)
        self.runs.append(path)

    def close(self, store: Store) -> File | None:
        """Writes all of them to the store, and removes the folder; None where there are none."""
        runs = [pa.ipc.open_file(pa.memory_map(str(path))).read_all() for path in self.runs]
        file = write(store, _merged(runs)) if runs else None
        shutil.rmtree(self.folder)
        return file


def write(store: Store, groups: Iterable[pa.Table]) -> File:
    """Writes facts that are sorted, the row groups one after another."""
    pieces = (group.slice(start, GROUP_ROWS) for group in groups for start in range(0, len(group), GROUP_ROWS))
    return table.write(store, "datasets/facts", pieces, SCHEMA, REPEATING)


def read(store: Store, file: File, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The row groups of a file, in the order of the hashes; `REPEATING` columns are dictionaries.

    Raises StepError where the file is gone or damaged.
    """
    opened = table.open_file(store, file, REPEATING)
    for number in range(opened.num_row_groups):
        yield opened.read_row_group(number, columns=columns and list(columns))


def hashes(facts: pa.Table) -> NDArray[np.uint8]:
    """The column `sha256`, as uint8 [N, 32]."""
    column = facts["sha256"].combine_chunks()
    chunk = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    return np.frombuffer(chunk.buffers()[1], np.uint8, 32 * len(chunk), 32 * chunk.offset).reshape(-1, 32)


def _prefixes(facts: pa.Table) -> NDArray[np.uint64]:
    """The first eight bytes of each `sha256` as a big-endian number: they are in the order of the hashes."""
    return np.ascontiguousarray(hashes(facts)[:, :8]).view(">u8").ravel().astype(np.uint64)


def _order(facts: pa.Table) -> pa.Array:
    """By hash; where that is the same, by all that tells two rows apart, so that the file is the same everywhere."""
    return compute.sort_indices(facts, [(name, "ascending") for name in ("sha256", "label", "split", "name", "row")])


def _merged(runs: Sequence[pa.Table]) -> Iterator[pa.Table]:
    """Sorted runs as one, bucket by bucket."""
    if len(runs) == 1:
        yield runs[0]
        return
    limits = np.arange(BUCKETS, dtype=np.uint64) << np.uint64(56)
    cuts = [[*np.searchsorted(_prefixes(run), limits).tolist(), len(run)] for run in runs]
    for bucket in range(BUCKETS):
        parts = [run.slice(cut[bucket], cut[bucket + 1] - cut[bucket]) for run, cut in zip(runs, cuts, strict=True)]
        together = pa.concat_tables(parts)
        yield together.take(_order(together))
