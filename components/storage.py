"""Where everything large lives: a directory (the embedded default) or an S3 bucket, behind one small protocol.

Keys are relative POSIX paths such as `datasets/4f2a.json`. Nothing half-written is ever visible under its key, and two
writers at once never mix: a directory writes aside and renames, S3 has atomic and conditional PUTs.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from components.step import StepError, UserError

if TYPE_CHECKING:
    from minio import Minio


class NotFound(Exception):
    """No object lies under that key."""


class Store(Protocol):
    """Objects by key."""

    uri: str

    def read(self, key: str) -> bytes:
        """The object's bytes. Raises NotFound."""

    def fetch(self, key: str, path: Path) -> None:
        """Copies the object into a file, in constant memory. Raises NotFound."""

    def write(self, key: str, content: bytes | Path) -> None:
        """Creates or replaces the object with these bytes, or with the content of this file."""

    def create(self, key: str, content: bytes) -> bool:
        """Creates the object; False, and nothing changes, where one lies there already."""

    def swap(self, key: str, old: bytes | None, new: bytes) -> bool:
        """Replaces the object if its bytes are still `old` (None: if there is none); False, and nothing changes, if not."""

    def exists(self, key: str) -> bool:
        """Whether an object lies under the key."""

    def keys(self, prefix: str) -> Iterator[str]:
        """The keys that start with the prefix, streamed, in no promised order."""


def open_store(uri: str) -> Store:
    """The store behind a URI: a path or `file://` for a directory, `s3://bucket/prefix` for S3."""
    parts = urlsplit(uri)
    if parts.scheme == "s3":
        return S3Store(uri)
    if parts.scheme == "file":
        return DirectoryStore(Path(parts.path))
    if parts.scheme or not uri:
        raise UserError(f"store must be a directory or s3://bucket/prefix, not {uri!r}")
    return DirectoryStore(Path(uri))


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A path beside `path` to write a file or a directory to; it takes the place of `path` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    room = Path(tempfile.mkdtemp(prefix=".aside-", dir=path.parent))
    try:
        yield room / path.name
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(room / path.name, path)
    finally:
        shutil.rmtree(room, ignore_errors=True)


class DirectoryStore:
    """A store in a directory of a local or shared POSIX file system."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.uri = str(self.root)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise UserError(f"store {self.uri!r} cannot be written ({error.strerror}); name another with --store") from None

    def _path(self, key: str) -> Path:
        path = self.root / key
        if ".." in path.parts or not path.is_relative_to(self.root):
            raise ValueError(f"key {key!r} leaves the store")
        return path

    def read(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise NotFound(key) from None

    def fetch(self, key: str, path: Path) -> None:
        try:
            with aside(path) as copy:
                shutil.copyfile(self._path(key), copy)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise NotFound(key) from None

    def write(self, key: str, content: bytes | Path) -> None:
        with aside(self._path(key)) as copy:
            if isinstance(content, Path):
                shutil.copyfile(content, copy)
            else:
                copy.write_bytes(content)

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
        # flock is given back by the kernel when its holder dies, so a killed run never blocks the next one.
        with (self.root / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def keys(self, prefix: str) -> Iterator[str]:
        top = self._path(prefix if prefix.endswith("/") else str(Path(prefix).parent))
        for folder, subfolders, files in os.walk(top):
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            for name in files:
                key = (Path(folder) / name).relative_to(self.root).as_posix()
                if key.startswith(prefix) and not name.startswith("."):
                    yield key


class S3Store:
    """A store in an S3 bucket: MinIO, SeaweedFS, AWS, Ceph.

    Reads the variables that every AWS tool reads: AWS_ENDPOINT_URL (default: AWS itself), AWS_REGION and the
    credentials of minio's default chain (environment, shared file, web identity, instance profile).
    """

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        if not parts.netloc:
            raise UserError(f"store must be s3://bucket/prefix, not {uri!r}")
        self.uri = uri.rstrip("/")
        self.bucket = parts.netloc
        self.prefix = parts.path.strip("/") + "/" if parts.path.strip("/") else ""
        self.client = _client()

    def read(self, key: str) -> bytes:
        return self._read(key)[0]

    def _read(self, key: str) -> tuple[bytes, str]:
        with self._speaking(key):
            response = self.client.get_object(self.bucket, self.prefix + key)
            try:
                return response.read(), response.headers["ETag"]
            finally:
                response.close()
                response.release_conn()

    def fetch(self, key: str, path: Path) -> None:
        with self._speaking(key), aside(path) as copy:
            self.client.fget_object(self.bucket, self.prefix + key, str(copy))

    def write(self, key: str, content: bytes | Path) -> None:
        import io

        with self._speaking(key):
            if isinstance(content, Path):
                self.client.fput_object(self.bucket, self.prefix + key, str(content))
            else:
                self.client.put_object(self.bucket, self.prefix + key, io.BytesIO(content), len(content))

    def create(self, key: str, content: bytes) -> bool:
        return self._put_if(key, content, {"If-None-Match": "*"})

    def swap(self, key: str, old: bytes | None, new: bytes) -> bool:
        if old is None:
            return self.create(key, new)
        try:
            current, etag = self._read(key)
        except NotFound:
            return False
        return current == old and self._put_if(key, new, {"If-Match": etag})

    def _put_if(self, key: str, content: bytes, condition: dict[str, str]) -> bool:
        """PUT under a condition (RFC 9110, section 13); minio's put_object takes no headers, a presigned URL does."""
        import urllib3

        with self._speaking(key):
            url = self.client.get_presigned_url("PUT", self.bucket, self.prefix + key)
            with urllib3.PoolManager() as http:
                response = http.request("PUT", url, body=content, headers=condition)
        if response.status in (409, 412):  # 409: two conditional PUTs at once; the other one came first
            return False
        if response.status != 200:
            raise StepError(f"store {self.uri} refused to write {key}: HTTP {response.status}")
        return True

    def exists(self, key: str) -> bool:
        try:
            with self._speaking(key):
                self.client.stat_object(self.bucket, self.prefix + key)
        except NotFound:
            return False
        return True

    def keys(self, prefix: str) -> Iterator[str]:
        with self._speaking(prefix):
            for found in self.client.list_objects(self.bucket, self.prefix + prefix, recursive=True):
                yield str(found.object_name).removeprefix(self.prefix)

    @contextmanager
    def _speaking(self, key: str) -> Iterator[None]:
        """Turns what the client raises into one sentence."""
        import urllib3
        from minio.error import MinioException, S3Error

        try:
            yield
        except S3Error as error:
            if error.code == "NoSuchKey":
                raise NotFound(key) from None
            if error.code in ("NoSuchBucket", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"):
                raise UserError(f"store {self.uri} is not usable: {error.code}: {error.message}") from None
            raise StepError(f"store {self.uri} failed on {key}: {error.code}: {error.message}") from None
        except (MinioException, urllib3.exceptions.HTTPError) as error:
            raise StepError(f"store {self.uri} cannot be reached ({error}); see AWS_ENDPOINT_URL") from None


def _client() -> "Minio":
    from minio import Minio
    from minio.credentials import AWSConfigProvider, ChainedProvider, EnvAWSProvider, IamAwsProvider

    endpoint = urlsplit(os.environ.get("AWS_ENDPOINT_URL", "https://s3.amazonaws.com"))
    if endpoint.scheme not in ("http", "https") or not endpoint.netloc:
        raise UserError(f"AWS_ENDPOINT_URL must be http(s)://host:port, not {endpoint.geturl()!r}")
    return Minio(
        endpoint=endpoint.netloc,
        secure=endpoint.scheme == "https",
        region=os.environ.get("AWS_REGION"),
        credentials=ChainedProvider([EnvAWSProvider(), AWSConfigProvider(), IamAwsProvider()]),
    )
