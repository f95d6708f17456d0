"""An HTTP server on loopback that keeps a log of its requests and can be told to fail."""

import itertools
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

from tests.servers.serving import Serving


@dataclass
class Request:
    """What came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: Message
    content: bytes
    status: int = 0
    """Of the answer; 0 where none was given."""

    def json(self) -> Any:
        return json.loads(self.content)


@dataclass
class Reply:
    """What goes out: `content` as JSON unless it is text, or an iterator of text, which goes out as it comes."""

    status: int
    content: Any
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose method and path match."""

    times: int
    method: str
    path: str
    reply: Reply | None = None
    drop: Literal["", "before", "after"] = ""
    """The connection breaks before, or after, the request has its effect."""
    seconds: float = 0.0
    barrier: threading.Barrier | None = None

    def meets(self, request: Request) -> bool:
        return self.times > 0 and self.method in ("", request.method) and bool(re.search(self.path, request.path))


class Loopback(Serving):
    """Serves `answer` on a free port of loopback, in threads of its own, between `with` and its end."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.log: list[Request] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        self.skew = 0.0
        """Seconds by which the server's clock, the header `Date`, is ahead."""
        super().__init__(self._handler(), tls)
        self._connections: set[socket.socket] = set()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    def answer(self, request: Request) -> Reply:
        """What the server is."""
        raise NotImplementedError

    def fail(self, status: int, content: Any = "", *, times: int = 1, method: str = "", path: str = "") -> None:
        """The next requests get this answer and have no effect; by default without a word, as from a proxy."""
        self.faults.append(Fault(times, method, path, Reply(status, content)))

    def drop(self, when: Literal["before", "after"], *, times: int = 1, method: str = "", path: str = "") -> None:
        """The connection of the next requests breaks before, or after, they have had their effect."""
        self.faults.append(Fault(times, method, path, drop=when))

    def delay(self, seconds: float, *, times: int = 1_000_000, method: str = "", path: str = "") -> None:
        """The next requests take that much longer."""
        self.faults.append(Fault(times, method, path, seconds=seconds))

    def gather(self, requests: int, *, method: str = "", path: str = "") -> None:
        """The next requests wait for each other, so that none of them sees what another does afterwards."""
        self.faults.append(Fault(requests, method, path, barrier=threading.Barrier(requests, timeout=60)))

    @contextmanager
    def counted(self) -> Iterator[list[Request]]:
        """The requests that come in meanwhile."""
        start, seen = len(self.log), list[Request]()
        yield seen
        seen.extend(self.log[start:])

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        for connection in list(self._connections):
            close(connection)

    def exchange(self, request: Request) -> Reply | None:
        """The answer to a request, unless a fault comes in between; None where the connection shall break."""
        with self.lock:
            self.log.append(request)
            fault = next((fault for fault in self.faults if fault.meets(request)), None)
            if fault:
                fault.times -= 1
        if fault and fault.seconds:
            time.sleep(fault.seconds)
        if fault and fault.barrier:
            reply = self.answer(request)
            fault.barrier.wait()
            return reply
        if fault and fault.drop == "before":
            return None
        if fault and fault.reply:
            return fault.reply
        reply = self.answer(request)
        return None if fault and fault.drop == "after" else reply

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                server._connections.add(self.connection)

            def finish(self) -> None:
                server._connections.discard(self.connection)
                super().finish()

            def handle_any(self) -> None:
                parts = urlsplit(self.path)
                content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                query = dict(parse_qsl(parts.query, keep_blank_values=True))
                request = Request(self.command, parts.path, query, self.headers, content)
                reply = server.exchange(request)
                if reply is None:
                    self.close_connection = True
                    close(self.connection)
                    return
                request.status = reply.status
                self.write(reply)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

            def write(self, reply: Reply) -> None:
                if isinstance(reply.content, Iterator):
                    self.stream(reply)
                    return
                is_text = isinstance(reply.content, str)
                content = (reply.content if is_text else json.dumps(reply.content)).encode()
                html = is_text and content.lstrip().startswith(b"<")
                kind = "text/html" if html else "text/plain" if is_text else "application/json"
                self.send_response(reply.status)
                for name, value in {"Content-Type": kind, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def stream(self, reply: Reply) -> None:
                self.send_response(reply.status)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for text in itertools.chain(reply.content, [""]):
                    content = text.encode()
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))

            def date_time_string(self, timestamp: float | None = None) -> str:
                return super().date_time_string(timestamp or time.time() + server.skew)

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except (OSError, ValueError):  # the client, or a fault, has closed the connection
                    self.close_connection = True

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        return Handler


def close(connection: socket.socket) -> None:
    """Ends a connection at once, whoever is reading from it."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    finally:
        connection.close()
