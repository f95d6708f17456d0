"""An HTTP proxy on loopback that keeps a log of what it was asked for."""

import http.client
import select
import socket
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

from tests.servers.serving import Serving


class Proxy(Serving):
    """Passes on what it is asked for, between `with` and its end."""

    def __init__(self) -> None:
        self.log: list[str] = []
        """Such as `GET http://host:port/path`, or `CONNECT host:port` for what is encrypted."""
        self.authorization: set[str | None] = set()
        """Who was said to ask."""
        super().__init__(self._handler())
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.host}"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def parse_request(self) -> bool:
                parsed = super().parse_request()
                if parsed:
                    proxy.log.append(f"{self.command} {self.path}")
                    proxy.authorization.add(self.headers.get("Proxy-Authorization"))
                return parsed

            def do_CONNECT(self) -> None:
                host, _, port = self.path.rpartition(":")
                with socket.create_connection((host, int(port))) as server:
                    self.send_response_only(200)
                    self.end_headers()
                    relay(self.connection, server)

            def pass_on(self) -> None:
                asked = urlsplit(self.path)
                content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                server = http.client.HTTPConnection(asked.netloc, timeout=60)
                try:
                    path = asked._replace(scheme="", netloc="").geturl()
                    server.request(self.command, path, content, dict(self.headers.items()))
                    answer = server.getresponse()
                    self.send_response_only(answer.status)
                    for name, value in answer.getheaders():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(answer.read())
                finally:
                    server.close()

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = pass_on

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        return Handler


def relay(client: socket.socket, server: socket.socket) -> None:
    """Passes on what either says, until one of them has said all."""
    other = {client: server, server: client}
    while True:
        for speaker in select.select([client, server], [], [])[0]:
            if not (said := speaker.recv(2**16)):
                return
            other[speaker].sendall(said)
