"""What a cluster does with a TrainJob, on the Kubernetes API on loopback: pods appear, print, end, as a test says."""

import time
from collections.abc import Callable
from typing import Any

from tests.servers.kubernetes import FakeKubernetes, Object

NAMESPACE = "team"
MAIN = "retrain-x-train"

INDEX = "batch.kubernetes.io/job-completion-index"
MOMENT = "2026-01-01T00:00:{:02}Z"


def own_pod(server: FakeKubernetes, *environment: Object, name: str = MAIN, uid: str = "u-1") -> Object:
    """The pod of the train step, as Kubeflow Pipelines makes it (2.17.0, argocompiler/container.go)."""
    reference = {"secretKeyRef": {"name": "retrain-store", "key": "AWS_SECRET_ACCESS_KEY"}}
    main = {
        "name": "main",
        "image": "example.com/train:1",
        "env": [
            {"name": "KFP_POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "ARGO_TEMPLATE", "value": "{}"},
            {"name": "AWS_REGION", "value": "us-east-1"},
            {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": "/var/run/token"},
            {"name": "AWS_SECRET_ACCESS_KEY", "valueFrom": reference},
            {"name": "OMP_NUM_THREADS", "value": "1"},
            *environment,
        ],
        "resources": {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"cpu": "2", "memory": "4Gi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": "var-run-argo", "mountPath": "/var/run/argo"},
            {"name": "kfp-launcher", "mountPath": "/kfp-launcher"},
            {"name": "shm", "mountPath": "/dev/shm"},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    return server.add(
        "pods",
        name,
        NAMESPACE,
        metadata={"uid": uid, "labels": {"pipeline/runid": "r-1", "pipelines.kubeflow.org/v2_component": "true"}},
        spec={
            "activeDeadlineSeconds": 43200,
            "containers": [{"name": "wait", "image": "argoexec:1"}, main],
            "nodeSelector": {"pool": "gpu"},
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "serviceAccountName": "retrain-runner",
            "terminationGracePeriodSeconds": 30,
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "volumes": [
                {"name": "var-run-argo", "emptyDir": {}},
                {"name": "kfp-launcher", "emptyDir": {}},
                {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
                {"name": "tmp", "emptyDir": {}},
            ],
        },
    )


def until(holds: Callable[[], Any], seconds: float = 300.0) -> Any:
    """What `holds` returns, as soon as it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = holds()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError("it never came to pass")


class Controller:
    """The controllers of Trainer, JobSet and Job, played by hand."""

    def __init__(self, server: FakeKubernetes, identity: str) -> None:
        self.server, self.name = server, f"retrain-{identity}"

    @property
    def job(self) -> Object:
        return self.server.objects["trainjobs"][NAMESPACE, self.name]

    @property
    def made(self) -> bool:
        """Whether there is a TrainJob."""
        return (NAMESPACE, self.name) in self.server.objects["trainjobs"]

    def wait(self) -> Object:
        """For the TrainJob."""
        until(lambda: self.made)
        return self.job

    def pod(self, number: int) -> str:
        return f"{self.name}-node-0-{number}-abcde"

    def add_worker(self, number: int, state: Object | None = None, **status: Any) -> None:
        """A worker's pod; without a state it is scheduled and waits for its image."""
        state = state or {"waiting": {"reason": "ContainerCreating"}}
        box = {"name": "node", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": state}
        limits = {"resources": {"limits": {"memory": "4Gi"}}}
        self.server.add(
            "pods",
            self.pod(number),
            NAMESPACE,
            metadata={
                "labels": {"jobset.sigs.k8s.io/jobset-name": self.name},
                "annotations": {INDEX: str(number)},
            },
            spec={"containers": [{"name": "node", "image": "i"} | limits]},
            status={"phase": "Pending", "containerStatuses": [box]} | status,
        )

    def start(self, *numbers: int) -> None:
        """Makes the pods of workers, and has them run."""
        for number in numbers:
            self.server.logs[NAMESPACE, self.pod(number)] = ""
            self.add_worker(number, {"running": {"startedAt": MOMENT.format(0)}}, phase="Running")

    def say(self, number: int, *lines: str) -> None:
        """Has a worker print lines."""
        self.server.logs[NAMESPACE, self.pod(number)] += "".join(f"{line}\n" for line in lines)

    def set_state(self, number: int, phase: str, **state: Object) -> None:
        """Changes the state of a worker's container."""

        def change(pod: Object) -> None:
            pod["status"]["phase"] = phase
            pod["status"]["containerStatuses"][0]["state"] = state

        self.server.change("pods", NAMESPACE, self.pod(number), change)

    def end(self, number: int, code: int = 0, reason: str = "", second: int = 30) -> None:
        """Has a worker end, and stay so."""
        reason = reason or ("Error" if code else "Completed")
        ended = {"exitCode": code, "reason": reason, "finishedAt": MOMENT.format(second)}
        self.set_state(number, "Failed" if code else "Succeeded", terminated=ended)

    def restart(self, number: int, code: int, reason: str = "Error", second: int = 30) -> None:
        """Has a worker's container end and start again in its pod, as the policy OnFailure has it, with a new log."""
        key = (NAMESPACE, self.pod(number))
        self.server.past_logs[key], self.server.logs[key] = self.server.logs[key], ""
        ended = {"exitCode": code, "reason": reason, "finishedAt": MOMENT.format(second)}

        def change(pod: Object) -> None:
            (box,) = pod["status"]["containerStatuses"]
            box |= {"lastState": {"terminated": ended}, "restartCount": 1, "state": {"running": {}}}

        self.server.change("pods", NAMESPACE, self.pod(number), change)

    def set_condition(self, kind: str, reason: str = "", message: str = "", status: str = "True") -> None:
        """Sets a condition of the TrainJob: `Complete`, `Failed`, `Suspended`."""
        found = {"type": kind, "status": status, "reason": reason, "message": message}

        def change(job: Object) -> None:
            rest = [each for each in job.get("status", {}).get("conditions", []) if each["type"] != kind]
            job["status"] = {"conditions": [*rest, found]}

        self.server.change("trainjobs", NAMESPACE, self.name, change)

    def warn(self, name: str, message: str) -> None:
        """An event of the kind Warning."""
        of = {"kind": "Job", "name": name, "namespace": NAMESPACE}
        moment = {"lastTimestamp": MOMENT.format(1)}
        number = len(self.server.objects["events"])
        self.server.add(
            "events", f"{name}.{number}", NAMESPACE, involvedObject=of, type="Warning", message=message, **moment
        )
