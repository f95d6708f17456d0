"""What every pod must be: Pod Security `restricted`, and a read-only root, limits, images that stay the same.

Source: Kubernetes, Pod Security Standards, profile "restricted".
"""

import re
from collections.abc import Iterator
from typing import Any

CREDENTIAL = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL", re.IGNORECASE)


def violations(pod: dict[str, Any]) -> list[str]:
    """One sentence for each rule that the pod, or template of pods, breaks."""
    spec = pod["spec"]
    broken = list(_pod(spec))
    for container in spec.get("initContainers", []) + spec["containers"]:
        broken += [f"{container['name']}: {rule}" for rule in _container(container, spec.get("securityContext", {}))]
    return broken


def _pod(spec: dict[str, Any]) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield f"{field} is on"
    if any("hostPath" in volume for volume in spec.get("volumes", [])):
        yield "a volume is a path of the node"
    if spec.get("automountServiceAccountToken") is not False:
        yield "it has a service account's token"


def _container(container: dict[str, Any], pod: dict[str, Any]) -> Iterator[str]:
    own = container.get("securityContext", {})
    context = pod | own
    if context.get("runAsNonRoot") is not True:
        yield "it may run as root"
    if not context.get("runAsUser", 0) > 0:
        yield "its user is no number above 0"
    if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
        yield "it may gain privileges"
    if own.get("capabilities") != {"drop": ["ALL"]}:
        yield "it keeps capabilities"
    if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "it has no seccomp profile"
    if own.get("readOnlyRootFilesystem") is not True:
        yield "its root can be written"
    yield from _resources(container.get("resources", {}))
    yield from _image(container["image"])
    yield from _environment(container.get("env", []))


def _resources(resources: dict[str, Any]) -> Iterator[str]:
    for bound in ("requests", "limits"):
        for name in ("cpu", "memory"):
            if name not in resources.get(bound, {}):
                yield f"its {bound} have no {name}"


def _image(image: str) -> Iterator[str]:
    tag = image.rpartition("/")[2].partition(":")[2]
    if "@sha256:" not in image and tag in ("", "latest"):
        yield f"its image {image} changes"


def _environment(variables: list[dict[str, Any]]) -> Iterator[str]:
    for variable in variables:
        if CREDENTIAL.search(variable["name"]) and "value" in variable:
            yield f"{variable['name']} has its value in the manifest"
