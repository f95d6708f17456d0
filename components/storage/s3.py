"""A store in an S3 bucket."""

import io
import mimetypes
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast
from uuid import uuid4

from minio.error import InvalidResponseError, S3Error, ServerError
from minio.helpers import ObjectWriteResult
from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError, ProxyError, SSLError

from components.step import StepError, UserError
from components.storage import claims, connection
from components.storage.identity import Identity
from components.storage.store import (
    COPIED_AT_ONCE,
    NO_KEY,
    NotFound,
    Object,
    Seekable,
    changed,
    check_key,
    is_key,
    landing,
    too_short,
)

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

T = TypeVar("T")

READ_AHEAD = 2**20
"""Bytes that a file over an object reads at once at least."""

WRITERS = 8
"""How many try at once whether conditions hold. SeaweedFS before 4.17, and so the one of Kubeflow Pipelines 2.17, looks
at a condition before it takes the content in, and lets several win (seaweedfs issue 8800)."""

TRIES = 3
"""How often they do; a store where they win by turns may be lucky once."""

CLAIMED = "x-amz-meta-claimed"
"""The header of an object that is a copy: what its key is stands in its claims."""

WRITER = "x-amz-meta-writer"
"""The header by which a writer knows its own object again, when the answer to its PUT was lost."""

REFUSALS = {
    "NoSuchBucket": "create it",
    "AccessDenied": "allow it to the identity of {source}",
    "BadRequest": "the credentials of {source} may have expired",  # minio's word for 400 to a HEAD, which says no more
    "InvalidAccessKeyId": "see {source}",
    "SignatureDoesNotMatch": "see {source}",
    "ExpiredToken": "the credentials of {source} have expired; put new ones there",
    "InvalidToken": "the token of {source} is not valid; put a new one there",
    "RequestTimeTooSkewed": "set this machine's clock",
    "AuthorizationHeaderMalformed": "see AWS_REGION",
    "PermanentRedirect": "see AWS_REGION",
}
"""What the user has to mend, by S3's code, and how."""

RENEWED_FOR = (
    "AccessDenied",
    "BadRequest",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
)
"""What newer credentials may mend."""


class S3Store:
    """A store in an S3 bucket: MinIO, SeaweedFS, AWS, Ceph; docs/storage.md names the variables that it reads.

    A request that fails in passing is repeated, a download goes on where it broke off, and both end with one sentence
    when the patience of connection.py does. Like minio's client it may be shared by threads but not by processes.
    """

    def __init__(self, uri: str) -> None:
        self.bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if not self.bucket:
            raise UserError(f"store must be s3://bucket/prefix, not {uri!r}")
        self.uri = uri.rstrip("/")
        self.prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
        self.http = connection.pool(connection.endpoint().geturl())
        self.identity = Identity(connection.sts())
        self.client = connection.connect(self.http, self.identity)
        self._lock = threading.Lock()
        self._honours: bool | None = None

    def require_writable(self) -> None:
        if not self._ask("", lambda: self.client.bucket_exists(self.bucket)):
            raise UserError(f"store {self.uri} is not usable: bucket {self.bucket!r} does not exist; create it")
        self._put(f"{self.prefix}.conditions/writable", b"")

    def _name(self, key: str) -> str:
        check_key(key)
        return self.prefix + key

    # Reading.

    def read(self, key: str, start: int = 0, length: int | None = None, version: str | None = None) -> bytes:
        content = io.BytesIO()
        headers = self._copy(self._name(key), content, start, length, version)
        if CLAIMED in headers and not start and length is None:
            generation, claimed = claims.latest(self._room(key))
            return (claimed or b"") if generation else content.getvalue()
        return content.getvalue()

    def open(self, key: str, version: str | None = None) -> BinaryIO:
        return io.BufferedReader(_Ranges(self, self._stat(key, version)), READ_AHEAD)

    def fetch(self, key: str, path: Path) -> None:
        with landing(path) as file:
            self._copy(self._name(key), file)

    def exists(self, key: str) -> bool:
        try:
            self._stat(key)
        except NotFound:
            return False
        return True

    def stat(self, key: str) -> Object:
        return self._stat(key)

    def _stat(self, key: str, version: str | None = None) -> Object:
        found = self._head(self._name(key), version)
        return Object(key, int(found["Content-Length"]), _version(found))

    def _head(self, name: str, version: str | None = None) -> Mapping[str, str]:
        headers = dict(_if_match(version))
        found = self._ask(name, lambda: self.client.stat_object(self.bucket, name, extra_headers=dict(headers)))
        return cast(Mapping[str, str], found.metadata)

    def _copy(
        self, name: str, file: BinaryIO, start: int = 0, length: int | None = None, version: str | None = None
    ) -> Mapping[str, str]:
        """Copies a part of an object and gives the answer's headers.

        Where a connection breaks it goes on from there, if the object is still the same. Attempts that bring nothing
        are counted: a large object may need more than a small one.
        """
        headers: Mapping[str, str] = {}
        done = failures = 0
        while length is None or done < length:
            response = self._get(name, start + done, None if length is None else length - done, version)
            headers = response.headers
            version, length = _version(headers), done + _length(headers)
            try:
                for piece in response.stream(COPIED_AT_ONCE, decode_content=False):
                    file.write(piece)
                    done, failures = done + len(piece), 0
            except HTTPError:
                failures += 1
                if failures == connection.ATTEMPTS:
                    with self._speaking(name):
                        raise
                time.sleep(connection.pause(failures))
            finally:
                _leave(response)
        return headers

    def _get(self, name: str, start: int, length: int | None, version: str | None) -> BaseHTTPResponse:
        """The answer to a GET; it has exactly the bytes that are asked for."""
        headers = dict(_if_match(version))
        ranged = start > 0 or length is not None
        if ranged:
            headers["Range"] = f"bytes={start}-{'' if length is None else start + length - 1}"
        response = self._ask(name, lambda: self.client.get_object(self.bucket, name, request_headers=dict(headers)))
        if ranged and response.status != 206:
            _leave(response)
            raise StepError(f"store {self.uri} does not know the header Range, by which a part of an object is read")
        if length not in (None, _length(response.headers)):
            _leave(response)
            raise too_short(self._key(name), self.uri)
        return response

    # Listing.

    def objects(self, prefix: str, passed_over: Counter[str] | None = None) -> Iterator[Object]:
        start, last = self._name(prefix + "*")[:-1], None
        while True:
            with self._speaking(start):
                used = self.identity.retrieve()
                try:
                    for found in self.client.list_objects(self.bucket, start, recursive=True, start_after=last):
                        last = str(found.object_name)
                        if is_key(self._key(last)):
                            yield Object(self._key(last), found.size or 0, found.etag or "")
                        elif passed_over is not None and not last.endswith("/"):
                            passed_over[NO_KEY] += 1
                    return
                except S3Error as error:
                    if error.code not in RENEWED_FOR or not self.identity.renews(used):
                        raise

    def keys(self, prefix: str) -> Iterator[str]:
        return (found.key for found in self.objects(prefix))

    def _key(self, name: str) -> str:
        return name.removeprefix(self.prefix)

    # Writing.

    def write(self, key: str, content: bytes | Path) -> None:
        name = self._name(key)
        if isinstance(content, Path):
            self._send(name, lambda: self.client.fput_object(self.bucket, name, str(content), _content_type(name)))
        else:
            self._put(name, content)

    def _put(self, name: str, content: bytes, metadata: dict[str, str | list[str] | tuple[str]] | None = None) -> None:
        def put() -> ObjectWriteResult:
            data = io.BytesIO(content)
            return self.client.put_object(self.bucket, name, data, len(content), _content_type(name), metadata=metadata)

        self._send(name, put)

    def _send(self, name: str, put: Callable[[], ObjectWriteResult]) -> None:
        """What goes up in parts where it is large; once more as a whole where they could not be put together."""

        def send() -> None:
            for failures in range(connection.ATTEMPTS):
                if failures:
                    time.sleep(connection.pause(failures))
                try:
                    if put().etag:
                        return  # without one it was an error that S3 reports with HTTP 200, which minio overlooks
                except S3Error as error:
                    if error.code != "NoSuchUpload":  # they were, or never will be: the answer was lost
                        raise
            raise StepError(f"store {self.uri} could not put the parts of {self._key(name)} together")

        self._ask(name, send)

    def remove(self, key: str) -> None:
        name = self._name(key)
        self._ask(name, lambda: self.client.remove_object(self.bucket, name))

    def create(self, key: str, content: bytes) -> bool:
        if self.honours_conditions():
            return self._put_if(self._name(key), content, {"If-None-Match": "*"})
        return self.swap(key, None, content)

    def swap(self, key: str, old: bytes | None, new: bytes) -> bool:
        honoured = self.honours_conditions()
        current, headers = self._current(self._name(key))
        if CLAIMED in headers or not honoured:
            return self._claim(key, current, old, new)
        if current != old:
            return False
        condition = {"If-None-Match": "*"} if old is None else _if_match(_version(headers))
        return self._put_if(self._name(key), new, condition)

    def _content(self, name: str) -> bytes:
        content = io.BytesIO()
        self._copy(name, content)
        return content.getvalue()

    def _current(self, name: str) -> tuple[bytes | None, Mapping[str, str]]:
        content = io.BytesIO()
        try:
            headers = self._copy(name, content)
        except NotFound:
            return None, {}
        return content.getvalue(), headers

    def _put_if(self, name: str, content: bytes, condition: Mapping[str, str]) -> bool:
        """PUT under a condition (RFC 9110, section 13), for which minio's public methods have no place."""
        writer = uuid4().hex

        def put() -> bool:
            headers = {**condition, WRITER: writer}
            try:
                self.client._execute("PUT", self.bucket, name, body=content, headers=dict(headers))
            except S3Error as error:
                if error.code == "NoSuchKey":  # what was to be replaced is gone
                    return False
                if error.code != "PreconditionFailed":
                    raise
                # An attempt whose answer was lost may have been the one that won.
                repeated = error.response.retries is not None and bool(error.response.retries.history)
                return repeated and self._head(name).get(WRITER) == writer
            return True

        return self._ask(name, put)

    # Conditions.

    def honours_conditions(self) -> bool:
        """Whether of several conditional PUTs at once only one wins; tried before the first one that matters.

        Where they do not, claims.py settles who writes. That a store was found out is written there, for all to see.
        """
        with self._lock:
            if self._honours is None:
                self._honours = self._holds()
            return self._honours

    def _holds(self) -> bool:
        probe, verdict = f"{self.prefix}.conditions/probe", f"{self.prefix}.conditions/ignored"
        if self._current(verdict)[0] is not None:
            return False
        try:
            self._put_if(probe, b"", {"If-None-Match": "*"})
            honoured = not self._put_if(probe, b"", {"If-None-Match": "*"})
            honoured = honoured and all(self._race(probe) <= 1 for _ in range(TRIES))
        except _Unknown:
            honoured = False
        if not honoured:
            self._put(verdict, b"This store ignores the conditions of a PUT, or does not apply them at once.\n")
        return honoured

    def _race(self, name: str) -> int:
        """How many of several win who replace the same version. None may: another process tries just now, too."""
        condition = _if_match(_version(self._head(name)))
        with ThreadPoolExecutor(WRITERS) as writers:  # the contents differ, or the version would stay the same
            return sum(writers.map(lambda _: self._put_if(name, uuid4().bytes, condition), range(WRITERS)))

    def _room(self, key: str) -> claims.Room:
        folder = f"{self.prefix}.claims/{key}/.generations/"  # no key has such a name in it
        return claims.Room(
            put=lambda name, content: self._put(folder + name, content),
            get=lambda name: self._content(folder + name),
            names=lambda start: self._names(folder, start),
        )

    def _names(self, folder: str, start: str) -> Iterator[str]:
        with self._speaking(folder):
            for found in self.client.list_objects(self.bucket, folder + start, recursive=True):
                yield str(found.object_name).removeprefix(folder)

    def _claim(self, key: str, current: bytes | None, old: bytes | None, new: bytes) -> bool:
        """The same as `swap` without conditions. The object itself becomes a copy, by which others find the claims."""
        room = self._room(key)
        won = claims.swap(room, current, old, new)
        generation, content = claims.latest(room)
        if generation:
            self._put(self._name(key), content or b"", {CLAIMED: str(generation)})
        return won

    # What goes wrong.

    def _ask(self, name: str, request: Callable[[], T]) -> T:
        """The answer to a request, once more with newer credentials if those at hand are refused."""
        with self._speaking(name):
            used = self.identity.retrieve()
            try:
                return request()
            except S3Error as error:
                if error.code not in RENEWED_FOR or not self.identity.renews(used):
                    raise
                return request()

    @contextmanager
    def _speaking(self, name: str) -> Iterator[None]:
        """Turns what the client raises into one sentence; no URL is in it, and so no signature."""
        try:
            yield
        except S3Error as error:
            raise self._sentence(error, self._key(name)) from None
        except ServerError as error:
            if error.status_code == 412:  # without a word, as answer to a HEAD
                raise changed(self._key(name), self.uri) from None
            raise StepError(f"store {self.uri} failed on {self._key(name)}: HTTP {error.status_code}") from None
        except InvalidResponseError as error:
            said = str(error).partition(", Body:")[0]
            raise StepError(f"store {self.uri} failed on {self._key(name)}: {said}; see AWS_ENDPOINT_URL") from None
        except HTTPError as error:
            reason = getattr(error, "reason", None) or error
            variable = "AWS_CA_BUNDLE" if isinstance(reason, SSLError) else "AWS_ENDPOINT_URL"
            if isinstance(reason, ProxyError):
                variable, reason = f"{connection.endpoint().scheme.upper()}_PROXY", reason.original_error
            raise StepError(f"store {self.uri} cannot be reached ({reason}); see {variable}") from None
        except ValueError as error:  # what minio raises for an impossible bucket
            raise UserError(f"store {self.uri} is not usable: {error}") from None

    def _sentence(self, error: S3Error, key: str) -> Exception:
        if error.code == "NoSuchKey":
            return NotFound(key)
        if error.code == "PreconditionFailed":
            return changed(key, self.uri)
        if error.code == "InvalidRange":
            return too_short(key, self.uri)
        if error.code == "NotImplemented":
            return _Unknown(f"store {self.uri} cannot do what {key} needs: {error.message}")
        if error.code in REFUSALS:
            way_out = REFUSALS[error.code].format(source=self.identity.source)
            return UserError(f"store {self.uri} is not usable: {error.code}: {error.message}; {way_out}")
        return StepError(f"store {self.uri} failed on {key}: {error.code}: {error.message}")


class _Unknown(StepError):
    """The store does not know what a request asks for."""


class _Ranges(Seekable):
    """An object as a file, each of whose reads is a ranged GET of one and the same version."""

    def __init__(self, store: S3Store, found: Object) -> None:
        super().__init__(found)
        self.store = store

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer).cast("B")
        length = max(0, min(len(view), self.found.size - self.position))
        view[:length] = self.store.read(self.found.key, self.position, length, self.found.version)
        self.position += length
        return length


def _content_type(name: str) -> str:
    """By which a browser shows a report, where it would otherwise save it."""
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def _if_match(version: str | None) -> Mapping[str, str]:
    return {} if version is None else {"If-Match": f'"{version}"'}


def _version(headers: Mapping[str, str]) -> str:
    return headers["ETag"].strip('"')


def _length(headers: Mapping[str, str]) -> int:
    return int(headers["Content-Length"])


def _leave(response: BaseHTTPResponse) -> None:
    """Gives the connection back; closes it where the answer was not read to its end."""
    response.close()
    response.release_conn()
