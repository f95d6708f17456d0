import dataclasses
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from components.models.lenet5 import LeNet5
from components.step import StepError
from components.storage import DirectoryStore
from components.train.interface import Train
from components.train.range_test import range_test as module
from components.train.range_test.range_test import BATCHES, HIGHEST, LOWEST, range_test
from components.train.train import train
from tests.components.train.runs import flags
from tests.ingestion import make_dataset
from tests.samples import write_tree

Make = Callable[..., Train]


@pytest.fixture
def make(tiny_dataset: Path, store: DirectoryStore, tmp_path: Path) -> Make:
    """Makes trainings of the tiny dataset; the first argument names the folder that they write to."""

    def made(out: str = "out", **options: Any) -> Train:
        outputs: dict[str, Any] = {name: tmp_path / out / name for name in ("model", "metrics", "curves")}
        return Train(dataset=tiny_dataset, store=store.uri, **outputs, **{"batch_size": 32, **options})

    return made


def found(step: Train) -> dict[str, Any]:
    """What a range test has found."""
    range_test(step)
    said: dict[str, Any] = json.loads(step.metrics.read_text())
    return said


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["", "optimizer=sgd"])
def test_its_suggestion_trains_well_and_thirty_times_as_much_does_not(make: Make, recipe: str) -> None:
    rate = found(make(recipe=recipe))["learning_rate"]

    def accuracy(learning_rate: float) -> float:
        step = make(f"at {learning_rate}", recipe=recipe, epochs=6, learning_rate=learning_rate)
        try:
            return float(train(step)["metrics"]["validation_accuracy"])
        except StepError:  # the loss is no number any more
            return 0.0

    assert accuracy(rate) >= 0.95
    assert accuracy(30 * rate) <= 0.5


@pytest.mark.slow
def test_the_learning_rate_rises_from_the_lowest_to_the_highest(make: Make) -> None:
    said = found(make())
    assert said["rates"] == pytest.approx(np.geomspace(LOWEST, HIGHEST, BATCHES))
    assert len(said["losses"]) == BATCHES
    assert all(map(math.isfinite, said["losses"]))
    assert LOWEST < said["learning_rate"] < HIGHEST
    assert said["batch_size"] == 32
    assert said["reason"]


@pytest.mark.slow
def test_nothing_is_left_but_what_was_found(make: Make, store: DirectoryStore) -> None:
    step = make()
    before = list(store.keys(""))
    range_test(step)
    assert sorted(path.name for path in step.model.parent.iterdir()) == ["curves", "metrics"]
    assert "lenet5" in step.curves.read_text()
    assert list(store.keys("")) == before


@pytest.mark.slow
def test_the_same_seed_finds_the_same(make: Make) -> None:
    first, again, other = found(make("1")), found(make("2")), found(make("3", seed=1))
    assert first == again
    assert first != other


@pytest.mark.slow
def test_images_are_mixed_where_the_recipe_says_so(make: Make) -> None:
    plain, mixed = found(make("plain")), found(make("mixed", recipe="mixup=1.0"))
    assert min(mixed["losses"]) > min(plain["losses"]) + 0.1, "nobody can tell what was blended how"


@pytest.mark.slow
def test_it_ends_when_the_loss_ceases_to_be_a_number(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HIGHEST", 1e12)
    said = found(make(recipe="optimizer=sgd"))
    assert len(said["losses"]) < BATCHES
    assert all(map(math.isfinite, said["losses"]))
    assert max(said["losses"]) <= module.MOST * said["losses"][0]


def test_images_that_no_memory_holds_are_one_sentence(make: Make, store: DirectoryStore, tmp_path: Path) -> None:
    files = make_dataset(write_tree(tmp_path / "tree"), store.uri, tmp_path)
    large = dataclasses.replace(make(architecture="squeezenet", image_size=100_000_000), dataset=files)
    with pytest.raises(StepError, match="the memory of cpu does not hold a batch of 32"):
        range_test(large)
    assert not large.curves.exists()


def test_a_loss_that_is_no_number_at_once_is_said_to_be_no_matter_of_the_learning_rate(
    make: Make, store: DirectoryStore
) -> None:
    weights = LeNet5((28, 28, 1), 10, activation="relu", pooling="max", bias=True).state_dict()
    broken = {name: torch.full_like(tensor, math.nan) for name, tensor in weights.items()}
    store.write("pretrained/lenet5.safetensors", safetensors.torch.save(broken))
    step = make(start="pretrained")
    with pytest.raises(StepError, match=r"loss is nan in the first batch, .*: no learning rate helps"):
        range_test(step)
    assert not step.metrics.exists()


@pytest.mark.slow
def test_a_gpu_that_is_not_there_is_missed_before_anything_is_read(make: Make, tmp_path: Path) -> None:
    step = dataclasses.replace(make(gpus="1"), dataset=tmp_path / "nothing")
    command = [sys.executable, "-m", "components.train.range_test", *flags(step)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: train asked for 1 nvidia.com/gpu and PyTorch ")


@pytest.mark.slow
def test_a_network_that_learns_nothing_has_no_learning_rate(make: Make) -> None:
    step = make(recipe="optimizer=sgd momentum=0", activation="sigmoid")
    with pytest.raises(StepError, match="the loss does not fall at any learning rate"):
        range_test(step)
    assert not step.metrics.exists()
