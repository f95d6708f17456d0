"""That the Kubernetes API on loopback is one for its own client."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes import client, config

from tests.servers.kubernetes import FakeKubernetes
from tests.servers.models import WrongField


@pytest.fixture
def server() -> Iterator[FakeKubernetes]:
    with FakeKubernetes() as server:
        yield server


@pytest.fixture
def api(server: FakeKubernetes, tmp_path: Path) -> Iterator[client.ApiClient]:
    server.tokens = {"t"}
    path = server.kubeconfig(tmp_path / "kubeconfig", token="t")
    with config.new_client_from_config(str(path)) as api:
        yield api


def test_an_object_with_a_field_that_does_not_exist_is_refused(server: FakeKubernetes) -> None:
    with pytest.raises(WrongField, match="colour"):
        server.add("nodes", "n", status={"colour": "red"})


def test_objects_are_listed_by_namespace_and_label_and_found_by_name(
    server: FakeKubernetes, api: client.ApiClient
) -> None:
    server.add_node("n", nvidia_com_gpu="2")
    server.add("namespaces", "team")
    server.add_pod("team", "p", "r1", "retrain-x.root.train.executor", "hello\n")
    server.add_pod("other", "q", "r1", "retrain-x.root.train.executor")
    core = client.CoreV1Api(api)
    (node,) = core.list_node().items
    assert node.status.allocatable["nvidia.com/gpu"] == "2"
    assert core.read_namespace("team").metadata.name == "team"
    (pod,) = core.list_namespaced_pod("team", label_selector="pipeline/runid=r1").items
    assert pod.status.container_statuses[0].state.terminated.exit_code == 0
    assert core.list_namespaced_pod("team", label_selector="pipeline/runid=r2").items == []
    assert core.read_namespaced_pod_log("p", "team", container="main") == "hello\n"


def test_what_is_not_there_is_404_and_what_may_not_be_seen_403_and_strangers_get_401(
    server: FakeKubernetes, api: client.ApiClient
) -> None:
    core = client.CoreV1Api(api)

    def status() -> int:
        with pytest.raises(client.ApiException) as caught:
            core.read_namespace("team")
        return int(caught.value.status)

    assert status() == 404
    server.denied = {("", "namespaces", "get")}
    assert status() == 403
    server.tokens = {"another"}
    assert status() == 401


def test_an_access_review_tells_what_is_denied(server: FakeKubernetes, api: client.ApiClient) -> None:
    server.denied = {("pipelines.kubeflow.org", "runs", "create")}

    def allowed(verb: str) -> bool:
        attributes = client.V1ResourceAttributes(group="pipelines.kubeflow.org", resource="runs", verb=verb)
        spec = client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
        review = client.V1SelfSubjectAccessReview(spec=spec)
        answer = client.AuthorizationV1Api(api).create_self_subject_access_review(review)
        return bool(answer.status.allowed)

    assert (allowed("create"), allowed("list")) == (False, True)


def test_a_log_is_followed_until_the_container_ends(server: FakeKubernetes, api: client.ApiClient) -> None:
    pod = server.add_pod("team", "p", "r1", "retrain-x.root.train.executor", "one\n")
    (container,) = pod["status"]["containerStatuses"]
    ended, container["state"] = container["state"], {"running": {}}

    def print_more() -> None:
        time.sleep(0.1)
        server.logs["team", "p"] += "two\n"
        container["state"] = ended

    thread = threading.Thread(target=print_more)
    thread.start()
    answer = client.CoreV1Api(api).read_namespaced_pod_log("p", "team", follow=True, _preload_content=False)
    assert b"".join(answer.stream()) == b"one\ntwo\n"
    thread.join()
