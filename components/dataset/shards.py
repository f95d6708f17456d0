"""Shards: Parquet files of the images of one split, each in the store under the SHA-256 of its bytes.

Parquet because other tools read it (pyarrow, pandas, DuckDB, Hugging Face `datasets`), and because nothing else was
faster where it counts: see docs/data.md. The column `label` holds the name of the class, the column `image`

    of raw data      the pixels, uint8 [H, W, C], as fixed-size binary, compressed by zstd; `shape` is in the metadata
    of encoded data  a struct: `bytes`, a JPEG, PNG or WebP file, uncompressed, and `path`, which is null

Images are never null and a row group has one page: so the files in an encoded shard lie there one after another, and
are read where they lie (`files`). The same rows give the same bytes under the same version of pyarrow, which writes its
version into every file; the digest of a dataset hangs on no bytes of a shard.
"""

import hashlib
import json
import mmap
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from components.dataset.manifest import Manifest, Shard
from components.step import StepError
from components.storage import NotFound, Store

GROUP_BYTES = 8 * 2**20
"""Of a row group's images, about."""
GROUP_ROWS = 16_384
"""Of a row group, at most: pyarrow begins another page after 20,000."""

FILES = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
"""An encoded image, as Hugging Face `datasets` stores it."""

T = TypeVar("T", bound=np.generic)

Shape = tuple[int, int, int]
Content = bytes | mmap.mmap
"""Of a shard: in memory, or a file that is mapped there."""


# Writing


def write_shard(
    store: Store, split: str, images: Sequence[bytes], labels: Sequence[str], shape: Shape | None, copy: int = 0
) -> Shard:
    """Writes a shard to the store: image files, or raw images of this shape, with the names of their classes.

    Another number, `copy`, makes another file of the same rows.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "shard")
        _write_groups(path, _groups(images), images, labels, shape, {"copy": str(copy)} if copy else {})
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        key = f"datasets/shards/{sha256}.parquet"
        store.write(key, path)
        return Shard(key=key, sha256=sha256, bytes=path.stat().st_size, split=split, rows=len(images))


def _groups(images: Iterable[bytes]) -> Iterator[slice]:
    """The rows of each row group."""
    start = end = size = 0
    for end, image in enumerate(images):
        if size and (size + len(image) > GROUP_BYTES or end - start == GROUP_ROWS):
            yield slice(start, end)
            start, size = end, 0
        size += len(image)
    yield slice(start, end + 1)


def _write_groups(
    path: Path,
    groups: Iterable[slice],
    images: Sequence[bytes],
    labels: Sequence[str],
    shape: Shape | None,
    more: dict[str, str],
) -> None:
    kind = pa.binary(int(np.prod(shape))) if shape else FILES
    facts = {"shape": json.dumps(shape)} if shape else {"huggingface": json.dumps({"info": {"features": FEATURES}})}
    schema = pa.schema([pa.field("image", kind), pa.field("label", pa.string())])
    with parquet.ParquetWriter(
        path,
        schema,
        compression="zstd" if shape else "none",  # image files are compressed already
        use_dictionary=["label"],  # images hardly ever repeat
        data_page_size=2**30,
        write_statistics=False,
        store_schema=False,
    ) as writer:
        for group in groups:
            column = (_pixels if shape else _files)(images[group], kind)
            writer.write_table(pa.table([column, pa.array(labels[group], pa.string())], schema=schema))
        writer.add_key_value_metadata(facts | more)


FEATURES = {"image": {"_type": "Image"}, "label": {"dtype": "string", "_type": "Value"}}
"""What Hugging Face `datasets` takes an encoded shard's columns for."""


def _pixels(images: Sequence[bytes], kind: pa.DataType) -> pa.Array:
    return pa.FixedSizeBinaryArray.from_buffers(kind, len(images), [None, pa.py_buffer(b"".join(images))])


def _files(images: Sequence[bytes], kind: pa.DataType) -> pa.Array:
    columns = [pa.array(images, pa.binary()), pa.nulls(len(images), pa.string())]
    return pa.StructArray.from_arrays(columns, fields=list(kind))


# Reading


def read_split(store: Store, manifest: Manifest, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Reads a split of raw data: images uint8 [N, H, W, C], contiguous, and the numbers of their classes, int64 [N].

    Raises StepError, which names the shard, when one is gone or its bytes are not those that were written.
    """
    shards = [shard for shard in manifest.shards if shard.split == split]
    count = sum(shard.images for shard in shards)
    images = np.empty((count, *_shape(manifest)), np.uint8)
    labels = np.empty(count, np.int64)
    start = 0
    for shard in shards:
        part = slice(start, start := start + shard.images)
        images[part], labels[part] = pixels(read_shard(store, shard), shard, manifest)
    return images, labels


def read_shard(store: Store, shard: Shard) -> bytes:
    """The bytes of a shard. Raises StepError when it is gone or they are not those that were written."""
    try:
        content = store.read(shard.key)
    except NotFound:
        raise gone(store, shard) from None
    check(content, store, shard)
    return content


def gone(store: Store, shard: Shard) -> StepError:
    """What is raised where a shard is missing."""
    return StepError(f"shard {shard.key} is gone from store {store.uri}; run the pipeline again, it is written anew")


def damaged(store: Store, shard: Shard) -> StepError:
    """What is raised where the bytes of a shard are not those that were written."""
    return StepError(
        f"shard {shard.key} in store {store.uri} is damaged; remove it and run the pipeline again, it is written anew"
    )


def check(content: Content, store: Store, shard: Shard) -> None:
    """Raises StepError unless these are the bytes that were written."""
    if hashlib.sha256(content).hexdigest() != shard.sha256:
        raise damaged(store, shard)


def pixels(content: Content, shard: Shard, manifest: Manifest) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The images of a raw shard, uint8 [N, H, W, C], and the numbers of their classes, int64 [N], as they are in it.

    Excluded rows are left out.
    """
    file = _open(content)
    shape = _shape(manifest)
    images = np.empty((shard.rows, *shape), np.uint8)
    start = 0
    for group in range(file.num_row_groups):
        for chunk in file.read_row_group(group, columns=["image"])["image"].chunks:
            part = images[start : start + len(chunk)]
            # With its offset: an array may begin anywhere in its buffer.
            values = np.frombuffer(chunk.buffers()[1], np.uint8, part.size, chunk.offset * part[0].size)
            part[:] = values.reshape(part.shape)
            start += len(chunk)
    return _keep(images, shard), _keep(_labels(file, manifest), shard)


def files(content: Content, shard: Shard, manifest: Manifest) -> tuple[list[memoryview], NDArray[np.int64]]:
    """The image files of an encoded shard, and the numbers of their classes, int64 [N], as they are in it.

    Excluded rows are left out. Nothing is copied: the files are views of `content`, and a mapped shard is read from its
    file only where they are looked at.
    """
    file = _open(content)
    view = memoryview(content)
    found = [image for group in range(file.num_row_groups) for image in _page(view, file.metadata.row_group(group))]
    excluded = set(shard.excluded)
    kept = [image for row, image in enumerate(found) if row not in excluded] if excluded else found
    return kept, _keep(_labels(file, manifest), shard)


def _open(content: Content) -> parquet.ParquetFile:
    return parquet.ParquetFile(pa.BufferReader(pa.py_buffer(content)), read_dictionary=["label"])


def _shape(manifest: Manifest) -> Shape:
    height, width, channels = manifest.shape
    assert height is not None
    assert width is not None
    return height, width, channels


def _labels(file: parquet.ParquetFile, manifest: Manifest) -> NDArray[np.int64]:
    numbers = {name: number for number, name in enumerate(manifest.classes)}
    chunks = file.read(columns=["label"])["label"].chunks
    found = [np.array([numbers[name] for name in chunk.dictionary.to_pylist()])[chunk.indices] for chunk in chunks]
    return np.concatenate(found).astype(np.int64)


def _keep(rows: NDArray[T], shard: Shard) -> NDArray[T]:
    return np.delete(rows, shard.excluded, axis=0) if shard.excluded else rows


def _page(content: memoryview, group: parquet.RowGroupMetaData) -> Iterator[memoryview]:
    """The values in the only page of a row group's first column: each is its length, 32 bits, and its bytes.

    They come after the page's header, in Thrift's compact protocol, whose third field is the length of the rest, and
    after what says which values are null: none is; its length, and as many bytes. Source: the Parquet format's
    parquet.thrift (PageHeader), README.md (Data Pages) and Encodings.md (PLAIN).
    """
    column = group.column(0)
    end = column.data_page_offset + column.total_compressed_size
    position = end - _page_length(content[column.data_page_offset : end])
    position += 4 + int.from_bytes(content[position : position + 4], "little")
    for _ in range(group.num_rows):
        start = position + 4
        position = start + int.from_bytes(content[position:start], "little")
        yield content[start:position]


def _page_length(header: memoryview) -> int:
    """The third field of a page's header: each is a byte that says which it is, and a number, zigzag, 7 bits a byte."""
    position = value = 0
    for _ in range(3):
        position, value, shift = position + 1, 0, 0
        while header[position] & 0x80:
            value |= (header[position] & 0x7F) << shift
            position, shift = position + 1, shift + 7
        value |= header[position] << shift
        position += 1
    return value >> 1
