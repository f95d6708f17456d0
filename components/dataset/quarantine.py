"""What was turned away, and why: a small Parquet file a chunk."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from components.dataset import table
from components.dataset.manifest import File
from components.storage import Store

REASONS = {
    "empty": "has no bytes",
    "unreadable": "is not where its row of a table says",
    "undecodable": "is damaged, or no image",
    "truncated": "ends too early",
    "unsupported": "is of a kind that is not supported",
    "too many pixels": "has more pixels than max_pixels",
    "no label": "has no label",
    "unsafe name": "has a name that leads out of its source, is not UTF-8, or is too long",
    "changed": "changed while it was read",
    "two labels": "has more than one label",
    "leaked": "is in more than one split",
}
"""What each reason means, after "the image"."""

SCHEMA = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("thumbnail", pa.binary()),
    ]
)


@dataclass(frozen=True, slots=True)
class Entry:
    """An image, or what was to be one, that is no part of the dataset."""

    name: str
    reason: str
    """One of REASONS."""
    detail: str
    """A sentence for people, after the image's name."""
    thumbnail: bytes | None = None
    """A small JPEG or PNG file, where the image could be decoded."""


def write(store: Store, entries: Sequence[Entry]) -> File:
    """Writes entries to the store, in the order of their names."""
    ordered = sorted(entries, key=lambda entry: (entry.name, entry.reason, entry.detail))
    columns = {name: [getattr(entry, name) for entry in ordered] for name in SCHEMA.names}
    return table.write(store, "ingest/quarantine", [pa.table(columns, schema=SCHEMA)], SCHEMA, ["reason"])


def read(store: Store, file: File) -> list[Entry]:
    """The entries of a file. Raises StepError where it is gone or damaged."""
    return [Entry(**row) for row in table.read(store, file).to_pylist()]
