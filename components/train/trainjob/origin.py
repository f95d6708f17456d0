"""The step's own pod: what its workers have of it."""

import os
import re
import socket
from typing import Any

from components.step import StepError, UserError
from components.train.trainjob.cluster import Cluster, Object, Refused

MOUNTED = ("/dev/shm", "/tmp")
"""Where the workers have an emptyDir as the step has. What else is mounted is KFP's, Argo's or the cluster's own."""

FOREIGN = ("ARGO_", "KFP_", "PET_")
"""Starts of variables that are meant for Argo, for KFP's launcher, and for torchrun."""

SECRET = re.compile(r"(KEY|SECRET|TOKEN|PASSWORD|CREDENTIALS?)(_ID)?$")
"""Variables whose value no object may hold."""

COPIED = (
    "affinity",
    "imagePullSecrets",
    "nodeSelector",
    "securityContext",
    "serviceAccountName",
    "terminationGracePeriodSeconds",
    "tolerations",
)
"""Of a pod's specification."""


class Origin:
    """The pod that this process runs in."""

    def __init__(self, pod: Object) -> None:
        self.metadata: Object = pod["metadata"]
        self.spec: Object = pod["spec"]
        boxes = {container["name"]: container for container in self.spec["containers"]}
        self.container: Object = boxes.get("main") or self.spec["containers"][0]  # Argo calls it main

    @property
    def owner(self) -> Object:
        """The reference by which the cluster removes what this pod has made, with it."""
        return {"apiVersion": "v1", "kind": "Pod", "name": self.metadata["name"], "uid": self.metadata["uid"]}

    @property
    def deadline(self) -> dict[str, int]:
        """Seconds that the pod may live, and the workers with it; empty where it has no limit."""
        seconds = self.spec.get("activeDeadlineSeconds")
        return {"activeDeadlineSeconds": seconds} if seconds else {}

    @property
    def environment(self) -> list[Object]:
        """The container's variables, secrets by reference. Raises UserError where one stands there by its value."""
        variables = [each for each in self.container.get("env", []) if not each["name"].startswith(FOREIGN)]
        for variable in variables:
            if SECRET.search(variable["name"]) and variable.get("value"):
                raise UserError(
                    f"{variable['name']} has its value in pod {self.metadata['name']}, and other pods must not get it "
                    "so; name a secret in the settings"
                )
        return variables

    @property
    def mounts(self) -> list[Object]:
        return [mount for mount in self.container.get("volumeMounts", []) if mount["mountPath"] in MOUNTED]

    @property
    def volumes(self) -> list[Object]:
        """What `mounts` mount."""
        mounted = {mount["name"] for mount in self.mounts}
        return [volume for volume in self.spec.get("volumes", []) if volume["name"] in mounted]

    def resources(self, gpu_type: str, gpus: str) -> Object:
        """What the container asks for and may use, with so many GPUs."""
        given = {gpu_type: gpus} if gpus != "0" else {}
        known = self.container.get("resources", {})
        return {bound: _without(known.get(bound, {}), gpu_type) | given for bound in ("requests", "limits")}

    def copied(self) -> Object:
        """Where and as whom the pod runs."""
        return {key: self.spec[key] for key in COPIED if self.spec.get(key)}


def _without(quantities: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in quantities.items() if key != name}


def origin(cluster: Cluster) -> Origin:
    """This process's own pod. Raises StepError where there is none of the name."""
    name = os.environ.get("KFP_POD_NAME") or socket.gethostname()  # of a pod with a long name, a host has a part
    try:
        return Origin(cluster.call("GET", cluster.path("pods", name)))
    except Refused as refused:
        raise StepError(
            f"pod {name!r}, in which this step should run, cannot be read in namespace {cluster.namespace!r}: {refused}"
        ) from None
