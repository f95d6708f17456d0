"""What the doctor sees of a cluster; each failure is provoked on servers on loopback."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.doctor.cluster import RIGHTS, Needs, checks, version
from pipelines.doctor.finding import Finding, examine
from pipelines.kubeflow import Kubeflow
from pipelines.transport import Connection
from tests.pipelines.conftest import use_kubeconfig
from tests.servers.kfp import FakeKubeflow
from tests.servers.kubernetes import FakeKubernetes

NEEDS = Needs(namespace="team", service_account="retrain-runner", secret="retrain-store", gpu_type="nvidia.com/gpu")
VERBS = ("get", "list", "create", "terminate", "enable", "disable", "delete")


@pytest.fixture
def kubernetes_server(kubernetes_server: FakeKubernetes) -> FakeKubernetes:
    """A cluster that has all that a run needs."""
    kubernetes_server.add("namespaces", "team")
    kubernetes_server.add("serviceaccounts", "retrain-runner", "team")
    kubernetes_server.add("configmaps", "kfp-launcher", "team")
    kubernetes_server.add("secrets", "retrain-store", "team", data={"AWS_SECRET_ACCESS_KEY": "aHVzaC1odXNo"})
    kubernetes_server.add_node("large", nvidia_com_gpu="2")
    kubernetes_server.add_node("small")
    kubernetes_server.add("clustertrainingruntimes", "torch-distributed")
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"}
    kubernetes_server.add("storageclasses", "standard", provisioner="p", metadata={"annotations": annotations})
    return kubernetes_server


@pytest.fixture
def kubeflow(kubeflow_server: FakeKubeflow) -> Iterator[Kubeflow]:
    """A client of a Kubeflow with several users, one of whom is this one."""
    kubeflow_server.multi_user = True
    kubeflow_server.tokens["hush-hush"] = "me"
    kubeflow_server.grant("me", "team", "runs", *VERBS)
    connection = Connection(
        host=kubeflow_server.url, namespace="team", token=lambda: "hush-hush", pauses=(0.01, 0.01, 0.01)
    )
    yield Kubeflow(connection)
    connection.close()


def look(kubeflow: Kubeflow, needs: Needs = NEEDS, context: str = "") -> dict[str, Finding]:
    found = examine(checks(kubeflow, lambda: needs, context), seconds=30)
    assert len({finding.name for finding in found}) == len(found)
    assert all(bool(finding.advice) == (finding.state != "ok") for finding in found)
    return {finding.name: finding for finding in found}


def bad(found: dict[str, Finding]) -> dict[str, str]:
    return {name: finding.state for name, finding in found.items() if finding.state != "ok"}


@pytest.mark.usefixtures("kubernetes_server")
def test_a_cluster_that_is_well(kubeflow: Kubeflow) -> None:
    found = look(kubeflow)
    assert bad(found) == {}
    assert {name: found[name].seen for name in ("kfp version", "access", "rights: runs", "gpus", "storage class")} == {
        "kfp version": "server 2.17.0, SDK 2.17.0",
        "access": "0 runs in namespace 'team'",
        "rights: runs": "get, list, create, terminate",
        "gpus": "2 nvidia.com/gpu on 1 of 2 nodes",
        "storage class": "standard is the default",
    }


def test_the_secret_is_looked_up_by_name_and_its_content_never_asked_for(
    kubeflow: Kubeflow, kubernetes_server: FakeKubernetes
) -> None:
    look(kubeflow)
    asked = [request for request in kubernetes_server.log if "/secrets" in request.path]
    assert [request.path for request in asked] == ["/api/v1/namespaces/team/secrets/retrain-store"]
    assert all("as=PartialObjectMetadata" in request.headers["Accept"] for request in asked)


@pytest.mark.parametrize(
    ("server", "sdk", "state"),
    [
        ("2.17.3", "2.17.0", "ok"),
        ("2.18.0", "2.17.0", "ok"),
        ("2.16.1", "2.17.0", "warning"),
        ("2.14.0", "2.17.0", "warning"),
        ("unknown", "2.17.0", "warning"),
        ("1.8.22", "2.17.0", "failed"),
        ("3.0.0", "2.17.0", "failed"),
    ],
)
def test_server_and_sdk_must_fit(server: str, sdk: str, state: str) -> None:
    found = version(server, sdk)
    assert (found.state, found.seen) == (state, f"server {server}, SDK {sdk}")


def test_an_old_server_is_told_by_its_health(
    kubeflow: Kubeflow, kubeflow_server: FakeKubeflow, kubernetes_server: FakeKubernetes
) -> None:
    kubeflow_server.version = "2.15.2"
    found = look(kubeflow)
    assert bad(found) == {"kfp version": "warning"}
    assert "kills" in found["kfp version"].advice


@pytest.mark.usefixtures("kubernetes_server")
def test_a_kubeflow_that_is_not_there_fails_and_the_rest_is_looked_at_all_the_same() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        port = taken.getsockname()[1]
        found = look(Kubeflow(Connection(host=f"http://127.0.0.1:{port}", namespace="team", pauses=())))
    assert bad(found) == {"kfp": "failed"}
    assert f"127.0.0.1:{port}" in found["kfp"].seen
    assert "rights: jobs" in found


@pytest.mark.usefixtures("kubernetes_server")
def test_a_token_that_has_expired_fails(kubeflow: Kubeflow, kubeflow_server: FakeKubeflow) -> None:
    kubeflow_server.tokens = {"another": "me"}
    found = look(kubeflow)
    assert bad(found) == {"access": "failed"}
    assert "the token has expired" in found["access"].seen
    assert "hush-hush" not in repr(found)


@pytest.mark.usefixtures("kubernetes_server")
def test_a_user_without_rights_at_kubeflow_fails(kubeflow: Kubeflow, kubeflow_server: FakeKubeflow) -> None:
    kubeflow_server.grants.clear()
    found = look(kubeflow)
    assert bad(found) == {"access": "failed"}
    assert "user 'me' may not list runs" in found["access"].seen


def test_a_kubernetes_that_is_not_there_is_said_once(kubeflow: Kubeflow, kubernetes_server: FakeKubernetes) -> None:
    kubernetes_server.drop("before", times=1000)
    found = look(kubeflow)
    assert bad(found) == {"kubernetes": "failed"}
    assert f"Kubernetes at {kubernetes_server.url} cannot be reached" in found["kubernetes"].seen


def test_a_kubeconfig_whose_credentials_have_expired_is_said_once(
    kubeflow: Kubeflow, kubernetes_server: FakeKubernetes
) -> None:
    kubernetes_server.tokens = {"another"}
    found = look(kubeflow)
    assert bad(found) == {"kubernetes": "failed"}
    assert "log in again" in found["kubernetes"].advice


def test_a_kubernetes_that_fails_is_told(kubeflow: Kubeflow, kubernetes_server: FakeKubernetes) -> None:
    kubernetes_server.fail(500, times=1000)
    assert "HTTP 500" in look(kubeflow)["kubernetes"].seen


@pytest.mark.parametrize("content", ["", "{]", "words", "[]", "since: 2020-13-45", "current-context: a\ncontexts: 3"])
def test_without_a_kubeconfig_kubeflow_alone_is_looked_at(
    content: str, kubeflow: Kubeflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text(content)
    use_kubeconfig(monkeypatch, tmp_path / "config")
    found = look(kubeflow)
    assert bad(found) == {"kubernetes": "warning"}
    assert "no usable kubeconfig" in found["kubernetes"].seen


@pytest.mark.usefixtures("kubernetes_server")
def test_a_context_that_does_not_exist_fails(kubeflow: Kubeflow) -> None:
    found = look(kubeflow, context="elsewhere")
    assert bad(found) == {"kubernetes": "failed"}
    assert "'elsewhere'" in found["kubernetes"].seen


@pytest.mark.slow
@pytest.mark.parametrize(("right", "verb"), [(right, verb) for right, verbs in RIGHTS.items() for verb in verbs])
def test_every_right_that_is_missing_is_named(
    right: tuple[str, str], verb: str, kubeflow: Kubeflow, kubernetes_server: FakeKubernetes
) -> None:
    kubernetes_server.denied.add((*right, verb))
    found = look(kubeflow)
    name = f"rights: {right[1]}"
    assert bad(found) == {name: "failed"}
    assert found[name].seen == f"this user may not {verb} {right[1]} in namespace 'team'"
    assert "retrain-ci" in found[name].advice


@pytest.mark.parametrize("right", [("", "pods", "list"), ("", "pods/log", "get")])
def test_without_the_right_to_logs_one_is_only_warned(
    right: tuple[str, str, str], kubeflow: Kubeflow, kubernetes_server: FakeKubernetes
) -> None:
    kubernetes_server.denied.add(right)
    found = look(kubeflow)
    assert bad(found) == {f"rights: {right[1]}": "warning"}


@pytest.mark.usefixtures("kubernetes_server")
def test_in_single_user_mode_kubeflow_asks_for_no_rights(kubeflow_server: FakeKubeflow) -> None:
    found = look(Kubeflow(Connection(host=kubeflow_server.url)))
    assert bad(found) == {}
    assert "single-user" in found["rights"].seen


@pytest.mark.parametrize(
    ("resource", "name", "finding", "state"),
    [
        ("namespaces", "team", "namespace", "failed"),
        ("serviceaccounts", "retrain-runner", "runner", "failed"),
        ("configmaps", "kfp-launcher", "launcher", "warning"),
        ("secrets", "retrain-store", "secret", "failed"),
    ],
)
def test_what_a_run_needs_and_is_not_there_is_named(
    resource: str, name: str, finding: str, state: str, kubeflow: Kubeflow, kubernetes_server: FakeKubernetes
) -> None:
    kubernetes_server.objects[resource].clear()
    found = look(kubeflow)
    assert bad(found) == {finding: state}
    assert repr(name) in found[finding].seen


def test_with_web_identity_no_secret_is_needed(kubeflow: Kubeflow, kubernetes_server: FakeKubernetes) -> None:
    kubernetes_server.objects["secrets"].clear()
    needs = Needs(namespace="team", service_account="retrain-runner", secret="", gpu_type="nvidia.com/gpu")
    assert bad(look(kubeflow, needs)) == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "finding"),
    [
        (("", "namespaces", "get"), "namespace"),
        (("", "serviceaccounts", "get"), "runner"),
        (("", "configmaps", "get"), "launcher"),
        (("", "secrets", "get"), "secret"),
        (("", "nodes", "list"), "gpus"),
        (("storage.k8s.io", "storageclasses", "list"), "storage class"),
        (("trainer.kubeflow.org", "clustertrainingruntimes", "get"), "trainer"),
        (("authorization.k8s.io", "localsubjectaccessreviews", "create"), "trainer rights"),
    ],
)
def test_where_the_user_may_not_look_the_doctor_warns_and_goes_on(
    right: tuple[str, str, str], finding: str, kubeflow: Kubeflow, kubernetes_server: FakeKubernetes
) -> None:
    kubernetes_server.denied.add(right)
    found = look(kubeflow)
    assert bad(found) == {finding: "warning"}
    assert found[finding].seen.startswith("this user may not ")


def test_a_cluster_without_gpus_is_warned_of(kubeflow: Kubeflow, kubernetes_server: FakeKubernetes) -> None:
    del kubernetes_server.objects["nodes"]["", "large"]
    found = look(kubeflow)
    assert bad(found) == {"gpus": "warning"}
    assert found["gpus"].seen == "0 nvidia.com/gpu on 0 of 1 nodes"
    assert "--gpus 0" in found["gpus"].advice
    assert bad(look(kubeflow, replace(NEEDS, autoscaled=True))) == {}


def test_a_cluster_without_kubeflow_trainer_is_warned_of(kubeflow: Kubeflow, kubernetes_server: FakeKubernetes) -> None:
    kubernetes_server.trainer = None
    found = look(kubeflow)
    assert bad(found) == {"trainer": "warning"}
    assert found["trainer"].seen == "there is no Kubeflow Trainer"
    assert found["trainer"].advice.startswith("to train on more than one node, install it")


def test_a_trainer_without_its_runtime_is_warned_of(kubeflow: Kubeflow, kubernetes_server: FakeKubernetes) -> None:
    kubernetes_server.objects["clustertrainingruntimes"].clear()
    found = look(kubeflow)
    assert bad(found) == {"trainer": "warning"}
    assert found["trainer"].seen == "Kubeflow Trainer has no ClusterTrainingRuntime 'torch-distributed'"


def test_rights_that_a_training_on_many_nodes_lacks_are_named(
    kubeflow: Kubeflow, kubernetes_server: FakeKubernetes
) -> None:
    kubernetes_server.denied_accounts = {("trainer.kubeflow.org", "trainjobs", "delete"), ("", "pods/log", "get")}
    found = look(kubeflow)
    assert bad(found) == {"trainer rights": "warning"}
    assert found["trainer rights"].seen == "service account retrain-runner may not delete trainjobs, get pods/log"


def test_a_cluster_without_a_default_storage_class_is_warned_of(
    kubeflow: Kubeflow, kubernetes_server: FakeKubernetes
) -> None:
    kubernetes_server.objects["storageclasses"].clear()
    found = look(kubeflow)
    assert bad(found) == {"storage class": "warning"}
    assert found["storage class"].seen == "none of 0 is the default"


@pytest.mark.parametrize(("skew", "state"), [(-120, "warning"), (3600, "failed")])
def test_a_clock_that_is_wrong_is_found_out(
    skew: float, state: str, kubeflow: Kubeflow, kubernetes_server: FakeKubernetes
) -> None:
    kubernetes_server.skew = skew
    assert bad(look(kubeflow)) == {"clock": state}
