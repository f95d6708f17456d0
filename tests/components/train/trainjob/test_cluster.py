"""The Kubernetes API is called as a pod calls it, and patiently."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes.config import incluster_config

from components.step import StepError, UserError
from components.storage import connection
from components.train.trainjob import cluster as module
from components.train.trainjob.cluster import Cluster, Refused, connect
from tests.components.train.trainjob.cluster import MAIN, NAMESPACE, own_pod
from tests.servers.certificates import make_certificate
from tests.servers.kubernetes import FakeKubernetes


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(connection, "LONGEST_PAUSE", 0.02)


@pytest.fixture
def secured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeKubernetes]:
    """A cluster over TLS that knows one service account, whose pod this process is."""
    certificate = make_certificate(tmp_path / "tls")
    (tmp_path / "token").write_text("t-1")
    (tmp_path / "namespace").write_text(f"{NAMESPACE}\n")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(certificate.path))
    monkeypatch.setattr(module, "OWN_NAMESPACE", tmp_path / "namespace")
    with FakeKubernetes(tls=certificate.server()) as server:
        server.tokens = {"t-1"}
        own_pod(server)
        monkeypatch.delenv("KUBECONFIG", raising=False)
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
        yield server


@pytest.fixture
def here(secured: FakeKubernetes) -> Iterator[Cluster]:
    found = connect()
    yield found
    found.api.close()


@pytest.mark.usefixtures("secured")
def test_a_pod_finds_its_cluster_its_namespace_and_itself(here: Cluster) -> None:
    assert here.namespace == NAMESPACE
    assert here.call("GET", here.path("pods", MAIN))["metadata"]["uid"] == "u-1"


def test_an_account_that_is_not_known_any_more_is_told(secured: FakeKubernetes, here: Cluster) -> None:
    secured.tokens = {"another"}
    with pytest.raises(UserError, match="does not know this step's service account"):
        here.call("GET", here.path("pods", MAIN))


@pytest.mark.slow
@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_may_pass_is_waited_for(status: int, secured: FakeKubernetes, here: Cluster) -> None:
    secured.fail(status, times=3)
    secured.drop("before", times=3)
    assert here.call("GET", here.path("pods", MAIN))["metadata"]["name"] == MAIN
    assert len(secured.log) == 7


def test_what_does_not_pass_is_said_in_the_servers_words(secured: FakeKubernetes, here: Cluster) -> None:
    secured.fail(422, {"kind": "Status", "message": "spec.suspend: Invalid value"})
    with pytest.raises(Refused, match=r"^spec\.suspend: Invalid value$") as refused:
        here.call("POST", here.path("trainjobs"), {"kind": "TrainJob"})
    assert refused.value.status == 422
    secured.fail(404, "404 page not found")
    with pytest.raises(Refused, match=r"^HTTP 404 Not Found$"):
        here.call("GET", here.path("trainjobs"))
    assert len(secured.log) == 2


@pytest.mark.slow
def test_an_api_that_stays_away_is_not_waited_for_for_ever(secured: FakeKubernetes, here: Cluster) -> None:
    here.call("GET", here.path("pods"))
    secured.fail(503, "", times=1000)
    with pytest.raises(StepError, match="the Kubernetes API has been away for 0 s: HTTP 503"):
        here.call("GET", here.path("pods"), away=0.4)
    assert len(secured.log) > 2


def test_a_right_that_is_missing_is_named_with_its_part(secured: FakeKubernetes, here: Cluster) -> None:
    secured.denied.add(("", "pods/log", "get"))
    with pytest.raises(UserError, match=r"may not get pods/log in namespace 'team'; give it .* retrain-runner"):
        list(here.lines(f"{here.path('pods', MAIN)}/log", {}))


def test_lines_end_where_the_connection_does(secured: FakeKubernetes, here: Cluster) -> None:
    secured.logs[NAMESPACE, MAIN] = "one\ntwo\nthr"
    pod = secured.objects["pods"][NAMESPACE, MAIN]
    pod["status"] = {"containerStatuses": [{"name": "main", "state": {"running": {}}}]}
    lines = here.lines(f"{here.path('pods', MAIN)}/log", {"follow": "true"})
    assert [next(lines), next(lines)] == ["one", "two"]
    secured.hang_up()
    assert list(lines) == []
