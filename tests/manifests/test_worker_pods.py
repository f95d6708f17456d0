"""The workers of a training on many nodes obey the policy that the train step's own pod obeys."""

from pathlib import Path
from typing import Any

import pytest

from components.train.interface import Train
from components.train.trainjob.origin import Origin
from components.train.trainjob.resource import trainjob
from pipelines.settings import Settings
from tests.manifests.launched import Pod, step_pods
from tests.manifests.policy import violations
from tests.manifests.test_pipeline_pods import ENVIRONMENTS
from tests.manifests.test_read_only_root import admitted
from tests.servers.trainer import worker_pod

TOKEN = "it has a service account's token"
"""A TrainJob cannot say otherwise; its web identity is that of the service account."""


def worker(settings: Settings, room: Path, *, read_only: bool = True, **flags: Any) -> Pod:
    """A worker's pod, where the train step's is as the settings, and the admin's policy, make it."""
    pod = step_pods(settings, room)["train"]
    pod["metadata"] = pod["metadata"] | {"name": "train", "uid": "u"}
    paths: dict[str, Any] = {name: room / name for name in ("dataset", "model", "metrics", "curves")}
    step = Train(store="s3://bucket/store", nodes=2, **paths | flags)
    return worker_pod(trainjob(step, "0123456789abcdef", Origin(admitted(pod) if read_only else pod)))


@pytest.mark.slow
@pytest.mark.parametrize("settings", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_a_worker_obeys_the_policy(settings: Settings, tmp_path: Path) -> None:
    assert violations(worker(settings, tmp_path)) == [TOKEN]
    assert violations(worker(settings, tmp_path, read_only=False)) == [TOKEN, "node: its root can be written"]


@pytest.mark.slow
@pytest.mark.parametrize("settings", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_a_worker_may_write_to_tmp_and_has_the_shared_memory_of_the_step(settings: Settings, tmp_path: Path) -> None:
    spec = worker(settings, tmp_path)["spec"]
    volumes = {volume["name"]: volume["emptyDir"] for volume in spec["volumes"]}
    mounted = {mount["mountPath"]: volumes[mount["name"]] for mount in spec["containers"][0]["volumeMounts"]}
    shm = {"medium": "Memory", "sizeLimit": settings.placement("train").shm}
    assert mounted == {"/tmp": {}, "/dev/shm": shm}


@pytest.mark.slow
@pytest.mark.parametrize("settings", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_a_worker_has_what_the_step_has_and_the_gpus_of_the_run(settings: Settings, tmp_path: Path) -> None:
    placement = settings.placement("train")
    (container,) = worker(settings, tmp_path, gpus="4")["spec"]["containers"]
    assert container["image"] == placement.image
    expected = {"cpu": placement.cpu, "memory": placement.memory, "nvidia.com/gpu": "4"}
    assert container["resources"] == {"requests": expected, "limits": expected}
