"""Between a client and a real S3 server: a proxy that keeps a log of the requests and can be told to fail."""

import http.client
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Literal
from urllib.parse import urlsplit

from tests.servers.serving import Serving


@dataclass
class Request:
    """What came in."""

    method: str
    path: str
    """With its query."""
    headers: dict[str, str]
    """By lowercase name."""
    content: bytes
    status: int = 0
    """Of the answer; 0 where none was given."""


@dataclass
class Reply:
    """What goes out."""

    status: int
    headers: dict[str, str]
    content: bytes


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose method and path match."""

    times: int
    method: str
    path: str
    reply: Reply | None = None
    """In place of the server's; the request has no effect."""
    broken: Literal["", "before", "after"] = ""
    """The connection is reset before, or after, the request has its effect."""
    sent: int | None = None
    """Of the answer's body, in bytes, before the connection breaks or stalls."""
    end: Literal["reset", "close"] = "reset"
    seconds: float = 0.0
    """Of silence; before the end of the body where `sent` is given, or else before the answer."""

    def meets(self, request: Request) -> bool:
        return self.times > 0 and self.method in ("", request.method) and bool(re.search(self.path, request.path))


@dataclass
class FaultyS3(Serving):
    """Serves what an S3 server answers, on a free port of loopback, between `with` and its end.

    As `virtual_host` it knows buckets by host alone, `bucket.HOST`, and refuses a request whose host has none.
    """

    upstream: str
    tls: ssl.SSLContext | None = None
    virtual_host: str = ""
    log: list[Request] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    ignored: tuple[str, ...] = ()
    """Request headers, in lowercase, that the server does not get to see, such as `if-none-match`."""
    expired: set[str] = field(default_factory=set)
    """Access keys whose requests are refused."""

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        super().__init__(self._handler(), self.tls)
        self.url = f"{'https' if self.tls else 'http'}://{self.virtual_host or '127.0.0.1'}:{self.port}"
        self._open: set[socket.socket] = set()

    def fail(self, status: int, code: str, *, times: int = 1, method: str = "", path: str = "", **headers: str) -> None:
        """The next requests get this error and have no effect: 503 SlowDown, 500 InternalError, 400 ExpiredToken."""
        reply = error(status, code)
        reply.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
        self.faults.append(Fault(times, method, path, reply))

    def answer(self, reply: Reply, *, times: int = 1, method: str = "", path: str = "") -> None:
        """The next requests get this answer and have no effect."""
        self.faults.append(Fault(times, method, path, reply))

    def drop(self, when: Literal["before", "after"], *, times: int = 1, method: str = "", path: str = "") -> None:
        """The connection of the next requests is reset before, or after, they have had their effect."""
        self.faults.append(Fault(times, method, path, broken=when))

    def cut(
        self,
        sent: int,
        end: Literal["reset", "close"] = "reset",
        *,
        times: int = 1,
        method: str = "GET",
        path: str = "",
    ) -> None:
        """Of the next answers' bodies, whose length is told as it is, only so many bytes arrive."""
        self.faults.append(Fault(times, method, path, sent=sent, end=end))

    def stall(
        self, seconds: float, sent: int | None = None, *, times: int = 1, method: str = "", path: str = ""
    ) -> None:
        """Nothing comes for so long: before the next answers, or in their bodies after so many bytes."""
        self.faults.append(Fault(times, method, path, sent=sent, seconds=seconds))

    @contextmanager
    def counted(self) -> Iterator[list[Request]]:
        """The requests that come in meanwhile."""
        start, seen = len(self.log), list[Request]()
        yield seen
        seen.extend(self.log[start:])

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        for connection in list(self._open):
            reset(connection)

    def forward(self, request: Request) -> Reply:
        """What the server behind says."""
        server = urlsplit(self.upstream)
        path = request.path
        if self.virtual_host:
            path = f"/{request.headers['host'].split('.')[0]}{path}"
        headers = {name: value for name, value in request.headers.items() if name not in (*self.ignored, "host")}
        connection = http.client.HTTPConnection(server.hostname or "", server.port, timeout=60)
        try:
            connection.request(request.method, path, request.content, headers | {"host": server.netloc})
            response = connection.getresponse()
            return Reply(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def refusal(self, request: Request) -> Reply | None:
        """The answer to who may not ask, or asks in the wrong style."""
        found = re.search(r"Credential=([^/]+)/", request.headers.get("authorization", ""))
        if found and found[1] in self.expired:
            return error(400, "ExpiredToken", "The provided token has expired.")
        if self.virtual_host and not request.headers["host"].endswith("." + self.virtual_host + f":{self.port}"):
            return error(400, "InvalidRequest", "only virtual-host style is known here")
        return None

    def exchange(self, request: Request) -> tuple[Reply | None, Fault | None]:
        """The answer, None where the connection shall break, and what shall become of it on the way."""
        with self.lock:
            self.log.append(request)
            fault = next((fault for fault in self.faults if fault.meets(request)), None)
            if fault:
                fault.times -= 1
        if fault and fault.seconds and fault.sent is None:
            time.sleep(fault.seconds)
        if fault and fault.broken == "before":
            return None, fault
        reply = (fault and fault.reply) or self.refusal(request) or self.forward(request)
        return (None if fault and fault.broken else reply), fault

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                server._open.add(self.connection)

            def finish(self) -> None:
                server._open.discard(self.connection)
                super().finish()

            def handle_any(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, self.path, headers, content)
                reply, fault = server.exchange(request)
                if reply is None:
                    self.end(reset)
                    return
                request.status = reply.status
                self.write(reply, fault.sent if fault else None)
                if fault and fault.sent is not None:
                    time.sleep(fault.seconds)
                    self.end(reset if fault.end == "reset" else close)

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

            def write(self, reply: Reply, sent: int | None) -> None:
                self.send_response_only(reply.status)
                for name, value in reply.headers.items():
                    if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                        self.send_header(name, value)
                length = str(len(reply.content))
                if self.command == "HEAD":
                    length = {name.lower(): value for name, value in reply.headers.items()}.get("content-length", "0")
                self.send_header("Content-Length", length)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(reply.content[:sent])

            def end(self, how: Callable[[socket.socket], None]) -> None:
                self.close_connection = True
                how(self.connection)

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except (OSError, ValueError):  # the client, or a fault, has closed the connection
                    self.close_connection = True

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        return Handler


def error(status: int, code: str, message: str = "as the test wants it") -> Reply:
    """An error as S3 says it."""
    content = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return Reply(status, {"Content-Type": "application/xml"}, content.encode())


def reset(connection: socket.socket) -> None:
    """Ends a connection so that who reads from it sees `Connection reset by peer`."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RD)
    except OSError:
        pass
    finally:
        connection.close()


def close(connection: socket.socket) -> None:
    """Ends a connection as at the end of what there is to say."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    finally:
        connection.close()
