"""Plan: source, chunks, cuts, and all of it into the store."""

import dataclasses
import hashlib
import json
import re
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from components.dataset import plan as records
from components.dataset.manifest import Manifest, decode
from components.dataset.splits import Cuts
from components.plan.cuts import Survey, cut_exactly
from components.plan.interface import Plan
from components.progress import Progress
from components.source import open_source
from components.source.ahead import ahead
from components.source.example import Piece, Source
from components.source.idx import by
from components.step import Metadata, UserError
from components.storage import Store, aside, open_store

CHUNK_BYTES = 64 * 2**20
"""Of the pieces of a chunk; a larger piece is a chunk of its own."""
CHUNK_PIECES = 20_000
"""Of a chunk, at most."""
SURVEY_BYTES = 2**30
"""A source of so many bytes is looked at before it is cut."""


def plan(step: Plan) -> Metadata:
    """Writes the plan of a source to the store, and says which workers are to do it."""
    start = time.monotonic()
    store = open_store(step.store)
    store.require_writable()
    parent = find_parent(store, step.parent) if step.parent else None
    source = open_source(step.source)
    if parent:
        check_fit(source, parent)
    with tempfile.TemporaryDirectory() as folder:
        spool = write_chunks(source.pieces(), Path(folder))
        if not spool.chunks:
            raise UserError(f"source {step.source!r} has no images")
        record = records.Plan(
            digest="",
            source=source.uri,
            kind=source.kind,
            shape=source.shape,
            chunks=spool.chunks,
            images=spool.images,
            bytes=spool.bytes,
            cuts=choose_cuts(step, source, spool, parent),
            parent=parent.digest if parent else None,
            max_pixels=step.max_pixels,
        )
        record = dataclasses.replace(record, digest=digest(record, spool))
        publish(store, record, spool)
    with aside(step.plan) as file:
        file.write_text(record.digest)
    with aside(step.workers) as file:
        file.write_text(json.dumps(list(range(min(step.ingest_workers, record.chunks)))))
    if source.passed_over:
        print(passed_over(source))
    print(f"{summary(record)}, planned in {time.monotonic() - start:.1f} s", flush=True)
    return {}


# The parent


def find_parent(store: Store, prefix: str) -> Manifest:
    """The dataset whose digest begins like this; raises UserError unless there is exactly one."""
    if not re.fullmatch("[0-9a-f]{1,64}", prefix):
        raise UserError(f"parent must be the digest of a dataset or its beginning, not {prefix!r}")
    keys = [key for key in store.keys(f"datasets/{prefix}") if re.fullmatch(r"datasets/[0-9a-f]{64}\.json", key)]
    if len(keys) != 1:
        found = f"{len(keys)} datasets begin with it; give more of its digest" if keys else "there is none"
        raise UserError(f"parent must be a dataset in {store.uri}, not {prefix!r}: {found}")
    return decode(store.read(keys[0]), f"{store.uri}/{keys[0]}")


def check_fit(source: Source, parent: Manifest) -> None:
    """Raises UserError unless the images of the source can stand beside those of the parent."""
    mine = f"raw pixels {by(source.shape)}" if source.shape else "image files"
    height, width, channels = parent.shape
    theirs = f"raw pixels {height}x{width}x{channels}" if parent.encoding == "raw" else "image files"
    if mine != theirs:
        raise UserError(
            f"parent {parent.digest[:12]} holds {theirs}, source {source.uri!r} {mine}; only the same can be appended"
        )


# Chunks


@dataclass(frozen=True)
class Spool:
    """The chunks of a source in files, until it is known under which digest the store will keep them."""

    folder: Path
    chunks: int
    images: int | None
    bytes: int
    sha256: str
    """Over the SHA-256 of all the chunks."""

    def path(self, number: int) -> Path:
        return self.folder / str(number)

    def pieces(self, number: int) -> list[Piece]:
        return [json.loads(line) for line in self.path(number).read_bytes().splitlines()]


def write_chunks(pieces: Iterable[Piece], folder: Path) -> Spool:
    """Cuts a source into chunks, in constant memory."""
    whole = hashlib.sha256()
    chunks = size = 0
    images: int | None = 0
    progress = Progress("list", None, "pieces")
    for chunk in cut_chunks(pieces):
        content = b"".join(json.dumps(piece).encode() + b"\n" for piece in chunk)
        (folder / str(chunks)).write_bytes(content)
        whole.update(hashlib.sha256(content).digest())
        counts = [piece.get("images", 1) for piece in chunk]
        images = None if images is None or None in counts else images + sum(counts)
        size += sum(piece["bytes"] for piece in chunk)
        chunks += 1
        progress.advance(len(chunk))
    return Spool(folder, chunks, images, size, whole.hexdigest())


def cut_chunks(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Pieces, one after another, that are read together."""
    chunk: list[Piece] = []
    size = 0
    for piece in pieces:
        if chunk and (size + piece["bytes"] > CHUNK_BYTES or len(chunk) == CHUNK_PIECES):
            yield chunk
            chunk, size = [], 0
        chunk.append(piece)
        size += piece["bytes"]
    if chunk:
        yield chunk


# Cuts


def choose_cuts(step: Plan, source: Source, spool: Spool, parent: Manifest | None) -> Cuts:
    """Those of the parent, if there is one; new classes are cut by the fractions, exactly where the source is small."""
    test = 0.0 if "test" in source.splits else step.test_fraction
    validation = 0.0 if "validation" in source.splits else step.validation_fraction
    cuts = Cuts(test, test + validation, {})
    if spool.bytes <= SURVEY_BYTES and (test or validation):
        survey = look_at(source, spool)
        known = set(parent.classes) if parent else set()
        cuts = cut_exactly(survey, survey.by_class.keys() - known, test, validation)
    if parent is None:
        return cuts
    return dataclasses.replace(parent.cuts, by_class=cuts.by_class | parent.cuts.by_class)


def look_at(source: Source, spool: Spool) -> Survey:
    """Reads all of the source once."""
    survey = Survey()
    progress = Progress("survey", spool.chunks, "chunks")
    for number in range(spool.chunks):
        survey.add(source.examples(spool.pieces(number)))
        progress.advance(1)
    return survey


# The store


def digest(record: records.Plan, spool: Spool) -> str:
    """Of the plan and every chunk of it."""
    return hashlib.sha256(records.encode(record) + spool.sha256.encode()).hexdigest()


def publish(store: Store, record: records.Plan, spool: Spool) -> None:
    """Brings the plan into the store. What is there already is left as it is."""
    there = set(store.keys(records.chunk_key(record.digest, 0).rpartition("/")[0] + "/"))
    keys = {number: records.chunk_key(record.digest, number) for number in range(record.chunks)}
    missing = [number for number, key in keys.items() if key not in there]
    progress = Progress("write the plan", len(missing), "chunks")
    for _ in ahead(lambda number: store.write(keys[number], spool.path(number)), missing, lambda _: 0):
        progress.advance(1)
    # Last, so that a plan which can be found is whole.
    store.write(records.plan_key(record.digest), records.encode(record))


def summary(record: records.Plan) -> str:
    """A plan in a line."""
    images = "images" if record.images is None else f"{record.images:,} images"
    chunks = f"{record.chunks:,} chunk{'s' * (record.chunks > 1)}"
    size = f"{record.bytes / 1e6:,.1f} MB"
    return f"{record.source}: {images} ({record.kind}), {size}, in {chunks}; plan {record.digest[:12]}"


def passed_over(source: Source) -> str:
    """What the source has that is no part of it, in a line."""
    counted = ", ".join(f"{count:,} {ending}" for ending, count in source.passed_over.most_common(5))
    return f"passed over {source.passed_over.total():,} files that are none: {counted}"
