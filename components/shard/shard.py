"""Shard: chunk after chunk, what the source holds becomes shards, facts and a quarantine."""

import hashlib
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from components.dataset import facts, images, quarantine
from components.dataset.images import BadImage
from components.dataset.manifest import SPLITS
from components.dataset.manifest import Shard as Written
from components.dataset.plan import Part, Plan, encode, part_key, read_chunk, read_parent, read_part, read_plan
from components.dataset.shards import write_shard
from components.dataset.splits import position
from components.progress import Figure, Progress
from components.shard.interface import Shard
from components.shard.known import Known
from components.source import open_source
from components.source.example import Example, Rejected
from components.step import Metadata
from components.storage import Store, open_store

BATCH_BYTES = 80 * 2**20
"""Of images that are in memory to be sorted and written together: a little more than those of a chunk, as a rule."""
BATCH_IMAGES = 100_000
"""Likewise."""
BLOCK_BYTES = 4 * 2**20
"""Of images that are checked together."""
BLOCK_IMAGES = 4096
"""Likewise."""
THUMBNAILS = 32
"""Of a chunk's quarantine, at most."""
QUARANTINE_BYTES = 16 * 2**20
"""Of a chunk's quarantine in memory, about; what comes after that is counted, but named no more."""
ENTRY_BYTES = 200
"""Of them for each entry, whatever its name."""


def shard(step: Shard) -> Metadata:
    """Does those chunks of this worker that are not done yet."""
    start = time.monotonic()
    store = open_store(step.store)
    store.require_writable()
    plan = read_plan(store, step.plan)
    mine = range(step.worker, plan.chunks, step.workers)
    todo = [number for number in mine if not done(store, plan, number)]
    if todo:
        work(store, plan, todo)
    seconds = time.monotonic() - start
    print(f"{len(todo)} chunks done in {seconds:.1f} s, {len(mine) - len(todo)} were done before", flush=True)
    return {}


def done(store: Store, plan: Plan, number: int) -> bool:
    """Whether a chunk's part is in the store, and every file that it names."""
    part = read_part(store, plan.digest, number)
    return part is not None and all(
        store.exists(file.key) for file in (*part.shards, part.facts, part.quarantine) if file
    )


def work(store: Store, plan: Plan, numbers: Sequence[int]) -> None:
    """Does these chunks."""
    source = open_source(plan.source, plan.kind)
    meter = Meter(plan, len(numbers))
    with tempfile.TemporaryDirectory() as folder:
        known = Known(Path(folder, "known"), store, read_parent(store, plan))
        for number in numbers:
            start = time.monotonic()
            chunk = Chunk(store, plan, known, Path(folder, "facts"))
            for block in blocks(source.examples(list(read_chunk(store, plan.digest, number)))):
                chunk.add(block)
                meter.advance(block)
            part = chunk.finish(start)
            # Last, so that a part which can be found is whole; two workers at once write the same.
            store.write(part_key(plan.digest, number), encode(part))
    meter.finish()


def blocks(found: Iterable[Example | Rejected]) -> Iterator[list[Example | Rejected]]:
    """What the source gives, some at a time."""
    block: list[Example | Rejected] = []
    size = 0
    for entry in found:
        block.append(entry)
        size += len(entry.content)
        if size >= BLOCK_BYTES or len(block) == BLOCK_IMAGES:
            yield block
            block, size = [], 0
    if block:
        yield block


class Meter:
    """Shows how far the chunks are: in images where it is known how many there are, or else in megabytes."""

    def __init__(self, plan: Plan, chunks: int) -> None:
        self.counts_images = plan.images is not None
        whole = plan.bytes // 10**6 if plan.images is None else plan.images
        self.total = max(1, whole * chunks // plan.chunks)
        self.progress = Progress("", self.total, "images" if self.counts_images else "MB", figures=self._figures)
        self.images = self.bytes = 0

    def advance(self, block: Sequence[Example | Rejected]) -> None:
        """Adds what was read; it is about as much as was expected."""
        self.images += len(block)
        self.bytes += sum(len(entry.content) for entry in block)
        self._show(min(self.images if self.counts_images else self.bytes // 10**6, self.total - 1))

    def finish(self) -> None:
        self._show(self.total)

    def _show(self, done: int) -> None:
        self.progress.advance(done - self.progress.done)

    def _figures(self) -> list[Figure]:
        return [] if self.counts_images else [Figure("", f"{self.images:,}", "images")]


class Row(NamedTuple):
    """An image that is to be written; rows are sorted by their first three fields."""

    sha256: bytes
    label: str
    name: str
    split: str
    group: str | None
    width: int
    height: int
    channels: int
    phash: int
    content: bytes


class Chunk:
    """A chunk at work: takes blocks of examples, writes shards and facts, and says at the end what became of all."""

    def __init__(self, store: Store, plan: Plan, known: Known, folder: Path) -> None:
        self.store, self.plan, self.parent = store, plan, known
        self.rows: list[Row] = []
        self.bytes = 0
        self.shards: list[Written] = []
        self.facts = facts.Writer(folder)
        self.entries: list[quarantine.Entry] = []
        self.entry_bytes = 0
        self.rejected = Counter[str]()
        self.thumbnails = 0
        self.known = 0
        self.sums = np.zeros((3, plan.shape[2] if plan.shape else 3), np.uint64)

    def add(self, block: Sequence[Example | Rejected]) -> None:
        """Checks a block of what the source gave."""
        examples = [entry for entry in block if isinstance(entry, Example)]
        for entry in block:
            if isinstance(entry, Rejected):
                self.reject(entry)
        hashes = [hashlib.sha256(example.content).digest() for example in examples]
        known = self.parent.among(hashes, [example.label for example in examples])
        self.known += int(known.sum())
        fresh = [(example, sha256) for example, sha256, old in zip(examples, hashes, known, strict=True) if not old]
        rows = self.raw(fresh, self.plan.shape) if self.plan.shape else self.encoded(fresh)
        self.rows += rows
        self.bytes += sum(len(row.content) for row in rows)
        if self.bytes >= BATCH_BYTES or len(self.rows) >= BATCH_IMAGES:
            self.flush()

    def raw(self, fresh: Sequence[tuple[Example, bytes]], shape: tuple[int, int, int]) -> list[Row]:
        """The rows of raw images, whose shape is all that could be wrong with them."""
        pixels = np.frombuffer(b"".join(example.content for example, _ in fresh), np.uint8).reshape(-1, *shape)
        phashes = images.phash(pixels).tolist()
        height, width, channels = shape
        rows = [
            self.row(example, sha256, width, height, channels, phash, example.content)
            for (example, sha256), phash in zip(fresh, phashes, strict=True)
        ]
        self.sums += images.sums(pixels[[row.split == "train" for row in rows]])
        return rows

    def encoded(self, fresh: Sequence[tuple[Example, bytes]]) -> list[Row]:
        """The rows of image files that can be decoded."""
        rows = []
        for example, sha256 in fresh:
            try:
                found = images.inspect(example.content, self.plan.max_pixels)
            except BadImage as bad:
                self.reject(Rejected(example.name, bad.reason, bad.detail, example.content))
                continue
            size = (found.width, found.height, found.channels)
            rows.append(row := self.row(example, sha256, *size, found.phash, found.content))
            if row.split == "train":
                self.sums += found.sums  # those of a grey image count in every channel
        return rows

    def row(
        self, example: Example, sha256: bytes, width: int, height: int, channels: int, phash: int, content: bytes
    ) -> Row:
        split = self.plan.cuts.split(example, position(example, sha256))
        return Row(sha256, example.label, example.name, split, example.group, width, height, channels, phash, content)

    def reject(self, entry: Rejected) -> None:
        """Puts an entry into quarantine."""
        self.rejected[entry.reason] += entry.entries
        self.entry_bytes += ENTRY_BYTES + len(entry.name) + len(entry.detail)
        if self.entry_bytes > QUARANTINE_BYTES:
            return
        thumbnail = None
        if entry.content and self.thumbnails < THUMBNAILS:
            thumbnail = images.thumbnail(entry.content, self.plan.max_pixels)
            self.thumbnails += thumbnail is not None
        self.entries.append(quarantine.Entry(entry.name, entry.reason, entry.detail, thumbnail))

    def flush(self) -> None:
        """Writes what is in memory."""
        self.rows.sort(key=lambda row: row[:3])
        tables = []
        for split in SPLITS:
            rows = [row for row in self.rows if row.split == split]
            if rows:
                contents, labels = [row.content for row in rows], [row.label for row in rows]
                written = write_shard(self.store, split, contents, labels, self.plan.shape)
                if written in self.shards:  # nothing but copies of one image; the facts tell shards apart by their hash
                    copy = len(self.shards)
                    written = write_shard(self.store, split, contents, labels, self.plan.shape, copy)
                self.shards.append(written)
                tables.append(describe(rows, written))
        if tables:
            self.facts.add(pa.concat_tables(tables))
        self.rows, self.bytes = [], 0

    def finish(self, start: float) -> Part:
        """Writes the rest; `start` is when the chunk was begun."""
        self.flush()
        names = ("pixels", "sum", "squares")
        sums = dict(zip(names, self.sums.tolist(), strict=True))
        return Part(
            shards=tuple(self.shards),
            facts=self.facts.close(self.store),
            quarantine=quarantine.write(self.store, self.entries) if self.entries else None,
            rejected=dict(sorted(self.rejected.items())),
            known=self.known,
            sums=sums | {"pixels": sums["pixels"][:1]},
            seconds=round(time.monotonic() - start, 3),
        )


def describe(rows: Sequence[Row], written: Written) -> pa.Table:
    """The facts of the rows of a shard."""
    columns: dict[str, Sequence[object]] = dict(zip(Row._fields, zip(*rows, strict=True), strict=True))
    columns["bytes"] = [len(row.content) for row in rows]
    columns["shard"] = [written.sha256] * len(rows)
    columns["row"] = range(len(rows))
    return pa.table([columns[name] for name in facts.SCHEMA.names], schema=facts.SCHEMA)
