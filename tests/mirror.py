"""An HTTP server on loopback that behaves as badly as real ones do."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast


class Mirror(ThreadingHTTPServer):
    """Serves `files` by path; the next answers break off after so many bytes as `breaks` lists, one an answer."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.breaks: list[int] = []
        self.ranges = True
        self.seconds_to_answer = 0.0
        self.asked: list[tuple[str, int]] = []
        """The requests so far: path, and where the range that was asked for starts."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        mirror = cast(Mirror, self.server)
        start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        mirror.asked.append((self.path, start))
        time.sleep(mirror.seconds_to_answer)
        if self.path not in mirror.files:
            return self.send_error(404)
        content = mirror.files[self.path]
        if start >= len(content):
            return self.send_error(416)
        content = content[start if mirror.ranges else 0 :]
        self.send_response(206 if mirror.ranges else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: mirror.breaks.pop(0)] if mirror.breaks else content)
        return None

    def log_message(self, format: str, *values: object) -> None:
        pass


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Mirror]:
    """A mirror that answers as long as the block runs."""
    with Mirror(files) as mirror:
        thread = threading.Thread(target=mirror.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield mirror
        finally:
            mirror.shutdown()
            thread.join()
