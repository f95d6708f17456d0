"""The admin's policy gives the pods of a run the read-only root that a pipeline cannot ask for.

A real CEL evaluates its expressions. What Kubernetes adds, types and a merge by keys, is written out here.
"""

import copy
import re
from pathlib import Path
from typing import Any

import cel
import pytest
import yaml

from pipelines.settings import STOCK
from pipelines.submit import Order
from tests.manifests.launched import DRIVER, Pod, step_pods
from tests.manifests.policy import violations
from tests.manifests.rendered import MANIFESTS, component, of_kind

KEYS = {"containers": "name", "initContainers": "name", "volumeMounts": "mountPath"}
"""By what Kubernetes merges lists (its OpenAPI schema, x-kubernetes-list-map-keys)."""

STRATEGIC = MANIFESTS / "components" / "read-only-root" / "argo.yaml"


def policy() -> dict[str, Any]:
    [found] = of_kind(component("read-only-root"), "MutatingAdmissionPolicy").values()
    spec: dict[str, Any] = found["spec"]
    return spec


def admitted(pod: Pod) -> Pod:
    """The pod as the policy lets it in."""
    for mutation in policy()["mutations"]:
        assert mutation["patchType"] == "ApplyConfiguration"
        pod = merged(pod, cel.evaluate(untyped(mutation["applyConfiguration"]["expression"]), {"object": pod}))
    return pod


def untyped(expression: str) -> str:
    """The expression with maps in place of Kubernetes' types: `Object.spec{name: x}` as `{"name": x}`."""
    return re.sub(r"([{,]\s*)(\w+):", r'\1"\2":', re.sub(r"\bObject(\.\w+)*\{", "{", expression))


def merged(old: Any, new: Any, key: str = "") -> Any:
    if isinstance(new, dict):
        return old | {name: merged(old.get(name, empty(value)), value, name) for name, value in new.items()}
    if isinstance(new, list):
        by = KEYS[key]
        changes = {item[by]: item for item in new}
        kept = [merged(item, changes.pop(item[by], {})) for item in old]
        return kept + list(changes.values())
    return new


def empty(value: Any) -> Any:
    return type(value)()


def containers(pod: Pod) -> dict[str, dict[str, Any]]:
    return {box["name"]: box for box in pod["spec"].get("initContainers", []) + pod["spec"]["containers"]}


def test_every_step_obeys_the_whole_policy_then(tmp_path: Path) -> None:
    for pod in step_pods(STOCK, tmp_path).values():
        assert violations(admitted(pod)) == ["it has a service account's token"]


def test_every_container_gets_a_read_only_root_and_a_tmp_to_write_to() -> None:
    pod = admitted(copy.deepcopy(DRIVER))
    found = containers(pod)
    assert set(found) == {"init", "wait", "main"}
    assert all(box["securityContext"]["readOnlyRootFilesystem"] for box in found.values())
    assert found["main"]["volumeMounts"] == [{"name": "tmp-dir-argo", "mountPath": "/tmp", "subPath": "main"}]
    assert found["main"]["volumeMounts"][0]["name"] in [volume["name"] for volume in pod["spec"]["volumes"]]
    assert found["wait"]["volumeMounts"] == containers(DRIVER)["wait"]["volumeMounts"]


def test_what_is_mounted_at_tmp_already_stays(tmp_path: Path) -> None:
    for pod in step_pods(STOCK, tmp_path).values():
        mounts = pod["spec"]["containers"][0]["volumeMounts"]
        assert admitted(pod)["spec"]["containers"][0]["volumeMounts"] == mounts


def test_a_pod_without_init_containers_or_mounts_is_taken() -> None:
    assert admitted({"spec": {"containers": [{"name": "main"}]}})["spec"]["containers"][0]["volumeMounts"]


@pytest.mark.parametrize(
    ("spec", "applies"),
    [
        ({"serviceAccountName": Order.service_account}, True),
        ({"serviceAccountName": "default-editor"}, False),
        ({}, False),
    ],
)
def test_the_policy_is_for_the_pods_of_our_runs_alone(spec: dict[str, Any], applies: bool) -> None:
    [condition] = policy()["matchConditions"]
    assert cel.evaluate(condition["expression"], {"object": {"spec": spec}}) is applies
    assert policy()["matchConstraints"]["objectSelector"]["matchLabels"].items() <= DRIVER["metadata"]["labels"].items()


def test_the_binding_is_to_the_policy() -> None:
    [binding] = of_kind(component("read-only-root"), "MutatingAdmissionPolicyBinding").values()
    assert binding["spec"]["policyName"] in of_kind(component("read-only-root"), "MutatingAdmissionPolicy")


def test_argos_way_for_older_clusters_says_the_same_of_the_steps_container() -> None:
    given = yaml.safe_load(yaml.safe_load(STRATEGIC.read_text())["data"]["mainContainer"])
    [mount] = given["volumeMounts"]
    found = containers(admitted(copy.deepcopy(DRIVER)))["main"]
    assert given["securityContext"] == found["securityContext"]
    assert (mount["name"], mount["mountPath"]) == ("tmp-dir-argo", "/tmp")
