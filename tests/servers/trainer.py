"""What Kubeflow Trainer's admission makes of a TrainJob.

Source: kubeflow/trainer v2.3.0, pkg/webhooks/trainjob_webhook.go, pkg/runtime/framework/plugins/{jobset,torch}, and the
rules of the CRD in pkg/apis/trainer/v1alpha1/trainjob_types.go. Its fields are those of `kubeflow_trainer_api`.
"""

import copy
import re
from collections.abc import Iterator
from typing import Any

from kubeflow_trainer_api import models

from tests.servers.models import check_pydantic

Object = dict[str, Any]

NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
MANAGER = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?/.+")
RESERVED = ("PET_NNODES", "PET_NPROC_PER_NODE", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT")


class Denied(Exception):
    """The admission's refusal."""


def admit(job: Object, version: str, runtimes: set[str]) -> Object:
    """The TrainJob as it is stored by Trainer of a version, such as 2.3.0. Raises WrongField or Denied."""
    check_pydantic(models.TrainerV1alpha1TrainJob, job)
    for wrong in _wrong(job["spec"], job["metadata"]["name"], runtimes):
        raise Denied(f'admission webhook "validator.trainjob.trainer.kubeflow.org" denied the request: {wrong}')
    stored = copy.deepcopy(job)
    if version.startswith(("2.0", "2.1")):  # before runtimePatches: what a CRD does not know is dropped
        del stored["spec"]["runtimePatches"]
    return stored


def _wrong(spec: Object, name: str, runtimes: set[str]) -> Iterator[str]:
    if not NAME.fullmatch(name):
        yield "metadata.name must match RFC 1035 DNS label format"
    runtime = spec["runtimeRef"]["name"]
    if runtime not in runtimes:
        yield (
            f'spec.RuntimeRef: Invalid value: {{"name":"{runtime}"}}: ClusterTrainingRuntime.trainer.kubeflow.org '
            f'"{runtime}" not found: specified clusterTrainingRuntime must be created before the TrainJob is created'
        )
    reserved = [variable["name"] for variable in spec["trainer"].get("env", []) if variable["name"] in RESERVED]
    if reserved:
        yield f"spec.trainer.env: must not have reserved envs, invalid envs configured: {reserved}"
    for patch in spec.get("runtimePatches", []):
        if not MANAGER.fullmatch(patch["manager"]):
            yield 'spec.runtimePatches.manager: must be a domain-prefixed path (such as "acme.io/foo")'
        for job in patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]:
            yield from _wrong_patch(job)


def _wrong_patch(job: Object) -> Iterator[str]:
    if job["name"] != "node":
        yield "must not have replicated job that doesn't exist in the runtime job template"
    for container in job["template"]["spec"]["template"]["spec"].get("containers", []):
        if container["name"] != "node":
            yield "must not have container that doesn't exist in the runtime job node"
        if container.get("env"):
            yield "must not have envs for the dataset-initializer, model-initializer, node containers"


def worker_pod(job: Object) -> Object:
    """The pod that JobSet makes of a TrainJob's runtime, which has a bare container, its patches and its trainer.

    Source: the same, pkg/runtime/core/trainingruntime.go, and manifests/base/runtimes/torch_distributed.yaml.
    """
    (patch,) = job["spec"]["runtimePatches"]
    (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    template = copy.deepcopy(replicated["template"]["spec"]["template"])
    trainer = job["spec"]["trainer"]
    (container,) = template["spec"]["containers"]
    container |= {key: trainer[key] for key in ("image", "command", "args", "env")}
    container["resources"] = trainer["resourcesPerNode"]
    return {"metadata": template["metadata"], "spec": template["spec"] | {"restartPolicy": "OnFailure"}}
