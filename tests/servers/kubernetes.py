"""The Kubernetes API on loopback, as far as it is called here; objects are checked against `kubernetes`' models."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from kubernetes.client import models

from tests.servers.loopback import Loopback, Reply, Request
from tests.servers.models import WrongField, check

KINDS = {
    "configmaps": "ConfigMap",
    "namespaces": "Namespace",
    "nodes": "Node",
    "pods": "Pod",
    "secrets": "Secret",
    "serviceaccounts": "ServiceAccount",
    "services": "Service",
    "storageclasses": "StorageClass",
}
GROUPS = {"storageclasses": "storage.k8s.io", "selfsubjectaccessreviews": "authorization.k8s.io"}
REASONS = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound"}
PATH = re.compile(
    r"(?:/api|/apis/(?P<group>[\w.]+))/v1(?:/namespaces/(?P<namespace>[^/]+)(?=/))?"
    r"/(?P<resource>[a-z]+)(?:/(?P<name>[^/]+)(?:/(?P<part>[a-z]+))?)?"
)

Object = dict[str, Any]

DISCOVERY: dict[str, Object] = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": "v1",
        "resources": [
            {
                "name": resource,
                "singularName": kind.lower(),
                "namespaced": resource not in ("namespaces", "nodes"),
                "kind": kind,
                "verbs": ["get", "list"],
                **({"shortNames": ["svc"]} if resource == "services" else {}),
            }
            for resource, kind in KINDS.items()
            if resource not in GROUPS
        ],
    },
}
"""What kubectl asks first."""


class FakeKubernetes(Loopback):
    """A cluster whose objects lie open by resource, namespace ('' for those without) and name."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.objects: dict[str, dict[tuple[str, str], Object]] = {resource: {} for resource in KINDS}
        self.logs: dict[tuple[str, str], str] = {}
        """What the main container of a pod has printed, by namespace and name; a test may let it grow."""
        self.denied: set[tuple[str, str, str]] = set()
        """(group, resource, verb) that this user lacks, such as ('', 'pods/log', 'get')."""
        self.tokens: set[str] = set()
        """Where there is any, nobody else comes in."""
        self.version = "v1.33.1"

    # What a test tells the cluster

    def add(self, resource: str, name: str, namespace: str = "", **fields: Any) -> Object:
        """An object; `metadata` is merged with its name."""
        metadata = {"name": name, **({"namespace": namespace} if namespace else {}), **fields.pop("metadata", {})}
        version = "storage.k8s.io/v1" if resource == "storageclasses" else "v1"
        made = {"apiVersion": version, "kind": KINDS[resource], "metadata": metadata, **fields}
        check(models, f"V1{KINDS[resource]}", made)
        self.objects[resource][namespace, name] = made
        return made

    def add_node(self, name: str, **allocatable: str) -> Object:
        """A node with what it can give; `nvidia_com_gpu="2"` stands for `nvidia.com/gpu`."""
        given = {re.sub("^(.+)_com_(.+)$", r"\1.com/\2", key): value for key, value in allocatable.items()}
        return self.add("nodes", name, status={"allocatable": {"cpu": "4", "memory": "16Gi"} | given})

    def add_pod(self, namespace: str, name: str, run_id: str, node: str, log: str | None = None) -> Object:
        """A pod of a run; `node` is Argo's name of its node, such as `retrain-x.root.train.executor`.

        With a log it has run and ended; without one it waits for its image.
        """
        ended: Object = {"terminated": {"exitCode": 0, "reason": "Completed"}}
        waits: Object = {"waiting": {"reason": "ContainerCreating"}}
        state = waits if log is None else ended
        container = {"name": "main", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": state}
        if log is not None:
            self.logs[namespace, name] = log
        return self.add(
            "pods",
            name,
            namespace,
            metadata={
                "labels": {"pipeline/runid": run_id},
                "annotations": {"workflows.argoproj.io/node-name": node},
            },
            status={"phase": "Pending" if log is None else "Succeeded", "containerStatuses": [container]},
        )

    def kubeconfig(self, path: Path, context: str = "here", token: str = "") -> Path:
        """Writes a kubeconfig that leads here."""
        user = {"token": token} if token else {}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": context,
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "me", "user": user}],
            "contexts": [{"name": context, "context": {"cluster": "fake", "user": "me"}}],
        }
        path.write_text(yaml.safe_dump(config))
        return path

    # The protocol

    def answer(self, request: Request) -> Reply:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.tokens and token not in self.tokens:
            return failure(401, "Unauthorized")
        if request.path.rstrip("/") == "/version":
            return Reply(200, self.version_info())
        if request.path in DISCOVERY:
            return Reply(200, DISCOVERY[request.path])
        match = PATH.fullmatch(request.path)
        if match is None or (match["group"] or "") != GROUPS.get(match["resource"], ""):
            return failure(404, "the server could not find the requested resource")
        if match["resource"] == "selfsubjectaccessreviews":
            return self.review(request)
        return self.look(request, match)

    def version_info(self) -> Object:
        major, minor = self.version.removeprefix("v").split(".")[:2]
        known = {"gitVersion": self.version, "major": major, "minor": minor}
        unknown = ("buildDate", "compiler", "gitCommit", "gitTreeState", "goVersion", "platform")
        return known | dict.fromkeys(unknown, "")

    def review(self, request: Request) -> Reply:
        """A SelfSubjectAccessReview."""
        given = request.json()
        try:
            check(models, "V1SelfSubjectAccessReview", given)
        except WrongField as error:
            return failure(400, f"strict decoding error: {error}")
        asked = given["spec"]["resourceAttributes"]
        resource = "/".join(filter(None, (asked["resource"], asked.get("subresource"))))
        allowed = (asked.get("group", ""), resource, asked["verb"]) not in self.denied
        return Reply(201, given | {"status": {"allowed": allowed}})

    def look(self, request: Request, match: re.Match[str]) -> Reply:
        """Answers a GET of one object, of a list, or of a pod's log."""
        resource, name, part = match["resource"], match["name"], match["part"]
        namespace = match["namespace"] or ""
        if request.method != "GET" or resource not in KINDS:
            return failure(404, "the server could not find the requested resource")
        verb, asked = "get" if name else "list", f"{resource}/{part}" if part else resource
        if (GROUPS.get(resource, ""), asked, verb) in self.denied:
            where = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
            return failure(403, f'{asked} is forbidden: User "me" cannot {verb} resource "{asked}"{where}')
        if not name:
            return Reply(200, self.listed(resource, namespace, request.query.get("labelSelector", "")))
        found = self.objects[resource].get((namespace, name))
        if found is None:
            return failure(404, f'{resource} "{name}" not found')
        if part == "log":
            return self.log_of(found, request)
        return Reply(200, partial(found) if "PartialObjectMetadata" in request.headers.get("Accept", "") else found)

    def listed(self, resource: str, namespace: str, selector: str) -> Object:
        wanted = dict(pair.split("=", 1) for pair in selector.split(",") if pair)
        items = [
            found
            for (home, _), found in self.objects[resource].items()
            if namespace in ("", home) and wanted.items() <= found["metadata"].get("labels", {}).items()
        ]
        return {"apiVersion": "v1", "kind": f"{KINDS[resource]}List", "metadata": {}, "items": items}

    def log_of(self, pod: Object, request: Request) -> Reply:
        key = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        if request.query.get("container", "main") != "main":
            return failure(400, f"container {request.query['container']} is not valid for pod {key[1]}")
        if key not in self.logs:
            return failure(400, f'container "main" in pod "{key[1]}" is waiting to start: ContainerCreating')
        if request.query.get("follow") in ("true", "True"):
            return Reply(200, self.follow(key))
        lines = self.logs[key].splitlines(keepends=True)
        return Reply(200, "".join(lines[-int(request.query.get("tailLines", len(lines))) :]) if lines else "")

    def follow(self, key: tuple[str, str]) -> Iterator[str]:
        """The log as it grows, until the container has ended."""
        sent = 0
        while True:
            (status,) = self.objects["pods"][key]["status"]["containerStatuses"]
            ended = "terminated" in status["state"]
            text = self.logs[key]
            if text[sent:]:
                yield text[sent:]
            sent = len(text)
            if ended:
                return
            time.sleep(0.01)


def partial(found: Object) -> Object:
    return {"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": found["metadata"]}


def failure(code: int, message: str) -> Reply:
    status = {"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure"}
    return Reply(code, status | {"code": code, "reason": REASONS[code], "message": message})
