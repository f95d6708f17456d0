"""The service accounts may do what is called, and nothing else."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import pipelines.kubeflow
from components.train.trainjob import needs
from pipelines.doctor.cluster import RIGHTS
from tests.manifests.rendered import OVERLAYS, Object, of_kind, overlay
from tests.servers.permissions import GROUP, PERMISSIONS, required

Right = tuple[str, str, str, str]
"""API group, resource, name ('' is any), verb."""

RUNNER: dict[Right, str] = {
    ("argoproj.io", "workflowtaskresults", "", "create"): "argo-workflows v4.0.5, docs/workflow-rbac.md",
    ("argoproj.io", "workflowtaskresults", "", "patch"): "the same",
    ("", "configmaps", "kfp-launcher", "get"): "pipelines 2.17.0, backend/src/v2/config/env.go, FetchLauncherConfigMap",
}
"""What the pods of a run call, and where."""

TRAINS: set[Right] = {
    (group, resource, "", verb) for (group, resource), verbs in needs.RIGHTS.items() for verb in verbs
}
"""What the train step calls to train on many nodes."""

READS_SECRET: Right = ("", "secrets", "mlpipeline-minio-artifact", "get")
"""pipelines 2.17.0, backend/src/v2/objectstore/object_store.go: unless its credentials come from the environment."""


def rights(objects: tuple[Object, ...], account: str) -> list[Right]:
    """What the roles bound to a service account allow."""
    bindings = of_kind(objects, "RoleBinding").values()
    roles = of_kind(objects, "Role")
    bound = [
        roles[binding["roleRef"]["name"]]
        for binding in bindings
        if any(subject["kind"] == "ServiceAccount" and subject["name"] == account for subject in binding["subjects"])
    ]
    return [right for role in bound for rule in role["rules"] for right in _rights(rule)]


def _rights(rule: Object) -> Iterator[Right]:
    for group in rule["apiGroups"]:
        for resource in rule["resources"]:
            for name in rule.get("resourceNames", [""]):
                yield from ((group, resource, name, verb) for verb in rule["verbs"])


def called() -> Iterator[tuple[str, str]]:
    """The method and path of every request that pipelines/kubeflow.py makes, with `x` for what is filled in."""
    tree = ast.parse(Path(pipelines.kubeflow.__file__).read_text())
    for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
        paths = {
            target.id: node.value
            for node in ast.walk(function)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                yield from _request(node.func.attr, node.args, paths)


def _request(method: str, given: list[ast.expr], paths: dict[str, ast.expr]) -> Iterator[tuple[str, str]]:
    if method == "_list":
        yield "GET", _filled(given[0], paths)
    elif method == "_call" and isinstance(given[0], ast.Constant):
        yield str(given[0].value), _filled(given[1], paths)


def _filled(path: ast.expr, paths: dict[str, ast.expr]) -> str:
    if isinstance(path, ast.Name):
        path = paths.get(path.id, ast.Constant(""))
    parts = path.values if isinstance(path, ast.JoinedStr) else [path]
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in parts)


def needed() -> set[Right]:
    """The rights that the client's requests need."""
    requests = {(method, "/apis/v2beta1" + path) for method, path in called() if path and path != "/healthz"}
    return {(GROUP, resource, "", verb) for resource, verb in filter(None, (required(*each) for each in requests))}


def test_every_request_of_the_client_has_a_known_right() -> None:
    requests = {(method, path) for method, path in called() if path and path != "/healthz"}
    assert len(requests) > 10
    assert [each for each in requests if required(each[0], "/apis/v2beta1" + each[1]) is None] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", OVERLAYS)
def test_ci_may_do_what_the_client_calls_and_nothing_else(name: str) -> None:
    allowed = rights(overlay(name), "retrain-ci")
    assert len(set(allowed)) == len(allowed)
    assert set(allowed) == needed()


def test_doctor_asks_for_the_rights_that_ci_is_given() -> None:
    asked = {(group, resource, "", verb) for (group, resource), verbs in RIGHTS.items() for verb in verbs}
    assert asked == set(rights(overlay("kubeflow"), "retrain-ci"))


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_runner_may_do_what_kfp_argo_and_a_training_on_many_nodes_call_and_nothing_else(name: str) -> None:
    secret = set() if name == "production" else {READS_SECRET}
    allowed = rights(overlay(name), "retrain-runner")
    assert len(set(allowed)) == len(allowed)
    assert set(allowed) == set(RUNNER) | TRAINS | secret


@pytest.mark.parametrize("name", OVERLAYS)
def test_no_role_has_a_wildcard_or_reaches_beyond_the_namespace(name: str) -> None:
    kinds = {found["kind"] for found in overlay(name)}
    assert not kinds & {"ClusterRole", "ClusterRoleBinding"}
    for role in of_kind(overlay(name), "Role").values():
        assert not any("*" in rule[key] for rule in role["rules"] for key in ("apiGroups", "resources", "verbs"))


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_binding_is_to_a_role_and_accounts_of_its_namespace(name: str) -> None:
    accounts, roles = of_kind(overlay(name), "ServiceAccount"), of_kind(overlay(name), "Role")
    for binding in of_kind(overlay(name), "RoleBinding").values():
        assert binding["roleRef"]["name"] in roles
        for subject in binding["subjects"]:
            assert subject["name"] in accounts
            assert subject["namespace"] == accounts[subject["name"]]["metadata"]["namespace"]


@pytest.mark.parametrize(
    ("method", "path", "right"),
    [
        ("POST", "/pipelines/upload", ("pipelines", "create")),
        ("GET", "/pipelines/names/retrain", ("pipelines", "get")),
        ("GET", "/pipelines/1f/versions", ("pipelines", "list")),
        ("POST", "/runs/1f:terminate", ("runs", "terminate")),
        ("DELETE", "/recurringruns/1f", ("jobs", "delete")),
        ("GET", "/healthz", None),
    ],
)
def test_a_path_needs_the_right_of_its_endpoint(method: str, path: str, right: tuple[str, str] | None) -> None:
    assert required(method, "/apis/v2beta1" + path) == right


def test_every_endpoint_is_found_by_its_own_path() -> None:
    for (method, pattern), right in PERMISSIONS.items():
        assert required(method, pattern.replace("{", "").replace("}", "")) == right
