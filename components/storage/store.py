"""What a store is, whatever is behind it: the protocol, and the rules that both kinds of store keep."""

import io
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from components.step import StepError, UserError

COPIED_AT_ONCE = 2**20
"""Bytes."""

LINK = "(symbolic link)"
"""What a link that is not followed is counted as."""
NO_KEY = "(hidden or unusable name)"
"""What a file is counted as that no key can name."""

ASIDE = ".aside-"
"""What begins the name of a folder that something is written to before it takes its place."""


class NotFound(Exception):
    """No object lies under that key."""


class LeadsOut(UserError):
    """A symbolic link leads out of the directory."""


@dataclass(frozen=True, slots=True)
class Object:
    """What a listing says of an object."""

    key: str
    size: int
    """Bytes."""
    version: str
    """Changes whenever the object does: S3's ETag, or a file's time, size and inode."""


class Store(Protocol):
    """Objects by key.

    Every method raises UserError where a key is none (`check_key`) or the store refuses us, and StepError where the
    store fails, for S3 after several attempts.
    """

    uri: str

    def require_writable(self) -> None:
        """Raises UserError where nothing can be written, so that nobody works in vain."""

    def read(self, key: str, start: int = 0, length: int | None = None, version: str | None = None) -> bytes:
        """The object's bytes from `start` on, exactly `length` of them where that is given.

        Raises NotFound; StepError where the object is shorter, or has another version than the one that is asked for.
        """

    def open(self, key: str, version: str | None = None) -> BinaryIO:
        """A seekable file over the object, which reads no more of it than is asked for, and a little ahead.

        Raises NotFound; StepError, also later while it is read, where the object is no longer the same.
        """

    def fetch(self, key: str, path: Path) -> None:
        """Copies the object into a file, in constant memory. Raises NotFound."""

    def write(self, key: str, content: bytes | Path) -> None:
        """Creates or replaces the object with these bytes, or with the content of this file, in constant memory."""

    def create(self, key: str, content: bytes) -> bool:
        """Creates the object; False, and nothing changes, where one lies there already."""

    def swap(self, key: str, old: bytes | None, new: bytes) -> bool:
        """Replaces the object if its bytes are still `old` (None: if there is none); otherwise False and no change."""

    def remove(self, key: str) -> None:
        """Removes the object, if there is one."""

    def exists(self, key: str) -> bool:
        """Whether an object lies under the key."""

    def stat(self, key: str) -> Object:
        """What a listing says of the object. Raises NotFound."""

    def objects(self, prefix: str, passed_over: Counter[str] | None = None) -> Iterator[Object]:
        """The objects whose keys start with the prefix, streamed, in the order of their keys' UTF-8 bytes.

        Folders' own markers are not listed. Nor is what no key can name, such as names that start with a dot, and the
        links that a directory does not follow; of the folders that were looked into these are added to `passed_over`,
        as `NO_KEY` and `LINK`.
        """

    def keys(self, prefix: str) -> Iterator[str]:
        """The keys of `objects`."""


class Seekable(io.RawIOBase):
    """An object of a store as a file, to be read from any position; subclasses say how."""

    def __init__(self, found: Object) -> None:
        self.found, self.position = found, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self.position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.found.size}[whence]
        if self.position < 0:
            raise ValueError(f"negative position {self.position}")
        return self.position


def is_key(key: str) -> bool:
    """Whether a string is a plain relative path. Names that start with a dot are the stores' own."""
    return all(part and not part.startswith(".") for part in key.split("/")) and "\0" not in key and _is_text(key)


def check_key(key: str) -> None:
    """Raises UserError unless `is_key`: some keys are read from files that others wrote."""
    if not is_key(key):
        raise UserError(f"key {key!r} must be a relative path without names that start with a dot")


def _is_text(key: str) -> bool:
    """False for what Python makes of a file name that is not UTF-8."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A path beside `path` to write a file or a directory to; it takes the place of `path` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    room = path.parent / f"{ASIDE}{secrets.token_hex(8)}"
    try:
        room.mkdir(mode=0o700)  # within: mkdtemp, interrupted when it has made a directory, leaves it to nobody
        yield room / path.name
        if path.is_dir():
            path.replace(room / "replaced~")  # a rename at once, where a removal would be seen halfway
        (room / path.name).replace(path)
    finally:
        try:
            with suppress(OSError):
                room.rmdir()
        finally:  # it is not empty, or an interrupt came first; rmtree is not safe from one itself
            shutil.rmtree(room, ignore_errors=True)


@contextmanager
def landing(path: Path) -> Iterator[BinaryIO]:
    """A file to copy an object to, which takes the place of `path` when the block ends well.

    Raises StepError where this machine cannot write it.
    """
    try:
        with aside(path) as copy, copy.open("wb") as file:
            yield file
    except OSError as error:
        raise StepError(f"{str(path)!r} cannot be written ({error.strerror}); make room there") from None


def changed(key: str, uri: str) -> StepError:
    """What to raise where an object is another than the one that was asked for."""
    return StepError(f"{key} in {uri} has changed while it was read; run again when nobody writes there")


def too_short(key: str, uri: str) -> StepError:
    """What to raise where an object ends before the bytes that were asked for."""
    return StepError(f"{key} in {uri} is shorter than expected; it was damaged or replaced")
