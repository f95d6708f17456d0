"""Plan: source, chunks, cuts, and all of it into the store."""

import dataclasses
import hashlib
import json
import math
import random
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from components.dataset import plan as records
from components.dataset.catalogue import find
from components.dataset.manifest import Manifest, decode_cuts
from components.dataset.splits import Cuts
from components.plan.cuts import Survey, cut_exactly
from components.plan.interface import Plan
from components.progress import Progress
from components.source import open_source
from components.source.ahead import ahead
from components.source.example import Piece, Source
from components.source.idx import by
from components.step import Metadata, UserError
from components.storage import LINK, NotFound, Store, aside, open_store

CHUNK_BYTES = 64 * 2**20
"""Of the pieces of a chunk, about; where they are cut at most, and a larger piece is a chunk of its own."""
CHUNK_PIECES = 20_000
"""Of a chunk, at most."""
LINES = 2**14
"""Pieces that are in memory to be written to their chunks."""
SURVEY_BYTES = 2**30
"""A source of so many bytes is looked at before it is cut."""
SCHEMA = 1
"""Of the cuts that the store keeps; another one has them made anew."""


def plan(step: Plan) -> Metadata:
    """Writes the plan of a source to the store, and says which workers are to do it."""
    start = time.monotonic()
    store = open_store(step.store)
    store.require_writable()
    parent = find(store, step.parent) if step.parent else None
    source = open_source(step.source)
    if parent:
        check_fit(source, parent)
    with tempfile.TemporaryDirectory() as folder:
        spool = write_chunks(source.pieces(), Path(folder), source.by_file)
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
            cuts=choose_cuts(step, store, source, spool, parent),
            parent=parent.digest if parent else None,
            max_pixels=step.max_pixels,
        )
        record = dataclasses.replace(record, digest=digest(record, spool), passed_over=passed_over(source))
        publish(store, record, spool)
    with aside(step.plan) as file:
        file.write_text(record.digest)
    with aside(step.workers) as file:
        file.write_text(json.dumps(list(range(min(step.ingest_workers, record.chunks)))))
    if record.passed_over:
        print(f"passed over {record.passed_over}")
    print(f"{summary(record)}, planned in {time.monotonic() - start:.1f} s", flush=True)
    return {}


# The parent


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
class Listing:
    """The pieces of a source in a file, one a line as JSON, and what they are together."""

    path: Path
    pieces: int
    images: int | None
    bytes: int


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


def write_chunks(pieces: Iterable[Piece], folder: Path, dealt: bool) -> Spool:
    """Divides a source into chunks, in constant memory: deals the pieces out to them, or cuts them where they lie."""
    listing = write_listing(pieces, folder / "listing")
    with listing.path.open("rb") as lines:
        chunks = distribute(deal(lines, needed(listing)) if dealt else cut(lines), folder)
    whole = hashlib.sha256()
    for number in range(chunks):
        with (folder / str(number)).open("rb") as chunk:
            whole.update(hashlib.file_digest(chunk, "sha256").digest())
    return Spool(folder, chunks, listing.images, listing.bytes, whole.hexdigest())


def write_listing(pieces: Iterable[Piece], path: Path) -> Listing:
    """Lists a source."""
    count = size = 0
    images: int | None = 0
    progress = Progress("list", None, "pieces")
    with path.open("wb") as file:
        for piece in pieces:
            file.write(json.dumps(piece).encode() + b"\n")
            its = piece.get("images", 1)
            images = None if images is None or its is None else images + its
            size += piece["bytes"]
            count += 1
            progress.advance(1)
    return Listing(path, count, images, size)


def needed(listing: Listing) -> int:
    """How many chunks there are to be, about equally large."""
    return max(math.ceil(listing.bytes / CHUNK_BYTES), math.ceil(listing.pieces / CHUNK_PIECES))


def deal(lines: Iterable[bytes], chunks: int) -> Iterator[tuple[int, bytes]]:
    """The pieces with the numbers of their chunks: of as many in a row as there are chunks, every chunk gets one.

    So a chunk, and a shard, has its share of every class, however the source is ordered. Mostly that is by class, and
    training, which mixes the images of some shards at a time, would see few classes at once. It costs nothing: each
    image is a file, or a request, of its own. Round after round begins with another chunk, by lot, so that no pattern
    in the source comes through. A chunk keeps the source's order. A source that grew is dealt out anew, which writes
    all of its shards anew; what is appended to a parent writes its own alone.
    """
    lots = random.Random(0)
    first = 0
    for place, line in enumerate(lines):
        if place % chunks == 0:
            first = int(lots.random() * chunks)
        yield (first + place) % chunks, line


def cut(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """The same for parts of files, and archives: those that lie one after another are read together.

    To deal them out would have every worker open nearly every file.
    """
    number = count = size = 0
    for line in lines:
        its = json.loads(line)["bytes"]
        if count and (size + its > CHUNK_BYTES or count == CHUNK_PIECES):
            number, count, size = number + 1, 0, 0
        count, size = count + 1, size + its
        yield number, line


def distribute(numbered: Iterable[tuple[int, bytes]], folder: Path) -> int:
    """Appends every piece to the file of its chunk; gives the number of chunks."""
    numbered = iter(numbered)
    count = 0
    while block := list(islice(numbered, LINES)):
        chunks: dict[int, list[bytes]] = {}
        for number, line in block:
            chunks.setdefault(number, []).append(line)
        for number, its in chunks.items():
            with (folder / str(number)).open("ab") as file:
                file.writelines(its)
        count = max(count, max(chunks) + 1)
    return count


# Cuts


def choose_cuts(step: Plan, store: Store, source: Source, spool: Spool, parent: Manifest | None) -> Cuts:
    """Those of the parent, if there is one; new classes are cut by the fractions, exactly where the source is small."""
    test = 0.0 if "test" in source.splits else step.test_fraction
    validation = 0.0 if "validation" in source.splits else step.validation_fraction
    cuts = Cuts(test, test + validation, {})
    if spool.bytes <= SURVEY_BYTES and (test or validation):
        cuts = cut_small(store, source, spool, set(parent.classes) if parent else set(), test, validation)
    if parent is None:
        return cuts
    return dataclasses.replace(parent.cuts, by_class=cuts.by_class | parent.cuts.by_class)


def cut_small(store: Store, source: Source, spool: Spool, known: set[str], test: float, validation: float) -> Cuts:
    """Cuts every class that is not known exactly; the store keeps the cuts, so that a source is read but once."""
    asked = [SCHEMA, source.uri, source.kind, spool.sha256, sorted(known), test, validation]
    key = f"ingest/cuts/{hashlib.sha256(json.dumps(asked).encode()).hexdigest()}.json"
    try:
        return decode_cuts(json.loads(store.read(key)))
    except (NotFound, ValueError, KeyError, TypeError, AttributeError):  # damaged is as good as absent
        survey = look_at(source, spool)
    cuts = cut_exactly(survey, survey.by_class.keys() - known, test, validation)
    store.write(key, json.dumps(dataclasses.asdict(cuts)).encode())
    return cuts


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
    """What the source has that is no part of it, links first, and then what there is most of; empty for nothing."""
    found = sorted(source.passed_over.items(), key=lambda each: (each[0] != LINK, -each[1]))
    counted = ", ".join(f"{count:,} {what}" for what, count in found[:5])
    total = source.passed_over.total()
    return f"{total:,} file{'s' * (total > 1)}: {counted}" if found else ""
