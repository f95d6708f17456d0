"""A cluster on loopback, a store on a real S3 server, and the train step as a process between them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from components.storage import S3Store, Store, open_store
from components.train.interface import Train
from components.train.trainjob.exchange import deliver
from tests.components.train.trainjob.cluster import MAIN, NAMESPACE, Controller, own_pod
from tests.servers.kubernetes import FakeKubernetes

IDENTITY = "0123456789abcdef"

PATIENCE = {
    "components.storage.connection.FIRST_PAUSE": 0.05,
    "components.storage.connection.LONGEST_PAUSE": 0.2,
    "components.train.trainjob.follow.LAST_LINES_SECONDS": 3,
    "components.train.trainjob.follow.TICK_SECONDS": 0.05,
    "components.train.trainjob.follow.SETTLE_SECONDS": 0.5,
    "components.train.trainjob.pending.PAUSE_SECONDS": 0.1,
}
"""Constants that a test has no time for."""


@pytest.fixture
def server() -> Iterator[FakeKubernetes]:
    """A cluster with Kubeflow Trainer and the pod of the train step."""
    with FakeKubernetes() as server:
        server.add("clustertrainingruntimes", "torch-distributed")
        own_pod(server)
        yield server


@pytest.fixture
def controller(server: FakeKubernetes) -> Controller:
    return Controller(server, IDENTITY)


@pytest.fixture
def s3(s3_environment: None) -> Store:
    """An empty store that every pod could reach."""
    store = S3Store(f"s3://{uuid4()}/retrain")
    store.client.make_bucket(store.bucket)
    return store


@dataclass
class Launch:
    """The train step with two nodes, as a process."""

    arguments: list[str]
    environment: dict[str, str]
    room: Path
    constants: dict[str, float] = field(default_factory=lambda: dict(PATIENCE))
    process: subprocess.Popen[str] | None = None

    @property
    def model(self) -> Path:
        return self.room / "model"

    def start(self, **constants: float) -> "subprocess.Popen[str]":
        """Starts it; constants are those of `components.train.trainjob`, such as `pending__PENDING_SECONDS`."""
        package = "components.train.trainjob."
        changed = {package + name.replace("__", "."): value for name, value in constants.items()}
        facts = json.dumps({"identity": IDENTITY, "constants": self.constants | changed})
        command = [sys.executable, "-m", "tests.components.train.trainjob.launching", facts, *self.arguments]
        self.process = subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        return self.process

    def end(self) -> tuple[int, str, str]:
        """Its exit code, and what it said on stdout and stderr."""
        assert self.process is not None
        out, err = self.process.communicate(timeout=300)
        assert "Traceback" not in err, err
        return self.process.returncode, out, err

    def run(self, **constants: float) -> tuple[int, str, str]:
        self.start(**constants)
        return self.end()


@pytest.fixture
def launch(server: FakeKubernetes, s3: Store, tmp_path: Path) -> Iterator[Launch]:
    """The train step, which finds the cluster and the store by its environment."""
    (tmp_path / "manifest").write_text("{}")
    kubeconfig = server.kubeconfig(tmp_path / "kubeconfig", namespace=NAMESPACE)
    paths = {"dataset": tmp_path / "manifest"} | {name: tmp_path / name for name in ("model", "metrics", "curves")}
    arguments = [f"--{name}={path}" for name, path in paths.items()] + [f"--store={s3.uri}", "--nodes=2"]
    found = Launch(arguments, os.environ | {"KUBECONFIG": str(kubeconfig), "KFP_POD_NAME": MAIN}, tmp_path)
    yield found
    if found.process and found.process.poll() is None:
        found.process.kill()
        found.process.communicate()


@pytest.fixture
def result(s3: Store, tmp_path: Path) -> Callable[[], dict[str, Any]]:
    """Has the workers' result in the store, as they leave it; returns what is said of it."""

    def write() -> dict[str, Any]:
        room = tmp_path / "written by a worker"
        (room / "model").mkdir(parents=True)
        (room / "model" / "weights.safetensors").write_bytes(bytes(range(256)))
        (room / "model" / "config.json").write_text("{}")
        (room / "metrics").write_text('{"loss": 1}')
        (room / "curves").write_text("<html>")
        step = Train(dataset=room, store=s3.uri, model=room / "model", metrics=room / "metrics", curves=room / "curves")
        metadata: dict[str, Any] = {"model": {"architecture": "lenet5"}, "metrics": {"loss": 1}}
        deliver(step, open_store(s3.uri), IDENTITY, metadata)
        return metadata

    return write


@pytest.fixture
def running(launch: Launch, controller: Controller) -> Controller:
    """The controllers of a cluster where the step is a process, and its two workers run."""
    launch.start()
    controller.wait()
    controller.start(0, 1)
    return controller
