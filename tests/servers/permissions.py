"""What KFP's API server asks of Kubernetes before it answers, in multi-user mode: endpoint -> (resource, verb).

Each is a SubjectAccessReview in the API group `pipelines.kubeflow.org`, in the namespace of what is asked for. Versions
of a pipeline are asked for as `pipelines`, recurring runs as `jobs`.

Source: kubeflow/pipelines 2.17.0, backend/src/apiserver/server/*_server.go and common/const.go.
"""

import re

GROUP = "pipelines.kubeflow.org"

_API = "/apis/v2beta1"
_PIPELINE = f"{_API}/pipelines/{{pipeline_id}}"
_VERSION = f"{_PIPELINE}/versions/{{pipeline_version_id}}"
_EXPERIMENT = f"{_API}/experiments/{{experiment_id}}"
_RUN = f"{_API}/runs/{{run_id}}"
_RECURRING_RUN = f"{_API}/recurringruns/{{recurring_run_id}}"

PERMISSIONS: dict[tuple[str, str], tuple[str, str]] = {
    ("GET", f"{_API}/pipelines"): ("pipelines", "list"),
    ("POST", f"{_API}/pipelines"): ("pipelines", "create"),
    ("POST", f"{_API}/pipelines/create"): ("pipelines", "create"),
    ("POST", f"{_API}/pipelines/upload"): ("pipelines", "create"),
    ("POST", f"{_API}/pipelines/upload_version"): ("pipelines", "create"),
    ("GET", f"{_API}/pipelines/names/{{name}}"): ("pipelines", "get"),
    ("GET", _PIPELINE): ("pipelines", "get"),
    ("PATCH", _PIPELINE): ("pipelines", "update"),
    ("DELETE", _PIPELINE): ("pipelines", "delete"),
    ("GET", f"{_PIPELINE}/versions"): ("pipelines", "list"),
    ("POST", f"{_PIPELINE}/versions"): ("pipelines", "create"),
    ("GET", _VERSION): ("pipelines", "get"),
    ("PATCH", _VERSION): ("pipelines", "update"),
    ("DELETE", _VERSION): ("pipelines", "delete"),
    ("GET", f"{_API}/experiments"): ("experiments", "list"),
    ("POST", f"{_API}/experiments"): ("experiments", "create"),
    ("GET", _EXPERIMENT): ("experiments", "get"),
    ("DELETE", _EXPERIMENT): ("experiments", "delete"),
    ("POST", f"{_EXPERIMENT}:archive"): ("experiments", "archive"),
    ("POST", f"{_EXPERIMENT}:unarchive"): ("experiments", "unarchive"),
    ("GET", f"{_API}/runs"): ("runs", "list"),
    ("POST", f"{_API}/runs"): ("runs", "create"),
    ("GET", _RUN): ("runs", "get"),
    ("DELETE", _RUN): ("runs", "delete"),
    ("POST", f"{_RUN}:archive"): ("runs", "archive"),
    ("POST", f"{_RUN}:unarchive"): ("runs", "unarchive"),
    ("POST", f"{_RUN}:terminate"): ("runs", "terminate"),
    ("POST", f"{_RUN}:retry"): ("runs", "retry"),
    ("GET", f"{_RUN}/nodes/{{node_id}}/artifacts/{{artifact_name}}:read"): ("runs", "readArtifact"),
    ("GET", f"{_API}/recurringruns"): ("jobs", "list"),
    ("POST", f"{_API}/recurringruns"): ("jobs", "create"),
    ("GET", _RECURRING_RUN): ("jobs", "get"),
    ("DELETE", _RECURRING_RUN): ("jobs", "delete"),
    ("POST", f"{_RECURRING_RUN}:enable"): ("jobs", "enable"),
    ("POST", f"{_RECURRING_RUN}:disable"): ("jobs", "disable"),
}


def required(method: str, path: str) -> tuple[str, str] | None:
    """The resource and the verb that a request needs; None where KFP asks for nothing, as for its health.

    Where two patterns match, the one with a literal segment stands first: `pipelines/upload` is no pipeline's name.
    """
    literal_first = sorted(PERMISSIONS, key=lambda endpoint: endpoint[1].count("{"))
    return next((PERMISSIONS[key] for key in literal_first if key[0] == method and _matches(key[1], path)), None)


def _matches(pattern: str, path: str) -> bool:
    return re.fullmatch(re.sub(r"\\\{\w+\\\}", "[^/:]+", re.escape(pattern)), path) is not None
