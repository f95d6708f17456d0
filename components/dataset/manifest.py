"""The manifest: a small JSON file that says what a dataset holds, where its shards lie and where it came from."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.step import UserError
from components.storage import aside

SPLITS = ("train", "validation", "test")
SCHEMA = 1
DTYPE = "uint8"


@dataclass(frozen=True)
class Shard:
    """One file of images in the store."""

    key: str
    sha256: str
    """Of the file."""
    split: str
    images: int
    bytes: int
    """Of the file."""


@dataclass(frozen=True)
class Manifest:
    """A dataset: uint8 images of one shape, each with the number of its class, in three splits."""

    classes: tuple[str, ...]
    """Names; a label is an index into them."""
    shape: tuple[int, int, int]
    """Height, width, channels."""
    counts: dict[str, dict[str, int]]
    """Images by split and class name."""
    mean: tuple[float, ...]
    """Per channel, of the training split, with pixels scaled to [0, 1]."""
    std: tuple[float, ...]
    """Likewise."""
    split_digests: dict[str, str]
    """By split: SHA-256 over its images' SHA-256 and labels in canonical order (see shards.py)."""
    digest: str
    """Identifies the dataset by content: `content_digest` of its classes, shape and splits."""
    shards: tuple[Shard, ...]
    provenance: dict[str, Any]
    """Where the images came from and when; two datasets that differ only here are the same."""

    def images(self, split: str) -> int:
        """How many images a split has."""
        return sum(self.counts[split].values())


def content_digest(classes: tuple[str, ...], shape: tuple[int, int, int], split_digests: dict[str, str]) -> str:
    """SHA-256 of everything that makes a dataset what it is, whatever files hold it."""
    content = {"schema": SCHEMA, "dtype": DTYPE, "classes": classes, "shape": shape, "splits": split_digests}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def manifest_key(digest: str) -> str:
    """Where the store keeps the manifest of the dataset with this digest."""
    return f"datasets/{digest}.json"


def encode(manifest: Manifest) -> bytes:
    """The manifest as JSON."""
    return json.dumps({"schema": SCHEMA, "dtype": DTYPE} | dataclasses.asdict(manifest), indent=2).encode() + b"\n"


def decode(content: bytes, name: str) -> Manifest:
    """Reads what `encode` wrote; raises UserError, which tells `name`, on anything else or on a newer schema."""
    try:
        fields = json.loads(content)
        schema = fields.pop("schema")
        if schema != SCHEMA:
            raise UserError(f"{name} has schema {schema!r} and this Retrain reads {SCHEMA}; use the one that wrote it")
        fields.pop("dtype")
        manifest = Manifest(
            **fields
            | {key: tuple(fields[key]) for key in ("classes", "shape", "mean", "std")}
            | {"shards": tuple(Shard(**shard) for shard in fields["shards"])}
        )
        if manifest.digest != content_digest(manifest.classes, manifest.shape, manifest.split_digests):
            raise ValueError("its digest does not fit its content")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{name} is not a dataset manifest ({error}); make one with components.ingest") from None
    return manifest


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
