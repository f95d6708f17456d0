"""Shards: Parquet files of images and labels in the store, each under the SHA-256 of its bytes.

Parquet because other tools read it: the column `image` holds the raw uint8 pixels [H, W, C] of an image, the column
`label` (int64) the number of its class, and the schema's metadata the shape and the names of the classes, as JSON.

The images of a split are in canonical order: by their SHA-256, then by label. So the same images make the same dataset
whatever their order in the source.
"""

import hashlib
import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from components.dataset.manifest import Manifest, Shard
from components.step import StepError
from components.storage import NotFound, Store

SHARD_PIXELS = 32 * 2**20
"""Bytes of pixels in a shard, at most: it is read and written in memory."""


def image_hashes(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The SHA-256 of each of the images [N, ...], as uint8 [N, 32]."""
    flat = np.ascontiguousarray(images).reshape(len(images), -1)
    return np.frombuffer(b"".join(hashlib.sha256(image.data).digest() for image in flat), np.uint8).reshape(-1, 32)


def canonical_order(hashes: NDArray[np.uint8], labels: NDArray[np.int64]) -> NDArray[np.intp]:
    """The indices that sort images by hash [N, 32], then by label [N]."""
    # Big-endian words compare as the bytes that they are made of; lexsort's last key is its first criterion.
    words = hashes.view(">u8")
    return np.lexsort((labels, *words.T[::-1]))


def split_digest(hashes: NDArray[np.uint8], labels: NDArray[np.int64]) -> str:
    """SHA-256 over the pairs of hash [N, 32] and label [N], in canonical order; labels as little-endian int64."""
    pairs = np.hstack([hashes, labels.astype("<i8").reshape(-1, 1).view(np.uint8)])
    return hashlib.sha256(pairs.data).hexdigest()


def write_split(
    store: Store, split: str, images: NDArray[np.uint8], labels: NDArray[np.int64], classes: tuple[str, ...]
) -> Iterator[Shard]:
    """Writes images [N, H, W, C] and labels [N] to the store, one shard after another."""
    images_per_shard = max(1, SHARD_PIXELS // images[0].size)
    for start in range(0, len(images), images_per_shard):
        part = slice(start, start + images_per_shard)
        content = _encode(images[part], labels[part], classes)
        sha256 = hashlib.sha256(content).hexdigest()
        key = f"datasets/shards/{sha256}.parquet"
        store.write(key, content)
        yield Shard(key=key, sha256=sha256, split=split, images=len(images[part]), bytes=len(content))


def _encode(images: NDArray[np.uint8], labels: NDArray[np.int64], classes: tuple[str, ...]) -> bytes:
    pixels = pa.py_buffer(np.ascontiguousarray(images))
    column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(images[0].size), len(images), [None, pixels])
    table = pa.table({"image": column, "label": pa.array(labels, pa.int64())})
    facts = {"shape": json.dumps(images.shape[1:]), "classes": json.dumps(classes)}
    sink = pa.BufferOutputStream()
    parquet.write_table(
        table.replace_schema_metadata(facts),
        sink,
        compression="zstd",
        use_dictionary=False,  # images hardly ever repeat
        write_statistics=False,
    )
    return bytes(sink.getvalue())


def read_split(store: Store, manifest: Manifest, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Reads images uint8 [N, H, W, C] and labels int64 [N], contiguous and in canonical order.

    Raises StepError, which names the shard, when one is gone or its bytes are not those that were written.
    """
    shards = [shard for shard in manifest.shards if shard.split == split]
    count = sum(shard.images for shard in shards)
    images = np.empty((count, *manifest.shape), np.uint8)
    labels = np.empty(count, np.int64)
    start = 0
    for shard in shards:
        part = slice(start, start := start + shard.images)
        _decode(_read(store, shard), images[part], labels[part])
    return images, labels


def _read(store: Store, shard: Shard) -> bytes:
    try:
        content = store.read(shard.key)
    except NotFound:
        raise StepError(f"shard {shard.key} is gone from store {store.uri}; ingest the source again") from None
    if hashlib.sha256(content).hexdigest() != shard.sha256:
        raise StepError(f"shard {shard.key} in store {store.uri} is damaged; remove it and ingest the source again")
    return content


def _decode(content: bytes, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    """Fills `images` and `labels` from the bytes of a shard."""
    table = parquet.read_table(pa.BufferReader(content)).combine_chunks()
    pixels = table["image"].chunk(0).buffers()[1]
    images[:] = np.frombuffer(pixels, np.uint8, count=images.size).reshape(images.shape)
    labels[:] = table["label"].to_numpy()
