"""The TrainJob: how the cluster is asked for workers, and what its status says.

Source: kubeflow/trainer v2.3.0, pkg/apis/trainer/v1alpha1/trainjob_types.go, pkg/runtime/framework/plugins/torch.
"""

from components.train.interface import Train
from components.train.trainjob.cluster import Object
from components.train.trainjob.needs import RUNTIME
from components.train.trainjob.origin import Origin

NODE = "node"
"""What a runtime calls the workers, and their container."""

IDENTITY = "retrain/identity"
"""The label by which a TrainJob is known as the training's own."""

WORKER = {"app.kubernetes.io/name": "retrain-worker", "sidecar.istio.io/inject": "false"}
"""Labels of a worker's pod: for network policies; and because a sidecar would outlive the worker."""

PENDING_SECONDS = 30 * 60.0
"""For which workers may wait for room in the cluster."""

IMAGE_SECONDS = 5 * 60.0
"""For which they may wait for their image, which this step's own pod has got."""


def name_of(identity: str) -> str:
    """The TrainJob's name."""
    return f"retrain-{identity}"


def trainjob(step: Train, identity: str, pod: Origin) -> Object:
    """A TrainJob of `step.nodes` workers, as the step's own pod is, with a process a GPU."""
    processes = max(1, int(step.gpus))
    run = {key: value for key, value in pod.metadata.get("labels", {}).items() if key == "pipeline/runid"}
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {
            "name": name_of(identity),
            "labels": {"app.kubernetes.io/name": "retrain", IDENTITY: identity} | run,
            "ownerReferences": [pod.owner],
        },
        "spec": {
            "runtimeRef": {"apiGroup": "trainer.kubeflow.org", "kind": "ClusterTrainingRuntime", "name": RUNTIME},
            "trainer": {
                "image": pod.container["image"],
                "command": _torchrun(),
                "args": ["--store", step.store, "--training", identity],
                "env": [_divided(variable, processes) for variable in pod.environment],
                "numNodes": step.nodes,
                "numProcPerNode": processes,
                "resourcesPerNode": pod.resources(step.gpu_type, step.gpus),
            },
            "runtimePatches": [{"manager": "retrain/train", "trainingRuntimeSpec": _patched(_worker(pod, run))}],
        }
        | pod.deadline,
    }


def _torchrun() -> list[str]:
    """What a worker runs; the runtime's plugin sets PET_NNODES and its like, which torchrun reads."""
    # By itself torchrun waits 15 minutes for the others: whether they come at all is for the step to say.
    seconds = PENDING_SECONDS + IMAGE_SECONDS
    return ["torchrun", f"--rdzv-conf=timeout={seconds:.0f}", "-m", "components.train.trainjob"]


def _divided(variable: Object, processes: int) -> Object:
    """A variable of the step for a process of its workers: each has a part of the threads."""
    if variable["name"] != "OMP_NUM_THREADS" or not variable.get("value", "").isdecimal():
        return variable
    return variable | {"value": str(max(1, int(variable["value"]) // processes))}


def _worker(pod: Origin, labels: dict[str, str]) -> Object:
    """What is changed of the runtime's template of a worker's pod."""
    container = {"name": NODE, "securityContext": pod.container.get("securityContext", {}), "volumeMounts": pod.mounts}
    spec = pod.copied() | {"volumes": pod.volumes, "containers": [container]}
    return {"metadata": {"labels": WORKER | labels}, "spec": spec}


def _patched(template: Object) -> Object:
    return {"template": {"spec": {"replicatedJobs": [{"name": NODE, "template": {"spec": {"template": template}}}]}}}


def ours(job: Object, identity: str) -> bool:
    """Whether the training made this TrainJob."""
    return bool(job["metadata"].get("labels", {}).get(IDENTITY) == identity)


def leaving(job: Object) -> bool:
    """Whether somebody has deleted it, and the cluster waits for its pods to go."""
    return "deletionTimestamp" in job["metadata"]


def condition(job: Object, kind: str) -> Object | None:
    """The condition `Complete`, `Failed` or `Suspended`, where it holds."""
    conditions = job.get("status", {}).get("conditions", [])
    return next((each for each in conditions if each["type"] == kind and each["status"] == "True"), None)
