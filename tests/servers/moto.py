"""An S3 server on loopback whose conditional writes are atomic, as those of real stores are."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class Quiet(WSGIRequestHandler):
    """Says nothing of the requests."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


@contextmanager
def moto_server(ignoring: str = "", handler: type[WSGIRequestHandler] = Quiet) -> Iterator[str]:
    """The URL of the server; `ignoring` names a request header that it does not see."""
    moto = DomainDispatcherApplication(create_backend_app)
    alone = threading.Lock()

    def application(environ: Any, start_response: Any) -> Any:
        environ.pop("HTTP_" + ignoring.upper().replace("-", "_"), None)
        if environ["REQUEST_METHOD"] == "PUT" and {"HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"} & environ.keys():
            # Moto looks at the condition, and only then takes the content: two writers at once could both succeed.
            with alone:
                return list(moto(environ, start_response))
        return moto(environ, start_response)

    serving = make_server("127.0.0.1", 0, application, threaded=True, request_handler=handler)
    thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{serving.server_port}"
    finally:
        serving.shutdown()
        thread.join()
        serving.server_close()
