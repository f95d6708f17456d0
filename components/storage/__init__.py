"""Where everything large lives: a directory (the embedded default) or an S3 bucket, behind one small protocol.

Keys are relative POSIX paths such as `datasets/4f2a.json`. Nothing half-written is ever visible under its key, and two
writers at once never mix: a directory writes aside and renames, S3 has atomic and conditional PUTs.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from components.step import UserError
from components.storage.directory import DirectoryStore
from components.storage.store import (
    COPIED_AT_ONCE,
    LINK,
    NO_KEY,
    LeadsOut,
    NotFound,
    Object,
    Seekable,
    Store,
    aside,
    check_key,
)

if TYPE_CHECKING:
    from components.storage.s3 import S3Store

__all__ = [
    "COPIED_AT_ONCE",
    "LINK",
    "NO_KEY",
    "DirectoryStore",
    "LeadsOut",
    "NotFound",
    "Object",
    "S3Store",
    "Seekable",
    "Store",
    "aside",
    "check_key",
    "open_store",
]


def open_store(uri: str) -> Store:
    """The store behind a URI: a path or `file://` for a directory, `s3://bucket/prefix` for S3."""
    scheme, colon, path = uri.partition("://")
    if scheme == "s3" and colon:
        from components.storage.s3 import S3Store

        return S3Store(uri)
    if scheme == "file" and path.startswith("/"):
        return DirectoryStore(Path(unquote(path)))
    if colon or not uri:
        raise UserError(f"store must be a directory, file:///directory or s3://bucket/prefix, not {uri!r}")
    return DirectoryStore(Path(uri))


def __getattr__(name: str) -> Any:
    """S3Store when it is asked for: minio takes as long to import as all the rest, and a directory needs none of it."""
    if name == "S3Store":
        from components.storage.s3 import S3Store

        return S3Store
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
