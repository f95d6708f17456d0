"""Ingest: source, splits, shards, manifest."""

import dataclasses
import math
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from components.code import code_digest
from components.dataset.manifest import (
    SPLITS,
    Manifest,
    Shard,
    content_digest,
    decode,
    encode,
    manifest_key,
    write_manifest,
)
from components.dataset.shards import split_digest, write_split
from components.ingest import mnist
from components.ingest.decision import decide
from components.ingest.idx import Source, read_folder
from components.ingest.interface import Ingest
from components.ingest.splits import Split, cut, name_classes
from components.registry import champion
from components.step import Metadata, UserError
from components.storage import NotFound, Store, aside, open_store


def ingest(step: Ingest) -> Metadata:
    """Makes a dataset of the source in the store, unless the store has it already, and writes its manifest."""
    start = time.monotonic()
    store = open_store(step.store)
    store.require_writable()
    source = read_source(step.source)
    splits = cut(source, step.validation_fraction)
    draft = describe(splits)

    manifest = find(store, draft.digest)
    reused = manifest is not None
    if manifest is None:
        provenance = {
            "source": step.source,
            "files": source.files,
            "validation_fraction": step.validation_fraction,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - start, 3),
        }
        manifest = dataclasses.replace(draft, shards=write_shards(store, splits, draft.classes), provenance=provenance)
        # Last, so that a dataset which can be found is whole; two at once write the same dataset.
        store.write(manifest_key(manifest.digest), encode(manifest))
    write_manifest(step.dataset, manifest)
    print(summary(manifest, reused), flush=True)

    decision, reason = decide(step.condition, champion(store, step.model_name), manifest.digest, code_digest())
    with aside(step.decision) as file:
        file.write_text(decision)
    if step.condition != "always":
        print(reason, flush=True)

    seconds = round(time.monotonic() - start, 3)
    return {"dataset": facts(manifest) | {"reused": reused, "reason": reason, "seconds": seconds}}


def read_source(source: str) -> Source:
    """The labelled images behind a source's name; raises UserError or StepError when they cannot be had."""
    if source == "mnist":
        return read_folder(mnist.download(mnist.cache(), mnist.mirrors(), mnist.FILES))
    return read_folder(Path(source).expanduser())


def describe(splits: dict[str, Split]) -> Manifest:
    """The manifest of the splits, still without shards and provenance; raises UserError when a class is empty."""
    classes = name_classes(splits)
    height, width, channels = splits["train"].images.shape[1:]
    split_digests = {name: split_digest(split.hashes, split.labels) for name, split in splits.items()}
    mean, std = channel_statistics(splits["train"])
    return Manifest(
        classes=classes,
        shape=(height, width, channels),
        counts={
            name: dict(zip(classes, np.bincount(split.labels, minlength=len(classes)).tolist(), strict=True))
            for name, split in splits.items()
        },
        mean=mean,
        std=std,
        split_digests=split_digests,
        digest=content_digest(classes, (height, width, channels), split_digests),
        shards=(),
        provenance={},
    )


def channel_statistics(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, of pixels scaled to [0, 1].

    From whole sums, so that they are the same on every machine. Raises UserError where a channel never varies: it could
    not be normalised.
    """
    pixels = split.images[..., 0].size
    sums = split.images.sum(axis=(0, 1, 2), dtype=np.uint64).tolist()
    squares = np.square(split.images, dtype=np.uint16).sum(axis=(0, 1, 2), dtype=np.uint64).tolist()
    # n Σx² - (Σx)² is a whole number, too, and Python's have no bounds.
    spreads = [pixels * square - total * total for total, square in zip(sums, squares, strict=True)]
    if 0 in spreads:
        raise UserError(f"channel {spreads.index(0)} has the same value in every pixel of every training image")
    mean = tuple(total / (255 * pixels) for total in sums)
    std = tuple(math.sqrt(spread) / (255 * pixels) for spread in spreads)
    return mean, std


def find(store: Store, digest: str) -> Manifest | None:
    """The manifest of this dataset, if the store has it and all of its shards."""
    try:
        manifest = decode(store.read(manifest_key(digest)), manifest_key(digest))
    except (NotFound, UserError):  # damaged is as good as absent: it is written anew
        return None
    return manifest if all(store.exists(shard.key) for shard in manifest.shards) else None


def write_shards(store: Store, splits: dict[str, Split], classes: tuple[str, ...]) -> tuple[Shard, ...]:
    """Writes every split to the store."""
    return tuple(
        shard
        for name, split in splits.items()
        for shard in write_split(store, name, split.images, split.labels, classes)
    )


def summary(manifest: Manifest, reused: bool) -> str:
    """One line for the log."""
    name = f"dataset {manifest.digest[:12]}"
    if reused:
        return f"{name} is already in the store; reused"
    counts = ", ".join(f"{manifest.images(split):,} {split}" for split in SPLITS)
    return f"{name}: {counts} images of {len(manifest.classes)} classes"


def facts(manifest: Manifest) -> dict[str, Any]:
    """What the UI shows of the dataset."""
    counts = {split: manifest.images(split) for split in SPLITS}
    return {"digest": manifest.digest, "classes": len(manifest.classes)} | counts
