"""The Kubernetes API on loopback, as far as it is called here; objects are checked against `kubernetes`' models."""

import copy
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob as TrainJob
from kubernetes.client import models

from tests.servers.loopback import Loopback, Reply, Request, close
from tests.servers.models import WrongField, check, check_pydantic
from tests.servers.trainer import Denied, admit

KINDS = {
    "clustertrainingruntimes": "ClusterTrainingRuntime",
    "configmaps": "ConfigMap",
    "events": "Event",
    "namespaces": "Namespace",
    "nodes": "Node",
    "pods": "Pod",
    "secrets": "Secret",
    "serviceaccounts": "ServiceAccount",
    "services": "Service",
    "storageclasses": "StorageClass",
    "trainjobs": "TrainJob",
}
TRAINER = "trainer.kubeflow.org"
GROUPS = {
    "clustertrainingruntimes": TRAINER,
    "localsubjectaccessreviews": "authorization.k8s.io",
    "selfsubjectaccessreviews": "authorization.k8s.io",
    "storageclasses": "storage.k8s.io",
    "trainjobs": TRAINER,
}
VERSIONS = {TRAINER: "v1alpha1"}
"""Of the groups that are not at `v1`."""
REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    415: "UnsupportedMediaType",
    500: "InternalError",
}
PATH = re.compile(
    r"(?:/api|/apis/(?P<group>[\w.]+))/(?P<version>v1|v1alpha1)(?:/namespaces/(?P<namespace>[^/]+)(?=/))?"
    r"/(?P<resource>[a-z]+)(?:/(?P<name>[^/]+)(?:/(?P<part>[a-z]+))?)?"
)

Object = dict[str, Any]


@dataclass
class Event:
    """What happened to an object, and the version of the cluster since."""

    version: int
    kind: str
    resource: str
    object: Object


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
            if resource not in GROUPS and resource != "events"
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
        self.denied_accounts: set[tuple[str, str, str]] = set()
        """The same of whatever service account."""
        self.tokens: set[str] = set()
        """Where there is any, nobody else comes in."""
        self.version = "v1.33.1"
        self.trainer: str | None = "2.3.0"
        """Kubeflow Trainer's version; None where it is not installed."""
        self.past_logs: dict[tuple[str, str], str] = {}
        """What a container had printed before it was started again."""
        self.lingering = False
        """Whether the pods of a TrainJob that was deleted stay, and it with them."""
        self.history: list[Event] = []
        self.forgotten = 0
        """The version from which on changes are remembered; who follows from before is told that it is expired."""
        self.changed = threading.Condition()
        self.closed = False

    def __exit__(self, *error: object) -> None:
        self.closed = True
        super().__exit__(*error)

    # What a test tells the cluster

    def add(self, resource: str, name: str, namespace: str = "", **fields: Any) -> Object:
        """An object; `metadata` is merged with its name."""
        metadata = {"name": name, **({"namespace": namespace} if namespace else {}), **fields.pop("metadata", {})}
        group = GROUPS.get(resource, "")
        version = "/".join(filter(None, (group, VERSIONS.get(group, "v1"))))
        made = {"apiVersion": version, "kind": KINDS[resource], "metadata": metadata, **fields}
        if group != TRAINER:
            check(models, f"{'Core' if resource == 'events' else ''}V1{KINDS[resource]}", made)
        self.objects[resource][namespace, name] = made
        self._happened("ADDED", resource, made)
        return made

    def change(self, resource: str, namespace: str, name: str, change: Callable[[Object], object]) -> Object:
        """Changes an object, for those who watch to see."""
        found = self.objects[resource][namespace, name]
        change(found)
        if GROUPS.get(resource) != TRAINER:
            check(models, f"V1{KINDS[resource]}", {key: value for key, value in found.items()})
        self._happened("MODIFIED", resource, found)
        return found

    def remove(self, resource: str, namespace: str, name: str) -> None:
        """Removes an object, if it is there, and the TrainJobs that were its own and nobody else's."""
        found = self.objects[resource].pop((namespace, name), None)
        if found:
            self._happened("DELETED", resource, found)
            self._collect_owned(found["metadata"].get("uid"))

    def _collect_owned(self, uid: str | None) -> None:
        there = {each["metadata"].get("uid") for kind in self.objects.values() for each in kind.values()}
        for (namespace, name), job in list(self.objects["trainjobs"].items()):
            owners = {each["uid"] for each in job["metadata"].get("ownerReferences", [])}
            if uid in owners and not owners & there:
                self.collect(namespace, name)

    def forget(self) -> None:
        """Forgets all that has happened, as a server does after some minutes; who watches is told to begin anew."""
        with self.changed:
            self.history.append(Event(len(self.history) + 1, "FORGOTTEN", "", {"metadata": {}}))
            self.forgotten = len(self.history)

    def hang_up(self) -> None:
        """Breaks every connection that is open."""
        for connection in list(self._connections):
            close(connection)

    def watched(self, resource: str) -> int:
        """How many requests have asked to watch objects of a kind."""
        asked = [request for request in self.log if asks(request.query, "watch")]
        return sum(request.path.endswith(f"/{resource}") for request in asked)

    def _happened(self, kind: str, resource: str, found: Object) -> None:
        with self.changed:
            version = len(self.history) + 1
            found["metadata"]["resourceVersion"] = str(version)
            self.history.append(Event(version, kind, resource, copy.deepcopy(found)))
            self.changed.notify_all()

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

    def kubeconfig(self, path: Path, context: str = "here", token: str = "", namespace: str = "") -> Path:
        """Writes a kubeconfig that leads here."""
        user = {"token": token} if token else {}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": context,
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "me", "user": user}],
            "contexts": [{"name": context, "context": {"cluster": "fake", "user": "me", "namespace": namespace}}],
        }
        path.write_text(yaml.safe_dump(config))
        return path

    # The protocol

    def answer(self, request: Request) -> Reply:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if self.tokens and not (scheme.lower() == "bearer" and token in self.tokens):
            return failure(401, "Unauthorized")
        if request.path.rstrip("/") == "/version":
            return Reply(200, self.version_info())
        if request.path in DISCOVERY:
            return Reply(200, DISCOVERY[request.path])
        if request.path == f"/apis/{TRAINER}/v1alpha1" and self.trainer:
            return Reply(200, {"kind": "APIResourceList", "groupVersion": f"{TRAINER}/v1alpha1", "resources": []})
        match = PATH.fullmatch(request.path)
        if match is None or not self.serves(match):
            return failure(404, "the server could not find the requested resource")
        if match["resource"].endswith("subjectaccessreviews"):
            return self.review(request, match["resource"])
        return self.denial(request, match) or self.act(request, match)

    def serves(self, match: re.Match[str]) -> bool:
        """Whether there are such resources here."""
        group = match["group"] or ""
        known = group == GROUPS.get(match["resource"], "") and match["version"] == VERSIONS.get(group, "v1")
        return known and (group != TRAINER or self.trainer is not None)

    def act(self, request: Request, match: re.Match[str]) -> Reply:
        """Does what a request that is allowed asks for."""
        resource, name, namespace = match["resource"], match["name"] or "", match["namespace"] or ""
        if request.method == "POST" and resource == "trainjobs":
            return self.create(request, namespace)
        if request.method == "PATCH" and resource == "trainjobs":
            return self.patch(request, namespace, name)
        if request.method == "DELETE" and resource == "trainjobs":
            return self.delete(request, namespace, name)
        if asks(request.query, "watch") and resource in KINDS:
            version = int(request.query["resourceVersion"])
            old = version < self.forgotten
            return self.expired(version) if old else Reply(200, self.watch(request, resource, namespace, version))
        return self.look(request, match)

    def denial(self, request: Request, match: re.Match[str]) -> Reply | None:
        """The answer to who lacks a right, in the words of Kubernetes."""
        resource, part, group = match["resource"], match["part"], GROUPS.get(match["resource"], "")
        verb, asked = verb_of(request, match["name"]), f"{resource}/{part}" if part else resource
        if (group, asked, verb) not in self.denied:
            return None
        where = f' in the namespace "{match["namespace"]}"' if match["namespace"] else " at the cluster scope"
        named = f"{asked}.{group}" if group else asked
        told = f'{named} is forbidden: User "me" cannot {verb} resource "{asked}" in API group "{group}"{where}'
        return failure(403, told)

    def version_info(self) -> Object:
        major, minor = self.version.removeprefix("v").split(".")[:2]
        known = {"gitVersion": self.version, "major": major, "minor": minor}
        unknown = ("buildDate", "compiler", "gitCommit", "gitTreeState", "goVersion", "platform")
        return known | dict.fromkeys(unknown, "")

    def review(self, request: Request, resource: str) -> Reply:
        """A review of access: one's own, or in a namespace that of another, such as a service account."""
        given = request.json()
        own = resource == "selfsubjectaccessreviews"
        if not own and ("authorization.k8s.io", resource, "create") in self.denied:
            return failure(403, f'{resource} is forbidden: User "me" cannot create resource "{resource}"')
        try:
            check(models, "V1SelfSubjectAccessReview" if own else "V1LocalSubjectAccessReview", given)
        except WrongField as error:
            return failure(400, f"strict decoding error: {error}")
        asked = given["spec"]["resourceAttributes"]
        named = "/".join(filter(None, (asked["resource"], asked.get("subresource"))))
        denied = self.denied if own else self.denied_accounts
        allowed = (asked.get("group", ""), named, asked["verb"]) not in denied
        return Reply(201, given | {"status": {"allowed": allowed}})

    def look(self, request: Request, match: re.Match[str]) -> Reply:
        """Answers a GET of one object, of a list, or of a pod's log."""
        resource, name, part = match["resource"], match["name"], match["part"]
        namespace = match["namespace"] or ""
        if request.method != "GET" or resource not in KINDS:
            return failure(404, "the server could not find the requested resource")
        if not name:
            return Reply(200, self.listed(resource, namespace, request.query))
        found = self.objects[resource].get((namespace, name))
        if found is None:
            return failure(404, f'{resource} "{name}" not found')
        if part == "log":
            return self.log_of(found, request)
        return Reply(200, partial(found) if "PartialObjectMetadata" in request.headers.get("Accept", "") else found)

    def listed(self, resource: str, namespace: str, query: dict[str, str]) -> Object:
        with self.changed:
            found = [each for (home, _), each in self.objects[resource].items() if namespace in ("", home)]
            items = [copy.deepcopy(each) for each in found if selected(each, query)]
            metadata = {"resourceVersion": str(len(self.history))}
        return {"apiVersion": "v1", "kind": f"{KINDS[resource]}List", "metadata": metadata, "items": items}

    def expired(self, version: int) -> Reply:
        """The answer to who follows from a version of which the changes since are forgotten."""
        return failure(410, f"too old resource version: {version} ({self.forgotten})")

    def watch(self, request: Request, resource: str, namespace: str, version: int) -> Iterator[str]:
        """What happens to the objects after a version, a line of JSON each."""
        end = time.monotonic() + float(request.query.get("timeoutSeconds", "1800"))
        while time.monotonic() < end and not self.closed:
            with self.changed:
                if version < self.forgotten:
                    yield json.dumps({"type": "ERROR", "object": self.expired(version).content}) + "\n"
                    return
                news = self.history[version:]
                version = len(self.history)
                if not news:
                    self.changed.wait(0.05)
            for event in news:
                home = event.object["metadata"].get("namespace", "")
                if event.resource == resource and home == namespace and selected(event.object, request.query):
                    yield json.dumps({"type": event.kind, "object": event.object}) + "\n"

    def create(self, request: Request, namespace: str) -> Reply:
        """A TrainJob, as Kubeflow Trainer's admission lets it in."""
        given = request.json()
        try:
            admitted = admit(given, self.trainer or "", {name for _, name in self.objects["clustertrainingruntimes"]})
        except (WrongField, Denied) as error:
            return failure(400 if isinstance(error, WrongField) else 403, str(error))
        name = admitted["metadata"]["name"]
        with self.changed:
            if (namespace, name) in self.objects["trainjobs"]:
                return failure(409, f'trainjobs.trainer.kubeflow.org "{name}" already exists')
            given_metadata = {"uid": str(uuid.uuid4()), "creationTimestamp": "2026-01-01T00:00:00Z"}
            rest = {key: value for key, value in admitted.items() if key not in ("apiVersion", "kind", "metadata")}
            metadata = admitted["metadata"] | given_metadata
            return Reply(201, self.add("trainjobs", name, namespace, metadata=metadata, **rest))

    def patch(self, request: Request, namespace: str, name: str) -> Reply:
        """Changes a TrainJob by a merge patch."""
        if request.headers.get("Content-Type") != "application/merge-patch+json":
            return failure(415, "the body of the request was in an unknown format")
        with self.changed:
            found = self.objects["trainjobs"].get((namespace, name))
            if found is None:
                return failure(404, f'trainjobs.trainer.kubeflow.org "{name}" not found')
            patched = merged(found, request.json())
            try:
                check_pydantic(TrainJob, patched)
            except WrongField as error:
                return failure(400, str(error))
            return Reply(200, self.change("trainjobs", namespace, name, lambda job: job.update(patched)))

    def delete(self, request: Request, namespace: str, name: str) -> Reply:
        """Deletes a TrainJob: in the foreground, after its pods."""
        options = request.json() if request.content else {}
        with self.changed:
            found = self.objects["trainjobs"].get((namespace, name))
            if found is None:
                return failure(404, f'trainjobs.trainer.kubeflow.org "{name}" not found')
            if options.get("preconditions", {}).get("uid", found["metadata"]["uid"]) != found["metadata"]["uid"]:
                return failure(409, "the UID in the precondition does not match the UID in record")
            gone = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
            self.change("trainjobs", namespace, name, lambda job: job["metadata"].update(gone))
            if not self.lingering:
                self.collect(namespace, name)
            return Reply(200, found)

    def collect(self, namespace: str, name: str) -> None:
        """Removes the pods of a TrainJob, and it."""
        label = ("jobset.sigs.k8s.io/jobset-name", name)
        for home, pod in list(self.objects["pods"]):
            if home == namespace and label in self.objects["pods"][home, pod]["metadata"].get("labels", {}).items():
                self.remove("pods", home, pod)
        self.remove("trainjobs", namespace, name)

    def log_of(self, pod: Object, request: Request) -> Reply:
        key = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        statuses = {each["name"] for each in pod.get("status", {}).get("containerStatuses", [])} or {"main"}
        container = request.query.get("container", next(iter(statuses)))
        logs = self.past_logs if asks(request.query, "previous") else self.logs
        if container not in statuses:
            return failure(400, f"container {container} is not valid for pod {key[1]}")
        if key not in logs:
            return failure(400, f'container "{container}" in pod "{key[1]}" is waiting to start: ContainerCreating')
        if asks(request.query, "follow"):
            return Reply(200, stamped(self.follow(key), request.query))
        lines = logs[key].splitlines(keepends=True)
        shown = lines[-int(request.query.get("tailLines", len(lines))) :] if lines else []
        return Reply(200, "".join(stamped(shown, request.query)))

    def follow(self, key: tuple[str, str]) -> Iterator[str]:
        """The log as it grows, until the container has ended or its pod is gone."""
        sent = 0
        while not self.closed:
            pod = self.objects["pods"].get(key)
            ended = pod is None or "terminated" in pod["status"]["containerStatuses"][0]["state"]
            text = self.logs[key]
            if text[sent:]:
                yield text[sent:]
            sent = len(text)
            if ended:
                return
            time.sleep(0.01)


def asks(query: dict[str, str], name: str) -> bool:
    """Whether a flag of a request is set; Python's client writes `True`."""
    return query.get(name) in ("true", "True")


def verb_of(request: Request, name: str | None) -> str:
    """What Kubernetes calls the request when it asks for the right to it."""
    if request.method == "GET":
        return "watch" if asks(request.query, "watch") else "get" if name else "list"
    return {"POST": "create", "DELETE": "delete"}.get(request.method, request.method.lower())


def selected(found: Object, query: dict[str, str]) -> bool:
    """Whether an object is among those that the selectors of a request mean."""
    labels = dict(pair.split("=", 1) for pair in query.get("labelSelector", "").split(",") if pair)
    fields = dict(pair.split("=", 1) for pair in query.get("fieldSelector", "").split(",") if pair)
    of_labels = labels.items() <= found["metadata"].get("labels", {}).items()
    return of_labels and all(_field(found, path) == value for path, value in fields.items())


def _field(found: Object, path: str) -> Any:
    value: Any = found
    for part in path.split("."):
        value = value.get(part, {})
    return value


def stamped(texts: Iterable[str], query: dict[str, str]) -> Iterator[str]:
    """A log as it comes; where that is asked for with a time before each line, from a time on: one each millisecond."""
    if not asks(query, "timestamps"):
        yield from texts
        return
    number, rest = 0, ""
    for text in texts:
        *lines, rest = (rest + text).split("\n")
        for line in lines:
            seconds, milliseconds = divmod(number, 1000)
            moment = f"2026-01-01T00:00:{seconds:02}.{milliseconds:03}000000Z"
            if moment[:19] >= query.get("sinceTime", "")[:19]:
                yield f"{moment} {line}\n"
            number += 1


def merged(target: Any, patch: Any) -> Any:
    """A value after a merge patch (RFC 7386): lists are replaced, null removes."""
    if not isinstance(patch, dict):
        return patch
    known = target if isinstance(target, dict) else {}
    changed = known | {key: merged(known.get(key), value) for key, value in patch.items()}
    return {key: value for key, value in changed.items() if value is not None}


def partial(found: Object) -> Object:
    return {"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": found["metadata"]}


def failure(code: int, message: str) -> Reply:
    status = {"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure"}
    return Reply(code, status | {"code": code, "reason": REASONS[code], "message": message})
