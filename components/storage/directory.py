"""A store in a directory."""

import errno
import fcntl
import io
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, BinaryIO

from components.step import StepError, UserError
from components.storage.store import (
    ASIDE,
    COPIED_AT_ONCE,
    LINK,
    NO_KEY,
    LeadsOut,
    NotFound,
    Object,
    aside,
    changed,
    check_key,
    is_key,
    landing,
    too_short,
)

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MISTAKES = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.ENOENT,
    errno.ENAMETOOLONG,
)
"""Of the user; any other error is the file system's failure."""

ABSENT = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
"""What is said where no file lies under a key, or can."""

LEFT_BEHIND = 24 * 3600.0
"""Seconds after which nobody is still writing to a folder aside: who did was killed."""


class DirectoryStore:
    """A store in a directory of a local or shared POSIX file system.

    Symbolic links that lead out of the directory are neither listed nor followed: who fills a folder with images
    does not choose which other files are read.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.uri = str(self.root)

    def require_writable(self) -> None:
        """Makes the directory where it is missing. Raises UserError where it cannot be written."""
        with self._writing():
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        self._sweep()

    def _sweep(self) -> None:
        """Removes what writers have left behind that were killed."""
        for folder, names, _ in os.walk(self.root):
            for path in (Path(folder, name) for name in names if name.startswith(ASIDE)):
                with suppress(OSError):
                    if path.lstat().st_mtime < time.time() - LEFT_BEHIND:
                        shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns what the file system says into one sentence."""
        try:
            yield
        except OSError as error:
            sentence = f"store {self.uri!r} cannot be written ({error.strerror}); "
            if error.errno in MISTAKES:
                raise UserError(sentence + "give another --store") from None
            raise StepError(sentence + "make room, or give another --store") from None

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        """The same for reading."""
        try:
            yield
        except OSError as error:
            if error.errno in ABSENT:
                raise NotFound(key) from None
            what = f"{key} in {self.uri!r}" if key else repr(self.uri)
            sentence = f"{what} cannot be read ({error.strerror}); "
            if error.errno in MISTAKES:
                raise UserError(sentence + "give yourself the permission") from None
            raise StepError(sentence + "see whether its disk is well") from None

    def _path(self, key: str) -> Path:
        check_key(key)
        path = self.root / key
        if not self._is_inside(key):
            raise LeadsOut(f"{key} in {self.uri!r} leads out of it by a symbolic link; put the file itself there")
        return path

    def _is_inside(self, key: str) -> bool:
        """Whether no link on the way leads out; only where there is one is it resolved, which takes long."""
        way = self._real
        for name in key.split("/"):
            way += name
            if os.path.islink(way):  # noqa: PTH114 (to make a Path takes longer than to ask)
                return os.path.realpath(self._real + key).startswith(self._real)
            way += "/"
        return True

    @cached_property
    def _real(self) -> str:
        return os.path.realpath(self.root).rstrip("/") + "/"

    def read(self, key: str, start: int = 0, length: int | None = None, version: str | None = None) -> bytes:
        with self.open(key, version) as file:
            file.seek(start)
            content = file.read(-1 if length is None else length)
        if len(content) < (start > 0 if length is None else length):
            raise too_short(key, self.uri)
        return content

    def open(self, key: str, version: str | None = None) -> BinaryIO:
        return io.BufferedReader(_Unchanging(self, key, self._path(key), version))

    def fetch(self, key: str, path: Path) -> None:
        with self.open(key) as source, landing(path) as copy:
            shutil.copyfileobj(source, copy, COPIED_AT_ONCE)

    def write(self, key: str, content: bytes | Path) -> None:
        source = content.open("rb") if isinstance(content, Path) else io.BytesIO(content)
        path = self._path(key)
        with source, self._writing():
            grown = {path.parent, *(folder.parent for folder in path.parents if not folder.exists())}
            with aside(path) as copy, copy.open("wb") as file:
                shutil.copyfileobj(source, file, COPIED_AT_ONCE)
                file.flush()
                os.fsync(file.fileno())  # before the rename: without it a power cut leaves the name and no content
            for folder in grown:
                _sync(folder)

    def remove(self, key: str) -> None:
        with self._writing():
            self._path(key).unlink(missing_ok=True)

    def create(self, key: str, content: bytes) -> bool:
        return self.swap(key, None, content)

    def swap(self, key: str, old: bytes | None, new: bytes) -> bool:
        with self._lock():
            current = self.read(key) if self.exists(key) else None
            if current == old:
                self.write(key, new)
            return current == old

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with self._writing():
            self.root.mkdir(parents=True, exist_ok=True)
            lock = (self.root / ".lock").open("w")
        # flock is given back by the kernel when its holder dies, so a killed run never blocks the next one.
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def exists(self, key: str) -> bool:
        try:
            self.stat(key)
        except NotFound:
            return False
        return True

    def stat(self, key: str) -> Object:
        with self._reading(key):
            stat = self._path(key).stat()
        if not S_ISREG(stat.st_mode):
            raise NotFound(key)
        return Object(key, stat.st_size, _version(stat))

    def objects(self, prefix: str, passed_over: Counter[str] | None = None) -> Iterator[Object]:
        folder, there = prefix[: prefix.rfind("/") + 1], False
        with suppress(NotFound), self._reading(folder):
            there = self._path(prefix + "*").parent.is_dir()
        if there:
            yield from self._below(folder, prefix, Counter() if passed_over is None else passed_over)

    def keys(self, prefix: str) -> Iterator[str]:
        return (found.key for found in self.objects(prefix))

    def _below(self, folder: str, prefix: str, passed_over: Counter[str]) -> Iterator[Object]:
        """The objects in a folder, which is "" or ends with "/"; of the folders on the way to it the names are held."""
        with self._listing(folder):
            for name in self._names(folder, passed_over):
                key = folder + name
                if name.endswith("/"):
                    if key.startswith(prefix) or prefix.startswith(key):
                        yield from self._below(key, prefix, passed_over)
                elif key.startswith(prefix):
                    stat = os.stat(self._real + key)  # noqa: PTH116 (likewise)
                    yield Object(key, stat.st_size, _version(stat))

    def _names(self, folder: str, passed_over: Counter[str]) -> list[str]:
        """The names in a folder. Python sorts text by code point, which is the order of its UTF-8 bytes."""
        with os.scandir(self._real + folder) as entries:
            return sorted(
                entry.name + "/" * entry.is_dir() for entry in entries if self._is_listed(folder, entry, passed_over)
            )

    def _is_listed(self, folder: str, entry: os.DirEntry[str], passed_over: Counter[str]) -> bool:
        if not is_key(entry.name):
            passed_over[NO_KEY] += 1
            return False
        if not entry.is_symlink():
            return entry.is_dir() or entry.is_file()
        # A folder may lead back to where it is linked from.
        listed = self._is_inside(folder + entry.name) and Path(entry.path).is_file()
        passed_over[LINK] += not listed
        return listed

    @contextmanager
    def _listing(self, folder: str) -> Iterator[None]:
        """The same for what was there a moment ago."""
        try:
            with self._reading(folder):
                yield
        except NotFound:
            raise StepError(f"{self.uri}/{folder} changed while it was listed; run again when it is at rest") from None


class _Unchanging(io.FileIO):
    """A file that notices when it is written to while it is read."""

    def __init__(self, store: DirectoryStore, key: str, path: Path, version: str | None) -> None:
        self.store, self.key = store, key
        with store._reading(key):
            super().__init__(path)
        self.version = version or _version(os.fstat(self.fileno()))
        self.require_unchanged()

    def require_unchanged(self) -> None:
        if _version(os.fstat(self.fileno())) != self.version:
            self.close()
            raise changed(self.key, self.store.uri)

    def readinto(self, buffer: "WriteableBuffer", /) -> int | None:
        with self.store._reading(self.key):
            count = super().readinto(buffer)
        self.require_unchanged()
        return count

    def readall(self) -> bytes:
        with self.store._reading(self.key):
            content = super().readall()
        self.require_unchanged()
        return content or b""


def _sync(folder: Path) -> None:
    """Makes a folder's names outlive a power cut, where its file system knows how."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _version(stat: os.stat_result) -> str:
    return f"{stat.st_mtime_ns}-{stat.st_size}-{stat.st_ino}"
