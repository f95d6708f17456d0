"""What the steps of the ingestion hand to each other through the store: the plan, its chunks, and what became of each.

    ingest/PLAN/plan.json            what to do, and how much of it there is
    ingest/PLAN/chunks/000017.jsonl  the pieces of the source that are one chunk: the unit of work
    ingest/PLAN/parts/000017.json    what became of that chunk; written last, when its shards and facts are there

The chunks depend on the source and the plan's parameters alone, never on the number of workers; the plan's digest is
that of all of them. So a step that is started again, or another run of the same plan, finds what is done already.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from components.dataset.manifest import File, Manifest, Shard, decode, decode_cuts, manifest_key
from components.dataset.splits import Cuts
from components.source.example import Piece
from components.step import StepError
from components.storage import NotFound, Store

T = TypeVar("T")

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a source becomes a dataset."""

    digest: str
    """SHA-256 over all that decides what is to be done, and over every chunk."""
    source: str
    """The URI."""
    kind: str
    """The layout, as `Source.kind`."""
    shape: tuple[int, int, int] | None
    """Of the images where they are raw pixels; None where they are image files."""
    chunks: int
    images: int | None
    """How many the source has, where that is known before it is read."""
    bytes: int
    """About how many are read."""
    cuts: Cuts
    parent: str | None
    """The digest of the dataset to append to."""
    max_pixels: int
    """Of an image; a larger one is not decoded."""
    passed_over: str = ""
    """What lies in the source and is no part of it, in words; the digest does not hang on it."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """What became of a chunk."""

    shards: tuple[Shard, ...]
    facts: File | None
    """Of every image that was written; None where there is none."""
    quarantine: File | None
    """The entries that were not; see quarantine.py."""
    rejected: dict[str, int]
    """How many were turned away, by reason; more than the entries where one stands for many."""
    known: int
    """Images that the parent has already; they were passed over."""
    sums: dict[str, list[int]]
    """Of the training split's images, by channel: `pixels` (a list of one), `sum` and `squares` of their values."""
    seconds: float


def plan_key(digest: str) -> str:
    """Where a plan lies."""
    return f"ingest/{digest}/plan.json"


def chunk_key(digest: str, number: int) -> str:
    """Where the pieces of a chunk lie."""
    return f"ingest/{digest}/chunks/{number:06d}.jsonl"


def part_key(digest: str, number: int) -> str:
    """Where it is said what became of a chunk."""
    return f"ingest/{digest}/parts/{number:06d}.json"


def encode(record: Plan | Part) -> bytes:
    """A plan or a part as JSON."""
    return json.dumps({"schema": SCHEMA} | dataclasses.asdict(record)).encode() + b"\n"


def read_plan(store: Store, digest: str) -> Plan:
    """Raises StepError where the plan is gone or damaged."""
    return _read(store, plan_key(digest), _plan)


def read_parent(store: Store, plan: Plan) -> Manifest | None:
    """The manifest of the dataset to append to. Raises StepError where it is gone."""
    if not plan.parent:
        return None
    key = manifest_key(plan.parent)
    try:
        return decode(store.read(key), key)
    except NotFound:
        raise StepError(f"the parent, {key}, is gone from store {store.uri}; ingest its source again") from None


def read_chunk(store: Store, digest: str, number: int) -> Iterator[Piece]:
    """The pieces of a chunk. Raises StepError where it is gone."""
    try:
        lines = store.read(chunk_key(digest, number)).splitlines()
    except NotFound:
        raise StepError(f"{chunk_key(digest, number)} is gone from store {store.uri}; run the pipeline again") from None
    return map(json.loads, lines)


def read_part(store: Store, digest: str, number: int) -> Part | None:
    """What became of a chunk; None where it is not done yet. Raises StepError where that is damaged."""
    if not store.exists(part_key(digest, number)):
        return None
    return _read(store, part_key(digest, number), _part)


def _plan(shape: list[int] | None, cuts: dict[str, Any], **fields: Any) -> Plan:
    return Plan(**fields, cuts=decode_cuts(cuts), shape=tuple(shape) if shape else None)  # type: ignore[arg-type]


def _part(shards: list[dict[str, Any]], **fields: Any) -> Part:
    files = {name: File(**fields[name]) if fields[name] else None for name in ("facts", "quarantine")}
    return Part(**fields | files, shards=tuple(Shard(**shard | {"excluded": ()}) for shard in shards))


def _read(store: Store, key: str, make: Callable[..., T]) -> T:
    try:
        fields = json.loads(store.read(key))
        if fields.pop("schema") == SCHEMA:
            return make(**fields)
    except NotFound:
        raise StepError(f"{key} is gone from store {store.uri}; run the pipeline again") from None
    except (ValueError, KeyError, AttributeError, TypeError):
        pass
    raise StepError(f"{key} in store {store.uri} is damaged or of another version of Retrain; remove it and run again")
