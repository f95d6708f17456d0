"""An HTTP proxy on loopback that keeps a log of what it was asked for."""

import http.client
import select
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit


class Proxy:
    """Passes on what it is asked for, between `with` and its end."""

    def __init__(self) -> None:
        self.log: list[str] = []
        """Such as `GET http://host:port/path`, or `CONNECT host:port` for what is encrypted."""
        self.authorization: set[str | None] = set()
        """Who was said to ask."""
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.host = f"127.0.0.1:{self._http.server_address[1]}"
        self.url = f"http://{self.host}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

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
