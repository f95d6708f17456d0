"""A worker trains what the store says, and the first of them delivers."""

import subprocess
import sys
from pathlib import Path

import pytest

from components.step import StepError
from components.storage import DirectoryStore
from components.train.checkpoint import Checkpoints
from components.train.interface import Train
from components.train.trainjob.exchange import collect, send
from components.train.trainjob.worker import Worker, work

ID = "0123456789abcdef"


@pytest.fixture
def begun(tiny_dataset: Path, store: DirectoryStore, tmp_path: Path) -> Train:
    """A step that its workers may begin with."""
    room = tmp_path / "launched"
    step = Train(
        dataset=tiny_dataset,
        store=store.uri,
        epochs=1,
        batch_size=64,
        nodes=2,
        model=room / "model",
        metrics=room / "metrics",
        curves=room / "curves",
    )
    send(step, store, ID)
    return step


def test_the_first_worker_delivers_what_was_trained(begun: Train, store: DirectoryStore) -> None:
    assert work(Worker(store=store.uri, training=ID)) == {}
    metadata = collect(begun, store, ID)
    assert 0 <= metadata["metrics"]["validation_accuracy"] <= 1
    assert (begun.model / "weights.safetensors").exists()


def test_a_result_that_cannot_be_delivered_leaves_the_checkpoints(
    begun: Train, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object) -> None:
        raise StepError("the store is away")

    monkeypatch.setattr("components.train.trainjob.worker.deliver", fail)
    monkeypatch.setattr(Checkpoints, "due", True)
    with pytest.raises(StepError, match="the store is away"):
        work(Worker(store=store.uri, training=ID))
    assert [key for key in store.keys("training/") if "/checkpoints/" in key]


def test_a_worker_of_no_training_says_so(store: DirectoryStore) -> None:
    with pytest.raises(StepError, match="there is no training 'f00'"):
        work(Worker(store=store.uri, training="f00"))


def test_help_says_what_a_worker_is_given_without_importing_torch() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "components.train.trainjob", "--help"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("usage: python -m components.train.trainjob [-h] --store STR --training STR")
    assert "components.step" in ended.stderr
    assert "torch" not in ended.stderr
