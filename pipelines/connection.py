"""From flags and the environment to an open connection: the host, the credentials, the namespace."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from components.step import UserError
from pipelines.forward import Forward
from pipelines.kubeflow import Kubeflow
from pipelines.transport import Connection, NotFound, ServerError, Unreachable, no_token

__all__ = ["Connection", "NotFound", "Options", "ServerError", "Unreachable", "connect"]

PROJECTED_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
"""Where a pod has its token for Kubeflow Pipelines (kfp/client/set_volume_credentials.py)."""
OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""Where a pod reads the namespace that it is in."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a user says of the cluster; what is empty is looked up."""

    host: str = ""
    namespace: str = ""
    token_file: Path | None = None
    ca: Path | None = None
    context: str = ""
    kfp_namespace: str = "kubeflow"


@contextmanager
def connect(options: Options) -> Iterator[Kubeflow]:
    """A client of Kubeflow Pipelines; nothing is sent, and no port forwarded, before its first request."""
    connection = Connection(
        host=address(options),
        namespace=options.namespace or own_namespace(),
        token=token(options),
        cookie=secret("KF_PIPELINES_COOKIE"),
        ca=options.ca,
        context=options.context,
        kubernetes=bool(options.context) or not options.host,
        forward=None if address(options) else Forward(options.kfp_namespace, options.context),
        ui=checked(os.environ.get("KF_PIPELINES_UI_ENDPOINT", ""), "KF_PIPELINES_UI_ENDPOINT") or address(options),
    )
    try:
        yield Kubeflow(connection)
    finally:
        connection.close()


def inside() -> bool:
    """Whether this is a pod."""
    return "KUBERNETES_SERVICE_HOST" in os.environ and OWN_NAMESPACE.exists()


def own_namespace() -> str:
    """The namespace of this pod; '' outside a cluster."""
    return OWN_NAMESPACE.read_text().strip() if inside() else ""


def address(options: Options) -> str:
    """The URL of Kubeflow Pipelines; '' where a port must be forwarded to it."""
    if not options.host and not options.context and inside():
        return f"http://ml-pipeline.{options.kfp_namespace}.svc.cluster.local:8888"
    return checked(options.host, "--host")


def checked(host: str, name: str) -> str:
    """A base URL without what people copy along with it from their browser."""
    if not host:
        return ""
    try:
        parts = urlsplit(host)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True) and " " not in host
    except ValueError:
        usable = False
    if not usable:
        raise UserError(f"{name} must be a URL such as https://kubeflow.example.com/pipeline, not {host!r}")
    if parts.username or parts.password:
        raise UserError(f"{name} must not hold a password; set KF_PIPELINES_TOKEN or KF_PIPELINES_COOKIE")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/apis/v2beta1')}"


def token(options: Options) -> Callable[[], str | None]:
    """What reads the bearer token: a file, named or the pod's own, or the environment."""
    path = options.token_file or (PROJECTED_TOKEN if PROJECTED_TOKEN.exists() else None)
    if path:
        return lambda: read_token(path)
    given = secret("KF_PIPELINES_TOKEN")
    return (lambda: given) if given else no_token


def secret(variable: str) -> str:
    """A secret of the environment; '' where there is none."""
    text = os.environ.get(variable, "").strip()
    if not text.isascii() or not text.isprintable():
        raise UserError(f"{variable} must be one line of ASCII, as a header of HTTP is")
    return text


def read_token(path: Path) -> str:
    """The token in a file, at this moment."""
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise UserError(f"the token file {str(path)!r} cannot be read: {reason}; check --token-file") from None
    if not text or not text.isascii() or not text.isprintable():
        raise UserError(f"the token file {str(path)!r} must hold one token and nothing else; check --token-file")
    return text
