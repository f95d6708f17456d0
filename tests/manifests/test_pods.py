"""The policy holds for every pod of the manifests, and can fail."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.manifests.policy import CREDENTIAL, violations
from tests.manifests.rendered import component, everything, of_kind, pod_templates

Change = Callable[[dict[str, Any], dict[str, Any]], object]

BAD: dict[str, tuple[Change, str]] = {
    "root": (lambda pod, box: pod["securityContext"].pop("runAsNonRoot"), "minio: it may run as root"),
    "root of its own": (
        lambda pod, box: box["securityContext"].update(runAsNonRoot=False),
        "minio: it may run as root",
    ),
    "user 0": (lambda pod, box: pod["securityContext"].update(runAsUser=0), "minio: its user is no number above 0"),
    "no user": (lambda pod, box: pod["securityContext"].pop("runAsUser"), "minio: its user is no number above 0"),
    "escalation": (
        lambda pod, box: box["securityContext"].pop("allowPrivilegeEscalation"),
        "minio: it may gain privileges",
    ),
    "privileged": (lambda pod, box: box["securityContext"].update(privileged=True), "minio: it may gain privileges"),
    "capabilities": (lambda pod, box: box["securityContext"].pop("capabilities"), "minio: it keeps capabilities"),
    "a capability": (
        lambda pod, box: box["securityContext"]["capabilities"].update(add=["NET_BIND_SERVICE"]),
        "minio: it keeps capabilities",
    ),
    "seccomp": (lambda pod, box: pod["securityContext"].pop("seccompProfile"), "minio: it has no seccomp profile"),
    "unconfined": (
        lambda pod, box: box["securityContext"].update(seccompProfile={"type": "Unconfined"}),
        "minio: it has no seccomp profile",
    ),
    "writable root": (
        lambda pod, box: box["securityContext"].pop("readOnlyRootFilesystem"),
        "minio: its root can be written",
    ),
    "no memory limit": (
        lambda pod, box: box["resources"]["limits"].pop("memory"),
        "minio: its limits have no memory",
    ),
    "no CPU request": (lambda pod, box: box["resources"]["requests"].pop("cpu"), "minio: its requests have no cpu"),
    "latest": (
        lambda pod, box: box.update(image="quay.io/minio:latest"),
        "minio: its image quay.io/minio:latest changes",
    ),
    "no tag": (
        lambda pod, box: box.update(image="localhost:5000/minio"),
        "minio: its image localhost:5000/minio changes",
    ),
    "secret value": (
        lambda pod, box: box["env"].append({"name": "AWS_SECRET_ACCESS_KEY", "value": "hunter2"}),
        "minio: AWS_SECRET_ACCESS_KEY has its value in the manifest",
    ),
    "host network": (lambda pod, box: pod.update(hostNetwork=True), "hostNetwork is on"),
    "host path": (
        lambda pod, box: pod["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
        "a volume is a path of the node",
    ),
    "token": (lambda pod, box: pod.pop("automountServiceAccountToken"), "it has a service account's token"),
    "init container": (
        lambda pod, box: pod.update(initContainers=[box | {"name": "first", "image": "busybox"}]),
        "first: its image busybox changes",
    ),
}


def good_pod() -> dict[str, Any]:
    """The pods of the MinIO component."""
    [template] = pod_templates(of_kind(component("minio"), "Deployment")["retrain-minio"])
    return copy.deepcopy(template)


def test_every_pod_of_the_manifests_obeys_the_policy() -> None:
    broken = {
        f"{where}: {manifest['kind']} {manifest['metadata']['name']}": violations(pod)
        for where, manifest in everything()
        for pod in pod_templates(manifest)
    }
    assert broken
    assert {name: rules for name, rules in broken.items() if rules} == {}


@pytest.mark.parametrize("name", BAD)
def test_the_policy_names_what_is_wrong_with_a_pod(name: str) -> None:
    change, rule = BAD[name]
    pod = good_pod()
    change(pod["spec"], pod["spec"]["containers"][0])
    assert violations(pod) == [rule]


def test_no_manifest_holds_a_secret() -> None:
    for where, manifest in everything():
        assert manifest["kind"] != "Secret", where
        for key in manifest.get("data", {}):
            assert not CREDENTIAL.search(key), f"{where}: {key}"


def test_credentials_come_from_the_secret_that_the_readme_creates() -> None:
    [container] = good_pod()["spec"]["containers"]
    references = [variable["valueFrom"]["secretKeyRef"] for variable in container["env"] if "valueFrom" in variable]
    assert references == [
        {"name": "retrain-store", "key": "AWS_ACCESS_KEY_ID"},
        {"name": "retrain-store", "key": "AWS_SECRET_ACCESS_KEY"},
    ]
