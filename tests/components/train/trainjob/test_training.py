"""A training on several nodes from end to end: a TrainJob goes in, the model comes out.

Everything is real but Kubernetes: the step's process, the store, torchrun, the workers and what they train.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from components.models.artifact import load
from components.storage import Store
from components.train.interface import Train
from components.train.train import train
from tests.components.train.trainjob.cluster import Controller, own_pod, until
from tests.components.train.trainjob.conftest import IDENTITY, Launch
from tests.components.train.trainjob.node import Nodes, kill
from tests.ingestion import make_dataset
from tests.servers.kubernetes import FakeKubernetes

pytestmark = pytest.mark.slow

NODES = 2

FLAGS = {"epochs": 2, "batch_size": 32, "seed": 3}

SECRETS = {("retrain-store", "AWS_ACCESS_KEY_ID"): "test", ("retrain-store", "AWS_SECRET_ACCESS_KEY"): "test"}


@pytest.fixture
def training(
    launch: Launch, server: FakeKubernetes, s3: Store, idx_folder: Path, tmp_path: Path
) -> Callable[..., Launch]:
    """The train step on the tiny dataset, in a pod that reaches the store."""
    dataset = make_dataset(idx_folder, s3.uri, tmp_path)
    key = {"secretKeyRef": {"name": "retrain-store", "key": "AWS_ACCESS_KEY_ID"}}
    own_pod(
        server,
        {"name": "AWS_ENDPOINT_URL", "value": os.environ["AWS_ENDPOINT_URL"]},
        {"name": "AWS_ACCESS_KEY_ID", "valueFrom": key},
    )

    def make(**flags: object) -> Launch:
        given = FLAGS | {"dataset": dataset, "nodes": NODES} | flags
        launch.arguments += [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
        return launch

    return make


def test_a_trainjob_goes_in_and_the_model_of_one_node_comes_out(
    training: Callable[..., Launch], controller: Controller, s3: Store, tmp_path: Path
) -> None:
    launch = training()
    with Nodes(controller, SECRETS):
        code, out, err = launch.run()
    assert (code, err) == (0, "")
    metadata = json.loads(out.splitlines()[-1])["metadata"]
    results = json.loads((launch.room / "metrics").read_text())
    assert metadata["metrics"] == results
    assert not controller.made
    for name in ("config.json", "curve.json", "weights.safetensors"):
        assert (launch.model / name).read_bytes() == s3.read(f"training/{IDENTITY}/result/model/{name}")
    alone = Train(
        dataset=tmp_path / "dataset",
        store=s3.uri,
        model=tmp_path / "alone" / "model",
        metrics=tmp_path / "alone" / "metrics",
        curves=tmp_path / "alone" / "curves",
        **FLAGS,  # type: ignore[arg-type]
    )
    expected = train(alone)
    assert metadata["metrics"]["validation_accuracy"] == pytest.approx(
        expected["metrics"]["validation_accuracy"], abs=0.02
    )
    together, one = load(launch.model)[0].state_dict(), load(alone.model)[0].state_dict()
    assert all((together[name] - one[name]).abs().max() < 1e-3 for name in one)


def test_the_mistake_that_a_worker_finds_is_the_steps_own(
    training: Callable[..., Launch], controller: Controller
) -> None:
    launch = training(image_size=30)
    with Nodes(controller, SECRETS):
        code, _, err = launch.run()
    assert (code, err) == (2, "error: image_size must be 0 or 28: the dataset holds raw pixels of 28x28, not 30\n")
    assert not controller.made


def test_the_failure_of_a_worker_is_the_steps_own(
    training: Callable[..., Launch], controller: Controller, s3: Store
) -> None:
    launch = training(learning_rate=1e30)
    with Nodes(controller, SECRETS):
        code, _, err = launch.run()
    assert code == 1
    assert err.startswith("error: loss is ")
    assert err.count("\n") == 1


def test_a_step_that_is_ended_takes_its_workers_along(
    training: Callable[..., Launch], controller: Controller, server: FakeKubernetes
) -> None:
    launch = training(epochs=100_000)
    process = launch.start()
    with Nodes(controller, SECRETS) as nodes:
        until(lambda: "epoch 2/" in "".join(server.logs.values()))
        workers = list(nodes.processes)
        process.terminate()
        assert launch.end()[0] == 143
        until(lambda: not controller.made)
        assert all(worker.poll() is not None for worker in workers)


def test_a_worker_that_dies_ends_the_step_and_the_next_attempt_goes_on_where_it_was(
    training: Callable[..., Launch], controller: Controller, server: FakeKubernetes, s3: Store
) -> None:
    launch = training(epochs=12, checkpoint_minutes=0.001)
    launch.start()
    with Nodes(controller, SECRETS) as nodes:
        until(lambda: any("/checkpoints/" in key for key in s3.keys("training/")))
        kill(nodes.processes[1])
        code, _, err = launch.end()
        assert code == 1
        assert err.splitlines()[-1].startswith(f"error: worker {controller.pod(1)} ")
        until(lambda: not controller.made)
        code, out, _ = launch.run()
    assert code == 0
    assert "goes on from a checkpoint after batch " in out
    assert (launch.model / "weights.safetensors").exists()
