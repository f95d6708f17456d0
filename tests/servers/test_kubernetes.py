"""That the Kubernetes API on loopback is one for its own client."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config, watch

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


# TrainJobs

TRAINJOBS = ("trainer.kubeflow.org", "v1alpha1", "team", "trainjobs")


def trainjob(**changes: Any) -> dict[str, Any]:
    template = {"spec": {"containers": [{"name": "node", "volumeMounts": []}]}}
    replicated = {"name": "node", "template": {"spec": {"template": template}}}
    patch = {"template": {"spec": {"replicatedJobs": [replicated]}}}
    spec = {
        "runtimeRef": {"name": "torch-distributed"},
        "trainer": {"image": "i", "numNodes": 2, "env": [{"name": "A", "value": "1"}]},
        "runtimePatches": [{"manager": "acme.io/me", "trainingRuntimeSpec": patch}],
    }
    made = {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "metadata": {"name": "job"}}
    return made | {"spec": spec | changes}


@pytest.fixture
def trainjobs(server: FakeKubernetes, api: client.ApiClient) -> client.CustomObjectsApi:
    server.add("clustertrainingruntimes", "torch-distributed")
    return client.CustomObjectsApi(api)


def refusal(trainjobs: client.CustomObjectsApi, job: dict[str, Any]) -> str:
    with pytest.raises(client.ApiException) as caught:
        trainjobs.create_namespaced_custom_object(*TRAINJOBS, job)
    try:
        return f"{caught.value.status} {json.loads(caught.value.body)['message']}"
    except ValueError:
        return f"{caught.value.status} {caught.value.body}"


def test_a_trainjob_is_created_read_and_deleted(server: FakeKubernetes, trainjobs: client.CustomObjectsApi) -> None:
    created = trainjobs.create_namespaced_custom_object(*TRAINJOBS, trainjob())
    assert trainjobs.get_namespaced_custom_object(*TRAINJOBS, "job") == created
    assert refusal(trainjobs, trainjob()).startswith("409 ")
    wrong = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid="another"))
    with pytest.raises(client.ApiException) as caught:
        trainjobs.delete_namespaced_custom_object(*TRAINJOBS, "job", body=wrong)
    assert caught.value.status == 409
    label = {"jobset.sigs.k8s.io/jobset-name": "job"}
    server.add("pods", "p", "team", metadata={"labels": label}, spec={"containers": [{"name": "node"}]})
    server.lingering = True
    trainjobs.delete_namespaced_custom_object(*TRAINJOBS, "job")
    assert "deletionTimestamp" in trainjobs.get_namespaced_custom_object(*TRAINJOBS, "job")["metadata"]
    server.collect("team", "job")
    assert trainjobs.list_namespaced_custom_object(*TRAINJOBS)["items"] == []
    assert server.objects["pods"] == {}


def test_a_trainjob_is_patched_and_goes_with_the_last_of_its_owners(
    server: FakeKubernetes, trainjobs: client.CustomObjectsApi, api: client.ApiClient
) -> None:
    for name in ("one", "two"):
        server.add("pods", name, "team", metadata={"uid": name}, spec={"containers": [{"name": "main"}]})
    owners = [{"apiVersion": "v1", "kind": "Pod", "name": name, "uid": name} for name in ("one", "two")]
    trainjobs.create_namespaced_custom_object(*TRAINJOBS, trainjob())
    api.set_default_header("Content-Type", "application/merge-patch+json")
    patched = trainjobs.patch_namespaced_custom_object(*TRAINJOBS, "job", {"metadata": {"ownerReferences": owners}})
    assert patched == trainjobs.get_namespaced_custom_object(*TRAINJOBS, "job")
    assert patched["spec"] == trainjob()["spec"]
    with pytest.raises(client.ApiException, match="colour"):
        trainjobs.patch_namespaced_custom_object(*TRAINJOBS, "job", {"spec": {"colour": "red"}})
    server.remove("pods", "team", "one")
    assert trainjobs.list_namespaced_custom_object(*TRAINJOBS)["items"]
    server.remove("pods", "team", "two")
    assert trainjobs.list_namespaced_custom_object(*TRAINJOBS)["items"] == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"colour": "red"}, '400 unknown field "spec.colour"'),
        ({"suspend": "yes"}, "400 "),
        ({"runtimeRef": {"name": "mine"}}, "403 admission webhook"),
        ({"trainer": {"env": [{"name": "PET_NNODES", "value": "3"}]}}, "403 admission webhook"),
        ({"runtimePatches": [trainjob()["spec"]["runtimePatches"][0] | {"manager": "me"}]}, "403 admission webhook"),
    ],
)
def test_a_trainjob_that_kubeflow_trainer_would_refuse_is_refused(
    changes: dict[str, Any], told: str, trainjobs: client.CustomObjectsApi
) -> None:
    assert refusal(trainjobs, trainjob(**changes)).startswith(told)


def test_a_trainer_that_is_too_old_drops_what_it_does_not_know(
    server: FakeKubernetes, trainjobs: client.CustomObjectsApi
) -> None:
    server.trainer = "2.1.0"
    assert "runtimePatches" not in trainjobs.create_namespaced_custom_object(*TRAINJOBS, trainjob())["spec"]
    server.trainer = None
    assert refusal(trainjobs, trainjob()).startswith("404 ")


@pytest.mark.slow
def test_a_watch_tells_what_happens_since_a_version_and_ends(server: FakeKubernetes, api: client.ApiClient) -> None:
    core = client.CoreV1Api(api)
    server.add("configmaps", "before", "team")
    version = core.list_namespaced_config_map("team").metadata.resource_version
    server.add("configmaps", "after", "team")
    server.add("configmaps", "elsewhere", "other")
    server.change("configmaps", "team", "after", lambda found: found.update(data={"a": "b"}))
    server.remove("configmaps", "team", "before")
    events = watch.Watch().stream(core.list_namespaced_config_map, "team", resource_version=version, timeout_seconds=1)
    seen = [(event["type"], event["object"].metadata.name) for event in events]
    assert seen == [("ADDED", "after"), ("MODIFIED", "after"), ("DELETED", "before")]


def test_a_watch_from_a_version_that_is_forgotten_is_410(server: FakeKubernetes, api: client.ApiClient) -> None:
    server.forget()
    with pytest.raises(client.ApiException) as caught:
        next(watch.Watch().stream(client.CoreV1Api(api).list_namespaced_pod, "team", resource_version="0"))
    assert caught.value.status == 410


def test_a_log_is_read_from_a_time_on_by_its_end_and_as_it_was_before(
    server: FakeKubernetes, api: client.ApiClient
) -> None:
    server.add_pod("team", "p", "r1", "retrain-x.root.train.executor", "".join(f"{number}\n" for number in range(2000)))
    server.past_logs["team", "p"] = "what was before\n"
    core = client.CoreV1Api(api)
    assert core.read_namespaced_pod_log("p", "team", tail_lines=2) == "1998\n1999\n"
    assert core.read_namespaced_pod_log("p", "team", previous=True) == "what was before\n"
    path = "/api/v1/namespaces/team/pods/p/log?timestamps=true&sinceTime=2026-01-01T00:00:01.500000000Z"
    stamped, _, _ = api.call_api(path, "GET", auth_settings=["BearerToken"], response_type="str")
    assert stamped.splitlines()[0] == "2026-01-01T00:00:01.000000000Z 1000"
    assert len(stamped.splitlines()) == 1000
