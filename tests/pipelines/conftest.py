"""The loopback servers that the tests of the cluster's commands talk to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.kubeflow import Kubeflow
from pipelines.transport import Connection
from tests.servers.kfp import FakeKubeflow
from tests.servers.kubernetes import FakeKubernetes

ENVIRONMENT = (
    *("KF_PIPELINES_ENDPOINT", "KF_PIPELINES_UI_ENDPOINT", "KF_PIPELINES_SA_TOKEN_PATH"),
    *("KF_PIPELINES_TOKEN", "KF_PIPELINES_COOKIE", "KUBERNETES_SERVICE_HOST", "SSL_CERT_FILE"),
)


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The tests are nobody's: no cluster, no credentials, no kubeconfig."""
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KUBECACHEDIR", str(tmp_path / "kubectl"))
    use_kubeconfig(monkeypatch, tmp_path / "no kubeconfig")


def use_kubeconfig(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Points at a kubeconfig; the Python client reads the variable only when it is imported."""
    monkeypatch.setenv("KUBECONFIG", str(path))
    for module in ("kubernetes.config", "kubernetes.config.kube_config"):
        monkeypatch.setattr(f"{module}.KUBE_CONFIG_DEFAULT_LOCATION", str(path))


@pytest.fixture
def kubeflow_server() -> Iterator[FakeKubeflow]:
    """Kubeflow Pipelines with one user and nothing in it."""
    with FakeKubeflow() as server:
        yield server


@pytest.fixture
def kubeflow(kubeflow_server: FakeKubeflow) -> Iterator[Kubeflow]:
    """A client of `kubeflow_server` that does not wait long between attempts."""
    connection = Connection(host=kubeflow_server.url, pauses=(0.01, 0.01, 0.01))
    yield Kubeflow(connection)
    connection.close()


@pytest.fixture
def kubernetes_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeKubernetes]:
    """The Kubernetes API with nothing in it; KUBECONFIG leads there."""
    with FakeKubernetes() as server:
        use_kubeconfig(monkeypatch, server.kubeconfig(tmp_path / "kubeconfig"))
        yield server
