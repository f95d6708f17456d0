"""The manifest: a small JSON file that says what a dataset holds, where its shards lie and where it came from."""

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.dataset.splits import Cuts
from components.step import UserError
from components.storage import aside

SPLITS = ("train", "validation", "test")
SCHEMA = 2


@dataclass(frozen=True)
class File:
    """A file of the dataset in the store."""

    key: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Shard(File):
    """A Parquet file of images of one split; see shards.py."""

    split: str
    rows: int
    excluded: tuple[int, ...] = ()
    """Rows, ascending, that are no part of the dataset: found twice, or under two labels, after they were written."""

    @property
    def images(self) -> int:
        """How many of its rows are part of the dataset."""
        return self.rows - len(self.excluded)


@dataclass(frozen=True)
class Manifest:
    """A dataset: labelled images in three splits."""

    classes: tuple[str, ...]
    """Names; a label is an index into them. Numbers are in the order of their values, others by their letters."""
    encoding: str
    """"raw": the shards hold the pixels, uint8 [H, W, C]; "encoded": they hold JPEG, PNG or WebP files."""
    shape: tuple[int | None, int | None, int]
    """Height, width, channels; None where the images differ in it. All are read with these channels: 1 or 3 (RGB)."""
    counts: dict[str, dict[str, int]]
    """Images by split and class name."""
    mean: tuple[float, ...]
    """Per channel, of the training split, with pixels scaled to [0, 1]."""
    std: tuple[float, ...]
    """Likewise."""
    split_digests: dict[str, str]
    """By split: SHA-256 over its images, in the order of their SHA-256: of each that, and that of its label's name."""
    digest: str
    """Identifies the dataset by content: `content_digest` of its classes and splits, whatever files hold them."""
    shards: tuple[Shard, ...]
    facts: tuple[File, ...]
    """Parquet files with what is known of each image; see facts.py."""
    cuts: Cuts
    """How the splits were cut; data that is appended is cut likewise."""
    parent: str | None
    """The digest of the dataset that this one was appended to."""
    provenance: dict[str, Any]
    """Where the images came from and when; two datasets that differ only here are the same."""

    def images(self, split: str) -> int:
        """How many images a split has."""
        return sum(self.counts[split].values())


def content_digest(
    classes: tuple[str, ...],
    encoding: str,
    shape: tuple[int | None, int | None, int],
    split_digests: dict[str, str],
) -> str:
    """SHA-256 of everything that makes a dataset what it is, whatever files hold it."""
    # The bytes of raw pixels alone do not say where a row of them ends; those of a file do.
    kind = {"encoding": encoding, "shape": shape if encoding == "raw" else None}
    content = {"schema": SCHEMA, **kind, "classes": classes, "splits": split_digests}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def manifest_key(digest: str) -> str:
    """Where the store keeps the manifest of the dataset with this digest."""
    return f"datasets/{digest}.json"


def encode(manifest: Manifest) -> bytes:
    """The manifest as JSON."""
    content = io.BytesIO()
    # Piece by piece: of all of them at once each takes ten times the room that it has in the end.
    for piece in json.JSONEncoder(indent=2, default=vars).iterencode({"schema": SCHEMA} | vars(manifest)):
        content.write(piece.encode())
    return content.getvalue() + b"\n"


def decode(content: bytes, name: str) -> Manifest:
    """Reads what `encode` wrote; raises UserError, which tells `name`, on anything else or on a newer schema."""
    try:
        fields = json.loads(content)
        schema = fields.pop("schema")
        if schema != SCHEMA:
            raise UserError(f"{name} has schema {schema!r} and this Retrain reads {SCHEMA}; use the one that wrote it")
        manifest = Manifest(
            **fields
            | {key: tuple(fields[key]) for key in ("classes", "shape", "mean", "std")}
            | {"shards": tuple(_shard(**shard) for shard in fields["shards"])}
            | {"facts": tuple(File(**file) for file in fields["facts"])}
            | {"cuts": decode_cuts(fields["cuts"])}
        )
        if manifest.digest != content_digest(
            manifest.classes, manifest.encoding, manifest.shape, manifest.split_digests
        ):
            raise ValueError("its digest does not fit its content")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{name} is not a dataset manifest ({error}); name the one that ingest wrote") from None
    return manifest


def _shard(excluded: list[int], **fields: Any) -> Shard:
    return Shard(**fields, excluded=tuple(excluded))


def decode_cuts(fields: dict[str, Any]) -> Cuts:
    """Reads the cuts as `dataclasses.asdict` and JSON leave them."""
    return Cuts(**fields | {"by_class": {name: tuple(cuts) for name, cuts in fields["by_class"].items()}})


def read_manifest(path: Path) -> Manifest:
    """Reads a manifest from a file; raises UserError when there is none or it is damaged."""
    try:
        return decode(path.read_bytes(), str(path))
    except OSError as error:
        raise UserError(f"dataset {str(path)!r} cannot be read: {error.strerror}") from None


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Writes a manifest to a file, whole or not at all."""
    with aside(path) as file:
        file.write_bytes(encode(manifest))
