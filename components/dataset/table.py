"""Parquet files of facts in the store, each under the SHA-256 of its bytes."""

import hashlib
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet

from components.dataset.manifest import File
from components.step import StepError
from components.storage import NotFound, Store


def write(store: Store, folder: str, groups: Iterable[pa.Table], schema: pa.Schema, repeating: Sequence[str]) -> File:
    """Writes a file of these row groups into a folder of the store; `repeating` columns have few different values."""
    with tempfile.TemporaryDirectory() as room:
        path = Path(room, "table")
        with parquet.ParquetWriter(path, schema, compression="zstd", use_dictionary=list(repeating)) as writer:
            for group in groups:
                writer.write_table(group)
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        key = f"{folder}/{sha256}.parquet"
        store.write(key, path)
        return File(key=key, sha256=sha256, bytes=path.stat().st_size)


def open_file(store: Store, file: File, repeating: Sequence[str] = ()) -> parquet.ParquetFile:
    """A file that `write` wrote, in memory. Raises StepError where it is gone or damaged."""
    try:
        content = store.read(file.key)
    except NotFound:
        raise StepError(
            f"{file.key} is gone from store {store.uri}; run the pipeline again, it is written anew"
        ) from None
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise StepError(
            f"{file.key} in store {store.uri} is damaged; remove it and run the pipeline again, it is written anew"
        )
    return parquet.ParquetFile(pa.BufferReader(content), read_dictionary=list(repeating))


def read(store: Store, file: File) -> pa.Table:
    """All of a file. Raises StepError where it is gone or damaged."""
    return open_file(store, file).read()
