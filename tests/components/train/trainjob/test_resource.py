"""The TrainJob asks for workers that are as the step's own pod is."""

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from components.step import UserError
from components.train.interface import Train
from components.train.trainjob import resource
from components.train.trainjob.origin import Origin
from components.train.trainjob.resource import condition, leaving, ours, trainjob
from tests.components.train.trainjob.cluster import MAIN, NAMESPACE
from tests.components.train.trainjob.node import free_port, program, torchrun
from tests.servers.kubernetes import FakeKubernetes, Object
from tests.servers.trainer import admit

ID = "0123456789abcdef"


@pytest.fixture
def pod(server: FakeKubernetes) -> Object:
    """The step's own."""
    return server.objects["pods"][NAMESPACE, MAIN]


def job(pod: Object, **changes: Any) -> Object:
    """Admitted, and so one that Kubeflow Trainer's models and admission let in."""
    given: Object = {name: Path(name) for name in ("dataset", "model", "metrics", "curves")}
    step = Train(store="s3://bucket/retrain", **given | {"nodes": 4} | changes)
    return admit(trainjob(step, ID, Origin(pod)), "2.3.0", {"torch-distributed"})


def worker(found: Object) -> Object:
    """The patch of a worker's pod."""
    (patch,) = found["spec"]["runtimePatches"]
    (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    template: Object = replicated["template"]["spec"]["template"]
    return template


def test_a_worker_runs_torchrun_in_the_steps_own_image(pod: Object) -> None:
    trainer = job(pod)["spec"]["trainer"]
    assert trainer["image"] == "example.com/train:1"
    assert trainer["command"] == ["torchrun", "--rdzv-conf=timeout=2100", "-m", "components.train.trainjob"]
    assert trainer["args"] == ["--store", "s3://bucket/retrain", "--training", ID]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (4, 1)


def test_a_worker_waits_for_the_others_longer_than_the_step_does(pod: Object) -> None:
    (option,) = (each for each in job(pod)["spec"]["trainer"]["command"] if each.startswith("--rdzv-conf="))
    assert float(option.removeprefix("--rdzv-conf=timeout=")) > resource.PENDING_SECONDS > 900  # torchrun's own


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_a_worker_whose_peer_never_comes_waits_as_long_as_it_is_told(
    number: int, pod: Object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "PENDING_SECONDS", 2.0)
    monkeypatch.setattr(resource, "IMAGE_SECONDS", 1.0)
    trainer = job(pod, nodes=2)["spec"]["trainer"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | torchrun(trainer, number, free_port())
    start = time.monotonic()
    ended = subprocess.run(program(trainer["command"]), env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert time.monotonic() - start >= 3
    assert "timed out after " in ended.stderr.lower()


def test_there_is_a_process_for_each_gpu_and_the_gpus_are_those_of_the_run(pod: Object) -> None:
    pod["spec"]["containers"][1]["resources"]["limits"]["nvidia.com/gpu"] = "1"
    trainer = job(pod, gpus="8", gpu_type="nvidia.com/gpu")["spec"]["trainer"]
    assert trainer["numProcPerNode"] == 8
    expected = {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "8"}
    assert trainer["resourcesPerNode"] == {"requests": expected, "limits": expected}
    without = job(pod)["spec"]["trainer"]["resourcesPerNode"]
    assert without["limits"] == {"cpu": "2", "memory": "4Gi"}


def test_secrets_go_by_reference_and_what_is_argos_or_kfps_stays(pod: Object) -> None:
    variables = {each["name"]: each for each in job(pod)["spec"]["trainer"]["env"]}
    assert set(variables) == {
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "OMP_NUM_THREADS",
    }
    secret = {"name": "retrain-store", "key": "AWS_SECRET_ACCESS_KEY"}
    assert variables["AWS_SECRET_ACCESS_KEY"]["valueFrom"] == {"secretKeyRef": secret}


@pytest.mark.parametrize(("gpus", "threads"), [("0", "8"), ("1", "8"), ("3", "2"), ("16", "1")])
def test_the_processes_of_a_worker_share_its_threads(gpus: str, threads: str, pod: Object) -> None:
    (main,) = (container for container in pod["spec"]["containers"] if container["name"] == "main")
    for variable in main["env"]:
        if variable["name"] == "OMP_NUM_THREADS":
            variable["value"] = "8"
    trainer = job(pod, gpus=gpus)["spec"]["trainer"]
    assert {"name": "OMP_NUM_THREADS", "value": threads} in trainer["env"]


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "DB_PASSWORD"])
def test_a_secret_by_value_is_refused(name: str, pod: Object) -> None:
    pod["spec"]["containers"][1]["env"] = [{"name": name, "value": "hush"}]
    with pytest.raises(UserError, match=f"{name} has its value in pod retrain-x-train") as refused:
        job(pod)
    assert "hush" not in str(refused.value)


def test_a_worker_is_placed_and_secured_as_the_step_is(pod: Object) -> None:
    template = worker(job(pod))
    spec, own = template["spec"], pod["spec"]
    for key in ("nodeSelector", "tolerations", "serviceAccountName", "securityContext"):
        assert spec[key] == own[key]
    (container,) = spec["containers"]
    assert container["securityContext"] == own["containers"][1]["securityContext"]
    assert template["metadata"]["labels"] == {
        "app.kubernetes.io/name": "retrain-worker",
        "sidecar.istio.io/inject": "false",
        "pipeline/runid": "r-1",
    }


def test_a_worker_has_the_shared_memory_and_the_tmp_of_the_step_and_no_other_volume(pod: Object) -> None:
    spec = worker(job(pod))["spec"]
    assert spec["volumes"] == [
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
        {"name": "tmp", "emptyDir": {}},
    ]
    (container,) = spec["containers"]
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/dev/shm", "/tmp"]


def test_the_job_goes_with_the_steps_pod_and_lives_no_longer(pod: Object) -> None:
    found = job(pod)
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "retrain-x-train", "uid": "u-1"}
    assert found["metadata"]["ownerReferences"] == [owner]
    assert found["spec"]["activeDeadlineSeconds"] == 43200
    del pod["spec"]["activeDeadlineSeconds"]
    assert "activeDeadlineSeconds" not in job(pod)["spec"]


def test_a_pod_that_says_little_is_copied_too(pod: Object) -> None:
    container = {"name": "train", "image": "i"}
    bare = {"metadata": {"name": "p", "uid": "u"}, "spec": {"containers": [container]}}
    found = job(bare)
    assert found["spec"]["trainer"]["resourcesPerNode"] == {"requests": {}, "limits": {}}
    assert worker(found)["spec"]["volumes"] == []


def test_a_job_is_known_by_its_label(pod: Object) -> None:
    found = job(pod)
    assert found["metadata"]["name"] == f"retrain-{ID}"
    assert ours(found, ID)
    assert not ours(found, "fedcba9876543210")
    assert not ours({"metadata": {"name": f"retrain-{ID}"}}, ID)


def test_a_condition_holds_where_its_status_is_true() -> None:
    conditions = [{"type": "Suspended", "status": "False"}, {"type": "Failed", "status": "True", "reason": "x"}]
    found = {"metadata": {}, "status": {"conditions": conditions}}
    assert condition(found, "Failed") == conditions[1]
    assert condition(found, "Suspended") is None
    assert condition({"metadata": {}}, "Complete") is None
    assert not leaving(found)
