"""Where each step runs: image, CPU, memory, GPU, time limits, retries, credentials, and as whom."""

from typing import Any

from kfp import dsl, kubernetes

from pipelines.settings import Settings

USER = 65532
"""The numeric user of the images."""


def place(task: Any, name: str, settings: Settings, given: dict[str, Any]) -> None:
    """Places a task of the pipeline; `given` has the pipeline's parameters."""
    placement = settings.placement(name)
    task.set_container_image(placement.image)
    task.set_cpu_request(placement.cpu).set_cpu_limit(placement.cpu)
    # torch would start a thread for each core of the node, not of the pod.
    task.set_env_variable("OMP_NUM_THREADS", str(placement.cores))
    task.set_env_variable("RETRAIN_LOG_FORMAT", "logfmt")  # for what gathers the logs of pods
    task.set_memory_request(placement.memory).set_memory_limit(placement.memory)
    if name == "train":
        task.set_accelerator_type(given["gpu_type"]).set_accelerator_limit(given["gpus"])
    if placement.retries:
        backoff = f"{placement.backoff_seconds}s"
        task.set_retry(placement.retries, backoff, backoff_factor=2.0, backoff_max_duration="3600s")
    kubernetes.set_timeout(task, 60 * placement.timeout_minutes)
    for key, value in placement.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    for toleration in placement.tolerations:
        kubernetes.add_toleration(task, **toleration)
    secure(task)
    if placement.shm:
        kubernetes.empty_dir_mount(task, "shm", "/dev/shm", "Memory", placement.shm)
    connect(task, settings)


def secure(task: Any) -> None:
    """What Pod Security `restricted` asks for and KFP does not set by itself; /tmp, where the root is read-only."""
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    kubernetes.empty_dir_mount(task, "tmp", "/tmp")


def connect(task: Any, settings: Settings) -> None:
    """How the step reaches the store. Credentials by reference only; without a secret the pod's identity has them."""
    if settings.endpoint:
        task.set_env_variable("AWS_ENDPOINT_URL", settings.endpoint)
    task.set_env_variable("AWS_REGION", settings.region)
    if settings.secret:
        keys = {settings.access_key: "AWS_ACCESS_KEY_ID", settings.secret_key: "AWS_SECRET_ACCESS_KEY"}
        kubernetes.use_secret_as_env(task, settings.secret, keys)


def limits(settings: Settings) -> dsl.PipelineConfig:
    """How long a whole run may take, and how long its pods stay when it has ended."""
    config = dsl.PipelineConfig()
    config.active_deadline_seconds = 3600 * settings.deadline_hours
    config.ttl_seconds_after_finished = 3600 * settings.ttl_hours
    return config
