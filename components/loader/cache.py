"""Shards on this machine: what was fetched from the store is kept as long as there is room for it."""

import atexit
import errno
import fcntl
import hashlib
import mmap
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from components.cache_folder import cache_folder
from components.dataset.manifest import Shard
from components.dataset.shards import check, gone
from components.step import StepError
from components.storage import DirectoryStore, NotFound, Store

LARGEST = 10 * 2**30
"""Bytes that the cache takes at most, unless it is told otherwise."""
PIECE = 8 * 2**20
"""Bytes that are fetched at once: when a run is interrupted, that much is waited for."""
PATIENCE = 600.0
"""Seconds to wait for room that other processes hold."""
PAUSE = 0.02
"""Seconds between looking again whether there is room, or whether another has fetched a shard."""


class Interrupted(Exception):
    """The cache was closed while a shard was fetched."""


class Cache:
    """Fetches whole shards into a folder and maps them into memory, for all threads and processes on this machine.

    A file SHA256.parquet is a whole shard; who maps it holds a shared lock on it. A file SHA256.part is being fetched;
    who does so holds an exclusive lock on it, and it has the size of the shard from the beginning, so that the files
    are never larger together than the cache may be. The kernel gives a lock back when its holder dies, however that
    comes about: nothing that is unlocked is in use, and the file that was used longest ago is the first to go.

    The shards of a DirectoryStore are used where they lie.
    """

    def __init__(self, store: Store, folder: Path | None = None, size: int | None = None) -> None:
        """`size` is in bytes: by default LARGEST, or what the folder's disk has left where that is less."""
        self.store = store
        self._verified: set[str] = set()
        self._fetching: set[BinaryIO] = set()
        self._closed = threading.Event()
        atexit.register(self.close)
        if not isinstance(store, DirectoryStore):
            self.folder = folder or cache_folder("shards", "fetched shards need room")
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked():
                for part in self.folder.glob("*.part"):
                    _remove_unused(part)
                self.size = size or min(LARGEST, shutil.disk_usage(self.folder).free + self._used())

    def require(self, bytes: int) -> None:
        """Raises StepError where the cache is too small for shards of so many bytes at once."""
        if not isinstance(self.store, DirectoryStore) and bytes > self.size:
            raise self._too_small(bytes)

    def map(self, shard: Shard) -> mmap.mmap:
        """The shard's bytes, whole and verified; it stays in the cache as long as anything refers to them.

        Raises StepError, which names the shard, where it is gone or damaged, and where the store fails.
        """
        if isinstance(self.store, DirectoryStore):
            return self._map_in_place(self.store, shard)
        deadline = time.monotonic() + PATIENCE
        while True:
            with self._locked():
                if self._closed.is_set():
                    raise Interrupted
                found = self._open(shard)
                part = None if found else self._reserve(shard)
            if found and (content := self._mapped(found, shard)):
                return content
            if part:
                self._fetch(shard, part)
            elif not found:
                if not self._part(shard).exists() and time.monotonic() > deadline:
                    raise self._in_use(shard)
                time.sleep(PAUSE)

    def close(self) -> None:
        """Ends what is being fetched, in whichever thread, and removes it."""
        self._closed.set()
        atexit.unregister(self.close)
        if not isinstance(self.store, DirectoryStore):
            # Locked, or a file that is just being made would be missed; the folder may be gone at the end of a process.
            with suppress(FileNotFoundError), self._locked():
                for part in self._fetching:
                    _remove(part)

    def _map_in_place(self, store: DirectoryStore, shard: Shard) -> mmap.mmap:
        try:
            with store.open(shard.key) as file:
                content = _map(file)
        except NotFound:
            raise gone(store, shard) from None
        self._verify(content, shard)
        assert content is not None
        return content

    def _verify(self, content: mmap.mmap | None, shard: Shard) -> None:
        """Raises StepError where a shard is not what was written. A file is looked at once in the life of a cache."""
        if shard.sha256 not in self._verified:
            check(content or b"", self.store, shard)
            self._verified.add(shard.sha256)

    def _path(self, shard: Shard) -> Path:
        return self.folder / f"{shard.sha256}.parquet"

    def _part(self, shard: Shard) -> Path:
        return self.folder / f"{shard.sha256}.part"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone among all threads and processes that use the folder."""
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _open(self, shard: Shard) -> BinaryIO | None:
        """The file of a shard that is there, locked against removal."""
        try:
            file = self._path(shard).open("rb")
        except FileNotFoundError:
            return None
        fcntl.flock(file, fcntl.LOCK_SH)
        os.utime(file.fileno())
        return file

    def _mapped(self, file: BinaryIO, shard: Shard) -> mmap.mmap | None:
        """Maps a file of the cache; None, and the file is gone, where it was damaged since it was fetched."""
        with file:
            content = _map(file)  # with a duplicate of the descriptor, and so with its lock
            try:
                self._verify(content, shard)
            except StepError:
                with self._locked():
                    _remove(file)
                return None
        return content

    def _reserve(self, shard: Shard) -> BinaryIO | None:
        """A new file with room for a shard; None while another fetches it, or while everything is in use."""
        path = self._part(shard)
        if (path.exists() and not _remove_unused(path)) or not self._make_room(shard.bytes):
            return None
        file = path.open("x+b")
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            _allocate(file, shard.bytes)
        except OSError as error:
            path.unlink()
            file.close()
            if error.errno != errno.ENOSPC:
                raise
            self.size = self._used()  # others fill the disk, too: from now on what is fetched takes the place of some
            return None
        self._fetching.add(file)
        return file

    def _make_room(self, bytes: int) -> bool:
        """Removes what was used longest ago until there is room for so many bytes; False where too much is in use."""
        if bytes > self.size:
            raise self._too_small(bytes)
        used = self._used()
        for path in sorted(self._files(), key=lambda path: path.stat().st_mtime):
            if used + bytes <= self.size:
                break
            size = path.stat().st_size
            used -= size * _remove_unused(path)
        return used + bytes <= self.size

    def _files(self) -> list[Path]:
        return [path for path in self.folder.iterdir() if path.suffix in (".parquet", ".part")]

    def _used(self) -> int:
        return sum(path.stat().st_size for path in self._files())

    def _fetch(self, shard: Shard, part: BinaryIO) -> None:
        """Fills a reserved file from the store; it becomes part of the cache when it is whole."""
        whole = False
        try:
            self._copy(shard, part)
            whole = True
        finally:
            with self._locked(), part:  # closed before others may look: they would wait for its lock
                self._fetching.discard(part)
                if whole and not self._closed.is_set() and _is_there(part):
                    Path(part.name).rename(self._path(shard))
                else:
                    _remove(part)

    def _copy(self, shard: Shard, part: BinaryIO) -> None:
        sha256, left = hashlib.sha256(), shard.bytes
        try:
            with self.store.open(shard.key) as source:
                while piece := source.read(min(PIECE, left + 1)):
                    if self._closed.is_set():
                        raise Interrupted
                    sha256.update(piece)
                    left -= len(piece)
                    if left < 0:
                        break
                    part.write(piece)
        except NotFound:
            raise gone(self.store, shard) from None
        if left or sha256.hexdigest() != shard.sha256:
            check(b"", self.store, shard)
        part.flush()
        self._verified.add(shard.sha256)

    def _in_use(self, shard: Shard) -> StepError:
        return StepError(
            f"shard {shard.key} found no room in the cache {self.folder} for {PATIENCE / 60:.0f} minutes: all of its "
            f"{self.size / 2**30:.2f} GiB are in use; make room there, or stop another process that uses it"
        )

    def _too_small(self, bytes: int) -> StepError:
        return StepError(
            f"the cache {self.folder} has room for {self.size / 2**30:.2f} GiB, and {bytes / 2**30:.2f} GiB of shards "
            "are needed at once; make room there"
        )


def _map(file: BinaryIO) -> mmap.mmap | None:
    """The bytes of a file; None where it is empty, which cannot be mapped."""
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if os.fstat(file.fileno()).st_size else None


def _is_there(file: BinaryIO) -> bool:
    """Whether an open file still has its name, which may be that of another since."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), Path(file.name).stat())
    return False


def _remove(file: BinaryIO) -> None:
    """Removes an open file, unless that was done already."""
    if _is_there(file):
        Path(file.name).unlink()


def _allocate(file: BinaryIO, bytes: int) -> None:
    """Gives a new file its size and, where the system can, its room on the disk. Raises OSError where there is none."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, max(1, bytes))
    else:
        file.truncate(bytes)


def _remove_unused(path: Path) -> bool:
    """Removes a file unless somebody holds a lock on it; tells whether it is gone."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        path.unlink()
    return True
