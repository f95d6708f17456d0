"""The pods that Kubeflow Pipelines makes of a compiled pipeline, as its backend's source says.

Sources, kubeflow/pipelines 2.17.0: backend/src/v2/compiler/argocompiler/{container,security_context,argo}.go and
backend/src/v2/driver/{driver,k8s}.go; argoproj/argo-workflows v4.0.5: workflow/controller/workflowpod.go.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from pipelines.retrain import compile
from pipelines.settings import Settings

Pod = dict[str, Any]

RESTRICTED: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""What the compiler sets on every container of a step."""

DRIVER: Pod = {
    "metadata": {"labels": {"pipelines.kubeflow.org/v2_component": "true"}},
    "spec": {
        "serviceAccountName": "retrain-runner",
        "initContainers": [{"name": "init", "image": "quay.io/argoproj/argoexec:v4.0.5"}],
        "containers": [
            {"name": "wait", "volumeMounts": [{"name": "tmp-dir-argo", "mountPath": "/tmp", "subPath": "0"}]},
            {"name": "main", "image": "ghcr.io/kubeflow/kfp-driver:2.17.0"},
        ],
        "volumes": [{"name": "var-run-argo", "emptyDir": {}}, {"name": "tmp-dir-argo", "emptyDir": {}}],
    },
}
"""A driver's pod, as far as a read-only root concerns it. It writes to /tmp/outputs, and mounts nothing there."""


def compiled(settings: Settings, room: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two documents of the compiled pipeline: its specification, and Kubernetes' part of its platforms."""
    package = room / "retrain.yaml"
    compile(package, settings)
    specification, platforms = yaml.safe_load_all(package.read_text())
    return specification, platforms["platforms"]["kubernetes"]


def step_pods(settings: Settings, room: Path) -> dict[str, Pod]:
    """The pod of each step, by its name, with the step's container alone."""
    specification, platform = compiled(settings, room)
    executors = specification["deploymentSpec"]["executors"]
    placed = platform["deploymentSpec"]["executors"]
    assert set(placed) == set(executors)
    return {
        name.removeprefix("exec-"): _pod(found["container"], placed[name], settings)
        for name, found in executors.items()
    }


def _pod(container: dict[str, Any], placed: dict[str, Any], settings: Settings) -> Pod:
    context = placed.get("securityContext", {})
    numbers = {key: int(context[key]) for key in ("runAsUser", "runAsGroup") if key in context}
    flags = {key: context[key] for key in ("runAsNonRoot",) if key in context}
    mounts = placed.get("emptyDirMounts", [])
    main = {
        "name": "main",
        "image": container["image"],
        "securityContext": RESTRICTED | numbers | flags,
        "resources": _resources(container.get("resources", {})),
        "env": container.get("env", []) + [_reference(*each) for each in _secrets(placed)],
        "volumeMounts": [{"name": mount["volumeName"], "mountPath": mount["mountPath"]} for mount in mounts],
    }
    volumes = [{"name": mount["volumeName"], "emptyDir": _empty_dir(mount)} for mount in mounts]
    seccomp = {"seccompProfile": RESTRICTED["seccompProfile"]}
    spec = {"securityContext": seccomp, "containers": [main], "volumes": volumes}
    return {"metadata": DRIVER["metadata"], "spec": {"serviceAccountName": "retrain-runner"} | spec}


def _empty_dir(mount: dict[str, Any]) -> dict[str, str]:
    return {key: mount[key] for key in ("medium", "sizeLimit") if mount.get(key)}


def _resources(resources: dict[str, Any]) -> dict[str, dict[str, str]]:
    names = {re.sub("^resource", "", key): value for key, value in resources.items() if key.startswith("resource")}
    return {
        bound: {what.lower(): names[what + kind] for what in ("Cpu", "Memory") if what + kind in names}
        for bound, kind in (("requests", "Request"), ("limits", "Limit"))
    }


def _secrets(placed: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [
        (key["envVar"], secret["secretName"], key["secretKey"])
        for secret in placed.get("secretAsEnv", [])
        for key in secret["keyToEnv"]
    ]


def _reference(variable: str, secret: str, key: str) -> dict[str, Any]:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
