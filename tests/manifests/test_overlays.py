"""Every overlay builds, and Kubernetes will take what it builds."""

import os
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from pipelines.submit import Order
from tests.manifests.rendered import (
    COMPONENTS,
    MANIFESTS,
    NEWEST,
    OLDEST,
    OVERLAYS,
    Object,
    build,
    component,
    everything,
    of_kind,
    overlay,
    pod_templates,
)

CLUSTER_SCOPED = {"Namespace", "Profile", "MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"}

SINCE_NEWEST = {"MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"}
"""Kinds that the oldest version does not have; the README says so."""

PROFILE: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "kubeflow.org/v1"},
        "kind": {"const": "Profile"},
        "metadata": {"type": "object"},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "owner": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["kind", "name"],
                    "properties": {key: {"type": "string"} for key in ("apiGroup", "kind", "name", "namespace")},
                },
                "plugins": {"type": "array"},
                "resourceQuotaSpec": {"type": "object"},
            },
        },
    },
}
"""kubeflow/dashboard, components/profile-controller/manifests/kustomize/base/crd/kubeflow.org_profiles.yaml, v1."""


def validate(manifest: Object, version: str) -> None:
    if manifest["kind"] == "Profile":
        jsonschema.validate(manifest, PROFILE)
    else:
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.slow
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_object_is_one_that_this_kubernetes_knows(version: str) -> None:
    known = [found for _, found in everything() if version == NEWEST or found["kind"] not in SINCE_NEWEST]
    assert len(known) > 30
    for manifest in known:
        validate(manifest, version)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("Profile", {"spec": {"owner": {"kind": "User"}}}),
        ("NetworkPolicy", {"spec": {"podSelektor": {}}}),
        ("ResourceQuota", {"spec": {"hard": ["pods"]}}),
    ],
)
def test_an_object_with_a_wrong_field_is_refused(kind: str, change: Object) -> None:
    manifest = next(found for found in overlay("kubeflow") if found["kind"] == kind)
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        validate(manifest | change, OLDEST)


@pytest.mark.slow
@pytest.mark.parametrize("name", OVERLAYS)
def test_no_object_is_there_twice(name: str, tmp_path: Path) -> None:
    names = [identity(manifest) for manifest in [*overlay(name), *with_components(name, tmp_path)]]
    alone, together = names[: len(overlay(name))], names[len(overlay(name)) :]
    assert len(set(alone)) == len(alone)
    assert len(set(together)) == len(together)
    assert len(together) == len(alone) + sum(len(component(added)) for added in COMPONENTS)


def identity(manifest: Object) -> tuple[str, str, str]:
    metadata = manifest["metadata"]
    return manifest["kind"], metadata.get("namespace", ""), metadata["name"]


def with_components(name: str, room: Path) -> tuple[Object, ...]:
    """An overlay with all the components, as the README tells to add them."""
    paths = [os.path.relpath(MANIFESTS / "components" / added, room) for added in COMPONENTS]
    content = {"resources": [os.path.relpath(MANIFESTS / "overlays" / name, room)], "components": paths}
    lines = [f"{key}:\n" + "".join(f"- {path}\n" for path in paths) for key, paths in content.items()]
    (room / "kustomization.yaml").write_text("".join(lines))
    return build(room)


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_object_is_in_the_overlays_namespace(name: str) -> None:
    [namespace] = of_kind(overlay(name), "Namespace")
    for manifest in overlay(name):
        expected = None if manifest["kind"] in CLUSTER_SCOPED else namespace
        assert manifest["metadata"].get("namespace") == expected, identity(manifest)


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_namespace_enforces_pod_security_restricted(name: str) -> None:
    [namespace] = of_kind(overlay(name), "Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_account_that_runs_work_as_is_there(name: str) -> None:
    assert Order.service_account in of_kind(overlay(name), "ServiceAccount")


@pytest.mark.parametrize("name", ["kubeflow", "production"])
def test_kubeflow_takes_over_a_namespace_that_bears_its_profiles_name_and_owner(name: str) -> None:
    [(namespace, found)] = of_kind(overlay(name), "Namespace").items()
    [(profile, owned)] = of_kind(overlay(name), "Profile").items()
    assert profile == namespace
    assert found["metadata"]["annotations"]["owner"] == owned["spec"]["owner"]["name"]


def test_an_overlay_changes_nothing_but_what_it_is_for() -> None:
    for name, differing in {
        "kind": {"LimitRange", "NetworkPolicy", "ResourceQuota"},
        "kubeflow": {"Namespace", "Profile"},
        "production": {"ConfigMap", "Namespace", "Profile", "ResourceQuota", "Role", "ServiceAccount"},
    }.items():
        base = {(kind, name): found for (kind, _, name), found in by_identity(build(MANIFESTS / "base")).items()}
        for (kind, _, found), manifest in by_identity(overlay(name)).items():
            same = unplaced(base.get((kind, found), {})) == unplaced(manifest)
            assert same or kind in differing or (name, kind) == ("kind", "Namespace"), (name, kind, found)


def by_identity(objects: tuple[Object, ...]) -> dict[tuple[str, str, str], Object]:
    return {identity(manifest): manifest for manifest in objects}


def unplaced(manifest: Object) -> Object:
    """An object but for its namespace."""
    plain = {key: value for key, value in manifest.items() if key != "metadata"}
    if "subjects" in plain:
        plain["subjects"] = [{k: v for k, v in subject.items() if k != "namespace"} for subject in plain["subjects"]]
    return plain | {"metadata": {k: v for k, v in manifest.get("metadata", {}).items() if k != "namespace"}}


def test_every_image_is_named_once() -> None:
    images = {
        box["image"] for _, found in everything() for pod in pod_templates(found) for box in pod["spec"]["containers"]
    }
    sources = "".join(path.read_text() for path in MANIFESTS.rglob("*.yaml"))
    assert images
    assert {image: sources.count(image) for image in images} == dict.fromkeys(images, 1)
