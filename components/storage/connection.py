"""How an S3 server is reached: its address and style, certificates, timeouts, and how often a request is repeated."""

import logging
import os
import random
from collections.abc import Callable
from pathlib import Path
from ssl import SSLCertVerificationError
from types import TracebackType
from typing import Any, Self
from urllib.parse import SplitResult, urlsplit

import certifi
from minio import Minio
from minio.credentials.providers import Provider
from urllib3 import BaseHTTPResponse, PoolManager, Retry, Timeout
from urllib3.exceptions import MaxRetryError, SSLError

from components.step import UserError, choose
from components.storage.proxy import pool_for

ATTEMPTS = 7
"""At one request. With the pauses between them a store may be away for half a minute."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 16.0
"""Seconds; each is twice the one before."""

CONNECT_SECONDS, READ_SECONDS = 10.0, 60.0

PASSING = (409, 429, 500, 502, 503, 504)
"""Answers that another attempt may not get; 409: another conditional PUT is under way, 503: also S3's SlowDown."""

IDLE_CONNECTIONS = 32
"""That are kept for later; one more for each thread beyond is made and closed."""

AWS = "amazonaws.com"

# What urllib3 says of a request that it repeats has the URL, and in that of a web identity is the token.
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


def pause(failures: int) -> float:
    """Seconds to wait after that many failures; at random, so that many who failed together do not come back so."""
    return random.uniform(0.5, 1) * min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 10))


class Patience(Retry):
    """Repeats what may pass, whatever the method: of the requests that a store makes none does harm twice."""

    @classmethod
    def usual(cls) -> Self:
        """As often as this module says."""
        return cls(
            total=ATTEMPTS - 1,
            allowed_methods=None,
            status_forcelist=PASSING,
            raise_on_status=False,
            retry_after_max=int(LONGEST_PAUSE),
        )

    def get_backoff_time(self) -> float:
        return pause(len(self.history))

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: Any = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        if isinstance(error, SSLError) and error.args and isinstance(error.args[0], SSLCertVerificationError):
            raise MaxRetryError(_pool, str(url), error)  # which no patience mends
        return super().increment(method, url, response, error, _pool, _stacktrace)


def pool(url: str) -> PoolManager:
    """Connections to a server. Raises UserError where the file of certificate authorities is missing."""
    variable = next((name for name in ("AWS_CA_BUNDLE", "SSL_CERT_FILE") if os.environ.get(name)), None)
    bundle = os.environ[variable] if variable else certifi.where()
    if not Path(bundle).is_file():
        raise UserError(f"{variable} must be a file of certificates, not {bundle!r}")
    return pool_for(
        url,
        timeout=Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
        retries=Patience.usual(),
        maxsize=IDLE_CONNECTIONS,
        ca_certs=bundle,
    )


def connect(http: PoolManager, identity: Provider) -> Minio:
    """A client. Raises UserError where a variable has an impossible value."""
    url = endpoint()
    try:
        client = Minio(
            endpoint=url.netloc + url.path.rstrip("/"),
            secure=url.scheme == "https",
            http_client=http,
            region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
            credentials=identity,
        )
    except ValueError as error:
        raise UserError(f"AWS_ENDPOINT_URL or AWS_REGION cannot be used: {error}") from None
    style = choose("AWS_S3_ADDRESSING_STYLE", os.environ.get("AWS_S3_ADDRESSING_STYLE") or "auto", tuple(STYLES))
    STYLES[style](client)
    return client


STYLES: dict[str, Callable[[Minio], object]] = {
    "auto": lambda client: client,
    "path": Minio.disable_virtual_style_endpoint,
    "virtual": Minio.enable_virtual_style_endpoint,
}
"""Where the bucket's name goes: into the path, or before the host; automatically the host for AWS alone."""


def endpoint() -> SplitResult:
    """The store's URL. Raises UserError where it is none."""
    value = os.environ.get("AWS_ENDPOINT_URL", "https://s3.amazonaws.com")
    url = urlsplit(value)
    if url.scheme not in ("http", "https") or not url.netloc or "@" in value:
        shown = "one with a password" if "@" in value else repr(value)
        raise UserError(f"AWS_ENDPOINT_URL must be http(s)://host:port, not {shown}")
    return url


def sts() -> str | None:
    """Who exchanges a web identity for credentials; None: AWS. A store that is not AWS, as MinIO, does so itself."""
    own = endpoint()
    is_aws = (own.hostname or "").endswith((AWS, AWS + ".cn"))
    return os.environ.get("AWS_ENDPOINT_URL_STS") or (None if is_aws else own.geturl())
