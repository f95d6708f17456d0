"""Where everything large lives: a directory (the embedded default) or an S3 bucket, behind one small protocol.

Keys are relative POSIX paths such as `datasets/4f2a.json`. Nothing half-written is ever visible under its key, and two
writers at once never mix: a directory writes aside and renames, S3 has atomic and conditional PUTs.
"""

import errno
import fcntl
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

from components.step import StepError, UserError

if TYPE_CHECKING:
    from minio import Minio
    from urllib3 import PoolManager


COPIED_AT_ONCE = 2**20
"""Bytes."""


class NotFound(Exception):
    """No object lies under that key."""


class Store(Protocol):
    """Objects by key."""

    uri: str

    def require_writable(self) -> None:
        """Raises UserError where nothing can be written, so that nobody works in vain."""

    def read(self, key: str) -> bytes:
        """The object's bytes. Raises NotFound."""

    def fetch(self, key: str, path: Path) -> None:
        """Copies the object into a file, in constant memory. Raises NotFound."""

    def write(self, key: str, content: bytes | Path) -> None:
        """Creates or replaces the object with these bytes, or with the content of this file."""

    def create(self, key: str, content: bytes) -> bool:
        """Creates the object; False, and nothing changes, where one lies there already."""

    def swap(self, key: str, old: bytes | None, new: bytes) -> bool:
        """Replaces the object if its bytes are still `old` (None: if there is none); otherwise False and no change."""

    def exists(self, key: str) -> bool:
        """Whether an object lies under the key."""

    def keys(self, prefix: str) -> Iterator[str]:
        """The keys that start with the prefix, streamed, in no promised order."""


def open_store(uri: str) -> Store:
    """The store behind a URI: a path or `file://` for a directory, `s3://bucket/prefix` for S3."""
    scheme, colon, path = uri.partition("://")
    if scheme == "s3" and colon:
        return S3Store(uri)
    if scheme == "file" and path.startswith("/"):
        return DirectoryStore(Path(unquote(path)))
    if colon or not uri:
        raise UserError(f"store must be a directory, file:///directory or s3://bucket/prefix, not {uri!r}")
    return DirectoryStore(Path(uri))


def check_key(key: str) -> None:
    """Raises UserError unless the key is a plain relative path: some keys are read from files that others wrote.

    Names that start with a dot are the directory store's own.
    """
    if not all(part and not part.startswith(".") for part in key.split("/")):
        raise UserError(f"key {key!r} must be a relative path without names that start with a dot")


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A path beside `path` to write a file or a directory to; it takes the place of `path` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    room = Path(tempfile.mkdtemp(prefix=".aside-", dir=path.parent))
    try:
        yield room / path.name
        if path.is_dir():
            path.replace(room / "replaced~")  # a rename at once, where a removal would be seen halfway
        (room / path.name).replace(path)
    finally:
        shutil.rmtree(room, ignore_errors=True)


class DirectoryStore:
    """A store in a directory of a local or shared POSIX file system."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.uri = str(self.root)

    def require_writable(self) -> None:
        """Makes the directory where it is missing. Raises UserError where it cannot be written."""
        with self._writing():
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns what the file system says into one sentence."""
        try:
            yield
        except OSError as error:
            mistake = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT)
            sentence = f"store {self.uri!r} cannot be written ({error.strerror}); "
            if mistake:
                raise UserError(sentence + "give another --store") from None
            raise StepError(sentence + "make room, or give another --store") from None

    def _path(self, key: str) -> Path:
        check_key(key)
        return self.root / key

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
        source = content.open("rb") if isinstance(content, Path) else io.BytesIO(content)
        with source, self._writing(), aside(self._path(key)) as copy, copy.open("wb") as file:
            shutil.copyfileobj(source, file, COPIED_AT_ONCE)

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
        self.require_writable()
        # flock is given back by the kernel when its holder dies, so a killed run never blocks the next one.
        with (self.root / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def keys(self, prefix: str) -> Iterator[str]:
        for folder, subfolders, files in os.walk(self._path(prefix + "*").parent):
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
        self.bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if not self.bucket:
            raise UserError(f"store must be s3://bucket/prefix, not {uri!r}")
        self.uri = uri.rstrip("/")
        self.prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
        self.http = _http()
        self.client = _client(self.http)

    def require_writable(self) -> None:
        with self._speaking(""):
            if not self.client.bucket_exists(self.bucket):
                raise UserError(f"store {self.uri} is not usable: bucket {self.bucket!r} does not exist; create it")

    def _name(self, key: str) -> str:
        check_key(key)
        return self.prefix + key

    def read(self, key: str) -> bytes:
        return self._read(key)[0]

    def _read(self, key: str) -> tuple[bytes, str]:
        with self._speaking(key):
            response = self.client.get_object(self.bucket, self._name(key))
            try:
                return response.read(), response.headers["ETag"]
            finally:
                response.close()
                response.release_conn()

    def fetch(self, key: str, path: Path) -> None:
        with self._speaking(key), aside(path) as copy:
            self.client.fget_object(self.bucket, self._name(key), str(copy))

    def write(self, key: str, content: bytes | Path) -> None:
        with self._speaking(key):
            if isinstance(content, Path):
                self.client.fput_object(self.bucket, self._name(key), str(content))
            else:
                self.client.put_object(self.bucket, self._name(key), io.BytesIO(content), len(content))

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
        with self._speaking(key):
            url = self.client.get_presigned_url("PUT", self.bucket, self._name(key), expires=timedelta(hours=1))
            response = self.http.request("PUT", url, body=content, headers=condition)
        if response.status in (409, 412):  # 409: two conditional PUTs at once; the other one came first
            return False
        if response.status in (403, 404):
            raise UserError(f"store {self.uri} is not usable: HTTP {response.status} when writing {key}")
        if response.status != 200:
            raise StepError(f"store {self.uri} refused to write {key}: HTTP {response.status}")
        return True

    def exists(self, key: str) -> bool:
        try:
            with self._speaking(key):
                self.client.stat_object(self.bucket, self._name(key))
        except NotFound:
            return False
        return True

    def keys(self, prefix: str) -> Iterator[str]:
        with self._speaking(prefix):
            for found in self.client.list_objects(self.bucket, self._name(prefix + "*")[:-1], recursive=True):
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
            # The reason alone: the whole message has the URL, and with it the signature of a conditional PUT.
            reason = getattr(error, "reason", None) or error
            raise StepError(f"store {self.uri} cannot be reached ({reason}); see AWS_ENDPOINT_URL") from None
        except ValueError as error:  # what minio raises for an impossible bucket and for want of credentials
            raise UserError(f"store {self.uri} is not usable: {error}; see AWS_ACCESS_KEY_ID") from None


def _http() -> "PoolManager":
    """Connections that wait a minute for an answer and try five times, for the client and for conditional PUTs."""
    import certifi
    from urllib3 import PoolManager, Retry

    return PoolManager(
        timeout=60,
        retries=Retry(total=5, backoff_factor=0.2, status_forcelist=(500, 502, 503, 504)),
        ca_certs=os.environ.get("SSL_CERT_FILE") or certifi.where(),
    )


def _client(http: "PoolManager") -> "Minio":
    from minio import Minio
    from minio.credentials.providers import AWSConfigProvider, ChainedProvider, EnvAWSProvider, IamAwsProvider

    endpoint = urlsplit(os.environ.get("AWS_ENDPOINT_URL", "https://s3.amazonaws.com"))
    if endpoint.scheme not in ("http", "https") or not endpoint.netloc:
        raise UserError(f"AWS_ENDPOINT_URL must be http(s)://host:port, not {endpoint.geturl()!r}")
    return Minio(
        endpoint=endpoint.netloc,
        secure=endpoint.scheme == "https",
        http_client=http,
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
        credentials=ChainedProvider([EnvAWSProvider(), AWSConfigProvider(), IamAwsProvider()]),
    )
