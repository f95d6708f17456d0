"""Where the steps of the compiled pipeline run, and as whom."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.retrain import compile
from pipelines.settings import SMALL_IMAGE, STOCK, TRAIN_IMAGE, Settings, read_settings

STEPS = ("plan", "shard", "ingest", "train", "evaluate", "export")


def compiled(folder: Path, settings: Settings = STOCK) -> tuple[dict[str, Any], dict[str, Any]]:
    """The containers and what Kubernetes is told of them, each by step."""
    compile(folder / "retrain.yaml", settings)
    spec, platform = yaml.safe_load_all((folder / "retrain.yaml").read_text())
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    containers = {name: spec["deploymentSpec"]["executors"][f"exec-{name}"]["container"] for name in STEPS}
    return containers, {name: executors[f"exec-{name}"] for name in STEPS}


def changed(folder: Path, toml: str, environment: str = "") -> Settings:
    (folder / "settings.toml").write_text(toml)
    return read_settings(folder / "settings.toml", environment)


def test_the_ingestion_runs_in_the_small_image_and_what_needs_torch_in_the_other(tmp_path: Path) -> None:
    containers, _ = compiled(tmp_path)
    images = {name: container["image"] for name, container in containers.items()}
    small, train = dict.fromkeys(STEPS[:3], SMALL_IMAGE), dict.fromkeys(STEPS[3:], TRAIN_IMAGE)
    assert images == small | train


def test_one_section_places_plan_shards_and_ingest(tmp_path: Path) -> None:
    toml = '[steps.ingest]\nimage = "mine:1"\nmemory = "3Gi"\nretries = 7\nnode_selector = {pool = "io"}'
    containers, pods = compiled(tmp_path, changed(tmp_path, toml))
    for step in STEPS[:3]:
        assert containers[step]["image"] == "mine:1"
        assert containers[step]["resources"]["resourceMemoryLimit"] == "3Gi"
        assert pods[step]["nodeSelector"] == {"labels": {"pool": "io"}}
    assert (tmp_path / "retrain.yaml").read_text().count("maxRetryCount: 7") == 3


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_every_step_has_requests_and_limits(step: str, tmp_path: Path) -> None:
    resources = compiled(tmp_path)[0][step]["resources"]
    cpu, memory = ("1", "1Gi") if step in STEPS[:3] else ("2", "4Gi")
    assert resources["resourceCpuLimit"] == resources["resourceCpuRequest"] == cpu
    assert resources["resourceMemoryLimit"] == resources["resourceMemoryRequest"] == memory


def test_only_training_asks_for_gpus_as_many_as_the_run_says(tmp_path: Path) -> None:
    containers, _ = compiled(tmp_path)
    asked = {name: container["resources"].get("accelerator") for name, container in containers.items()}
    assert asked.pop("train") == {
        "resourceCount": "{{$.inputs.parameters['pipelinechannel--gpus']}}",
        "resourceType": "{{$.inputs.parameters['pipelinechannel--gpu_type']}}",
    }
    assert set(asked.values()) == {None}


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_every_step_runs_as_a_numeric_user_that_is_not_root_and_may_write_to_tmp(step: str, tmp_path: Path) -> None:
    pod = compiled(tmp_path)[1][step]
    assert pod["securityContext"] == {"runAsUser": "65532", "runAsGroup": "65532", "runAsNonRoot": True}
    assert {"volumeName": "tmp", "mountPath": "/tmp"} in pod["emptyDirMounts"]


@pytest.mark.slow
@pytest.mark.parametrize("step", ["train", "evaluate", "export"])
def test_what_uses_torch_gets_shared_memory(step: str, tmp_path: Path) -> None:
    mounts = compiled(tmp_path)[1][step]["emptyDirMounts"]
    assert {"volumeName": "shm", "mountPath": "/dev/shm", "medium": "Memory", "sizeLimit": "1Gi"} in mounts


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_credentials_come_by_reference_alone(step: str, tmp_path: Path) -> None:
    containers, pods = compiled(tmp_path)
    (secret,) = pods[step]["secretAsEnv"]
    assert secret["secretName"] == "mlpipeline-minio-artifact"
    assert {pair["envVar"] for pair in secret["keyToEnv"]} == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    assert {variable["name"] for variable in containers[step]["env"]} == {
        "AWS_ENDPOINT_URL",
        "AWS_REGION",
        "OMP_NUM_THREADS",
        "RETRAIN_LOG_FORMAT",
    }


@pytest.mark.slow
@pytest.mark.parametrize(("cpu", "threads"), [("8", "8"), ("2.5", "2"), ("500m", "1"), ("3500m", "3")])
def test_torch_has_as_many_threads_as_the_pod_has_cores(cpu: str, threads: str, tmp_path: Path) -> None:
    containers, _ = compiled(tmp_path, changed(tmp_path, f'[steps.train]\ncpu = "{cpu}"'))
    assert {"name": "OMP_NUM_THREADS", "value": threads} in containers["train"]["env"]


def test_web_identity_needs_no_secret(tmp_path: Path) -> None:
    _, pods = compiled(tmp_path, changed(tmp_path, 'secret = ""'))
    assert all("secretAsEnv" not in pod for pod in pods.values())


@pytest.mark.slow
def test_retries_wait_longer_each_time_and_attempts_end(tmp_path: Path) -> None:
    compile(tmp_path / "retrain.yaml")
    spec, platform = yaml.safe_load_all((tmp_path / "retrain.yaml").read_text())
    tasks = {**spec["root"]["dag"]["tasks"], **spec["components"]["comp-condition-2"]["dag"]["tasks"]}
    assert tasks["train"]["retryPolicy"] == {
        "maxRetryCount": 2,
        "backoffDuration": "30s",
        "backoffFactor": 2.0,
        "backoffMaxDuration": "3600s",
    }
    assert compiled(tmp_path)[1]["train"]["activeDeadlineSeconds"] == str(12 * 3600)
    limits = platform["platforms"]["kubernetes"]["pipelineConfig"]
    assert limits == {"activeDeadlineSeconds": 24 * 3600, "resourceTtlOnCompletion": 24 * 3600}


def test_on_this_machine_nothing_is_retried(tmp_path: Path) -> None:
    compile(tmp_path / "retrain.yaml", STOCK.without_retries())
    assert "retryPolicy" not in (tmp_path / "retrain.yaml").read_text()


def test_an_environment_goes_on_top_of_the_file_and_the_file_on_top_of_the_defaults(tmp_path: Path) -> None:
    toml = """
        endpoint = "https://s3.example.com"
        [steps.train]
        memory = "16Gi"
        [environments.production.steps.train]
        cpu = "8"
        node_selector = {pool = "gpu"}
        tolerations = [{key = "nvidia.com/gpu", operator = "Exists", effect = "NoSchedule"}]
    """
    containers, pods = compiled(tmp_path, changed(tmp_path, toml, "production"))
    assert containers["train"]["resources"]["resourceMemoryLimit"] == "16Gi"
    assert containers["train"]["resources"]["resourceCpuLimit"] == "8"
    assert containers["evaluate"]["resources"]["resourceCpuLimit"] == "2"
    assert {"name": "AWS_ENDPOINT_URL", "value": "https://s3.example.com"} in containers["ingest"]["env"]
    assert pods["train"]["nodeSelector"] == {"labels": {"pool": "gpu"}}
    assert pods["train"]["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert "nodeSelector" not in pods["export"]
