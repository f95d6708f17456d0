"""One HTTP exchange with Kubeflow Pipelines: credentials, TLS, retries, and every failure as a sentence.

Why not the generated client's own transport: it retries what is not safe to send twice, never reads a token again, and
its errors are dumps of headers.
"""

import json
import random
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
    SSLError,
)

from components.step import StepError, UserError
from components.storage.proxy import pool_for

if TYPE_CHECKING:
    from pipelines.forward import Forward

TIMEOUT = urllib3.Timeout(connect=5, read=30)
PAUSES = (0.2, 0.4, 0.8, 1.6)
"""Seconds between the attempts of a request that may be sent again."""
SHORTEST_SECRET = 6
LONGEST_PAUSE = 30.0
"""Seconds that a server may ask us to wait."""


class ServerError(StepError):
    """The server failed, in one sentence."""


class Unreachable(ServerError):
    """No answer of Kubeflow Pipelines came, in one sentence."""

    code = 5

    def __init__(self, message: str, *, again: bool = True, lost: bool = False, pause: float = 0.0) -> None:
        super().__init__(message)
        self.again = again
        """Whether trying again may help."""
        self.lost = lost
        """Whether the request may have had its effect all the same."""
        self.pause = pause
        """Seconds that the server asks to wait."""


class NotFound(UserError):
    """What was asked for does not exist."""


class Conflict(ServerError):
    """What was to be created exists already."""


def no_token() -> str | None:
    """The token of a connection that needs none."""
    return None


@dataclass(kw_only=True)
class Connection:
    """How Kubeflow Pipelines is reached, and as whom."""

    host: str = ""
    """The URL before `/apis/v2beta1`, such as `https://kf.example.com/pipeline`; '' where `forward` leads there."""
    namespace: str = ""
    """The namespace that runs and experiments belong to; '' in single-user mode."""
    token: Callable[[], str | None] = field(default=no_token, repr=False)
    """The bearer token, read again for each request: Kubernetes rotates it."""
    cookie: str = field(default="", repr=False)
    ca: Path | None = None
    """The certificates to trust in place of the system's, PEM."""
    context: str = ""
    """The kubeconfig's context; '' for its current one."""
    kubernetes: bool = False
    """Whether `context` leads to the same cluster; a `host` may be anywhere."""
    forward: "Forward | None" = None
    ui: str = ""
    """Where people see Kubeflow, such as `https://kf.example.com/pipeline`; '' where it is not known."""
    pauses: tuple[float, ...] = PAUSES
    requests: int = 0
    """HTTP requests made so far, every attempt counted."""

    def __post_init__(self) -> None:
        # Reading the system's certificates takes longer than a request.
        trusted = trust(self.ca) if self.ca or self.host.startswith("https:") else None
        self._pool = pool_for(self.host, ssl_context=trusted, retries=False, timeout=TIMEOUT, maxsize=8)

    @property
    def where(self) -> str:
        """The server as messages name it."""
        return f"Kubeflow Pipelines at {self.forward.name if self.forward else self.host}"

    def page(self, path: str) -> str:
        """A page of the Kubeflow UI, such as `runs/details/1f`; '' where only the cluster's inside is known."""
        parts = urlsplit(self.ui)
        if not self.ui or parts.port == 8888 or (parts.hostname or "").endswith((".svc", ".svc.cluster.local")):
            return ""
        if parts.path == "/pipeline":  # behind Kubeflow's dashboard, whose frame it needs to know the namespace
            return f"{parts.scheme}://{parts.netloc}/_/pipeline/?ns={self.namespace}#/{path}"
        return f"{self.ui}/#/{path}"

    def close(self) -> None:
        """Closes what is open."""
        self._pool.clear()
        if self.forward:
            self.forward.close()

    def call(
        self,
        method: str,
        path: str,
        doing: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        upload: tuple[str, bytes] | None = None,
        repeatable: bool | None = None,
    ) -> dict[str, Any]:
        """The JSON object that the server answers.

        `doing` completes the sentence "cannot ...". A request that may have had its effect is sent again only if it is
        `repeatable`, as every GET is. Raises UserError, ServerError or Unreachable.
        """
        again = method == "GET" if repeatable is None else repeatable
        for pause in self.pauses:
            try:
                return self._exchange(method, path, doing, query or {}, body, upload)
            except Unreachable as error:
                if not error.again or (error.lost and not again):
                    raise
                time.sleep(max(error.pause, pause * random.uniform(0.5, 1.0)))
        return self._exchange(method, path, doing, query or {}, body, upload)

    def _exchange(
        self,
        method: str,
        path: str,
        doing: str,
        query: Mapping[str, Any],
        body: Any,
        upload: tuple[str, bytes] | None,
    ) -> dict[str, Any]:
        given = {key: value for key, value in query.items() if value not in (None, "")}
        token = self.token()
        response = self._request(
            method,
            path + ("?" + urlencode(given) if given else ""),
            doing,
            headers=self._headers(token, body),
            body=None if body is None else json.dumps(body).encode(),
            fields=None if upload is None else {"uploadfile": upload},
        )
        return self._answer(response, doing, token)

    def stream(self, path: str, doing: str) -> Iterator[bytes]:
        """The bytes that the server sends, as they come; none where it knows no such path, as the UI's proxy."""
        headers = self._headers(self.token(), None)
        response = self._request("GET", path, doing, headers=headers, preload_content=False)
        try:
            if response.status == 200 and "html" not in response.headers.get("Content-Type", ""):
                yield from response.stream(2**16)
            response.release_conn()
        except HTTPError as error:
            raise self._broken(error, doing) from None

    def _request(self, method: str, path: str, doing: str, **given: Any) -> urllib3.BaseHTTPResponse:
        url = (self.forward.url() if self.forward else self.host) + path
        self.requests += 1
        try:
            # A redirection leads to a login page; no token goes there.
            return self._pool.request(method, url, redirect=False, **given)
        except HTTPError as error:
            if self.forward:
                self.forward.close()  # the pod behind it may have gone; the next attempt opens another way
            raise self._broken(error, doing) from None

    def _headers(self, token: str | None, body: Any) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": "retrain"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if token:
            return headers | {"Authorization": f"Bearer {token}"}
        return headers | ({"Cookie": self.cookie} if self.cookie else {})

    def _broken(self, error: HTTPError, doing: str) -> Unreachable:
        """What to say where no answer came."""
        cannot = f"cannot {doing}: {self.where}"
        if isinstance(error, NameResolutionError):
            return Unreachable(f"{cannot} has a host name that is not known here; check --host", again=False)
        if isinstance(error, ProxyError):
            proxy = f"{self.host.partition(':')[0].upper()}_PROXY"
            return Unreachable(f"{cannot} is not reached through the proxy that {proxy} names; check it, or NO_PROXY")
        if isinstance(error, SSLError):
            return Unreachable(f"{cannot} {distrust(str(error))}", again=False)
        if isinstance(error, NewConnectionError):
            reason = getattr(error.__cause__, "strerror", None) or "refused"
            return Unreachable(f"{cannot} takes no connections ({reason}); check the host and the port of --host")
        if isinstance(error, ConnectTimeoutError):
            return Unreachable(f"{cannot} does not answer; check --host, and whether a firewall is in between")
        return Unreachable(f"{cannot} broke the connection off, or took too long; try again", lost=True)

    def _answer(self, response: urllib3.BaseHTTPResponse, doing: str, token: str | None) -> dict[str, Any]:
        content = parsed(response.data)
        page = "html" in response.headers.get("Content-Type", "") or response.data.lstrip()[:1] == b"<"
        if 300 <= response.status < 400 or (page and response.status in (200, 401, 403)) or response.status == 401:
            raise UserError(f"cannot {doing}: {self.where} asks for a login: {self._login(token)}")
        if response.status < 300 and content is not None:
            return content
        if response.status < 300 or (response.status == 404 and content is None):
            raise UserError(f"cannot {doing}: {self.where} is something else than Kubeflow Pipelines; check --host")
        text = self._redacted(response.data.decode(errors="replace"), token)
        raise self._refusal(response, doing, parsed(text) or {}, text)

    def _redacted(self, text: str, token: str | None) -> str:
        """What the server says, without the secrets that it may repeat; a short one would be any word."""
        for secret in (token or "", *(pair.partition("=")[2] for pair in self.cookie.split(";"))):
            text = text.replace(secret, "***") if len(secret) >= SHORTEST_SECRET else text
        return text

    def _login(self, token: str | None) -> str:
        if not token and not self.cookie:
            return (
                "no credentials were given; set KF_PIPELINES_TOKEN, for example to the output of `kubectl create token "
                "SERVICE_ACCOUNT --audience pipelines.kubeflow.org`, or KF_PIPELINES_COOKIE to a session's cookie"
            )
        kind = "token" if token else "cookie"
        return f"the {kind} has expired or is not meant for it; get a new one"

    def _refusal(
        self, response: urllib3.BaseHTTPResponse, doing: str, content: Mapping[str, Any], text: str
    ) -> UserError | ServerError:
        """The error for an answer that is none."""
        status, message, cannot = response.status, said(content, text), f"cannot {doing}"
        if status == 403:
            return UserError(f"{cannot}: {rights(message)}; ask for the right, or check --namespace")
        if status == 404:
            return NotFound(f"{cannot}: {message}")
        if status == 409 and content.get("code") != ABORTED:
            return Conflict(f"{cannot}: it exists already: {message}")
        if status == 429:
            why = f"{cannot}: {self.where} is too busy (429); try again later"
            return Unreachable(why, pause=seconds(response.headers.get("Retry-After", "")))
        if status in (502, 503, 504):
            return Unreachable(f"{cannot}: {self.where} is not ready ({status}); try again later", lost=True)
        if status < 500 or mistake(text):
            return UserError(f"{cannot}: {hint(message)}")
        return ServerError(f"{cannot}: {self.where} failed ({status}): {message}; see the logs of its ml-pipeline pod")


ABORTED = 10
"""The gRPC code of KFP's NewBadRequestError, which its gateway answers as 409 too (backend/src/common/util)."""


def trust(ca: Path | None) -> ssl.SSLContext:
    """The certificates that a server is checked against; the system's where none are given."""
    try:
        return ssl.create_default_context(cafile=ca)
    except ssl.SSLError:
        raise UserError(f"--ca must be a file of PEM certificates, which {str(ca)!r} is not") from None
    except OSError as error:
        raise UserError(f"--ca {str(ca)!r} cannot be read: {error.strerror}") from None


def distrust(error: str) -> str:
    """Why TLS failed, to be said after the server's name."""
    if "CERTIFICATE_VERIFY_FAILED" in error:
        reason = re.search(r"verify failed: ([^(\n]*)", error)
        why = reason.group(1).strip() if reason else "not signed by a known authority"
        return f"has a certificate that is not trusted ({why}); give its authority with --ca"
    if "WRONG_VERSION_NUMBER" in error or "record layer failure" in error:
        return "does not speak TLS there; write http:// in --host, or another port"
    return "broke TLS off; check --host and --ca"


def parsed(data: bytes | str) -> dict[str, Any] | None:
    """The JSON object in an answer; None if it has another form."""
    try:
        content = json.loads(data)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def said(content: Mapping[str, Any], text: str) -> str:
    """What the server says went wrong, on one line: the gateway, the upload handler and proxies differ."""
    details = [detail.get("message", "") for detail in content.get("details") or () if isinstance(detail, dict)]
    short = [detail for detail in details if detail != "Internal Server Error"]  # else the chain of causes says more
    message = next(iter(short), "") or content.get("message") or content.get("error_message") or text
    line = " ".join(re.sub(r"<[^>]*>", " ", str(message)).split())
    return line if len(line) <= 400 else f"{line[:397]}..."


def seconds(retry_after: str) -> float:
    """The pause that a server asks for; 0 where it asks for none, or in another form than seconds."""
    return min(LONGEST_PAUSE, float(retry_after)) if retry_after.isdecimal() else 0.0


def rights(message: str) -> str:
    """Who may not do what, from the server's dump of its access review."""
    review = dict(re.findall(r"(Namespace|Verb|Resource):([\w.-]+)", message))
    if {"Verb", "Resource"} > review.keys():
        return f"no rights ({message})" if message else "no rights"
    user = re.search(r"User '([^']*)'", message)
    who = f"user {user.group(1)!r}" if user else "this user"
    where = (
        f" in namespace {review['Namespace']!r}, or it does not exist"
        if "Namespace" in review
        else " in all namespaces"
    )
    return f"{who} may not {review['Verb']} {review['Resource']}{where}"


def mistake(message: str) -> bool:
    """Whether an answer of 500 is the user's mistake: KFP wraps many so (apiserver/server/api_converter.go)."""
    return bool(re.search(r"invalid ?input ?error|not ?found ?error| not found|not exist", message, re.IGNORECASE))


def hint(message: str) -> str:
    """The message, with a way out where it is a known riddle."""
    if "HTTP request to an HTTPS server" in message:
        return "the server speaks TLS there; write https:// in --host"
    if message == "Failed to create a pipeline version":  # all that the upload handler ever says
        return f"{message}; most often the reason is that you may not create pipelines there, see `retrain doctor`"
    return message or "the server gives no reason"
