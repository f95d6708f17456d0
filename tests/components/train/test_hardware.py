from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from components.dataset.manifest import Manifest, read_manifest
from components.loader.machine import cores
from components.loader.stream import FEW
from components.models.artifact import build
from components.train.hardware import choose, choose_device, resident, undivided, unused
from components.train.interface import Train
from components.train.ranks import ALONE, Ranks
from components.train.recipe import read_recipe
from components.train.train import describe


@pytest.fixture
def manifest(tiny_dataset: Path) -> Manifest:
    return read_manifest(tiny_dataset)


@pytest.fixture
def backends() -> Iterator[list[Any]]:
    """What multiplies fp32 on a GPU; left as it was."""
    found: list[Any] = [torch.backends.cuda.matmul, torch.backends.cudnn.conv]  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in found]
    yield found
    for backend, precision in zip(found, before, strict=True):
        backend.fp32_precision = precision


def chosen(manifest: Manifest, ranks: Ranks = ALONE, **parameters: Any) -> dict[str, Any]:
    paths: dict[str, Any] = {name: Path(name) for name in ("dataset", "model", "metrics", "curves")}
    step = Train(store="store", **paths, **parameters)
    config = describe(step, manifest)
    return choose(step, read_recipe(step.recipe), build(config), config, manifest, ranks)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parameters", "ranks", "batch_size"),
    [
        ({}, ALONE, 256),
        ({}, Ranks(0, 3, 0), 255),
        ({"batch_size": 30}, Ranks(0, 3, 0), 30),
        ({"architecture": "resnet18"}, ALONE, 64),
        ({"architecture": "resnet18"}, Ranks(1, 4, 1), 256),
    ],
)
def test_on_processors_the_batch_grows_with_the_processes_unless_a_network_has_its_own(
    manifest: Manifest, parameters: dict[str, Any], ranks: Ranks, batch_size: int
) -> None:
    choices = chosen(manifest, ranks, **parameters)
    assert choices["batch_size"] == batch_size
    rate, precision = choices["learning_rate"], choices["precision"]
    assert choices["notes"] == [
        f"batch size {batch_size}, images of 28x28, learning rate {rate:.3g}, precision {precision}, on cpu, "
        f"decoding threads {min(cores(), FEW)}"
    ]


@pytest.mark.slow
def test_the_rate_of_sgd_grows_with_the_batch_that_of_others_with_its_root(manifest: Manifest) -> None:
    rates = {
        (optimizer, size): chosen(manifest, architecture="resnet18", batch_size=size, recipe=f"optimizer={optimizer}")[
            "learning_rate"
        ]
        for optimizer in ("sgd", "adamw")
        for size in (256, 1024)
    }
    assert rates["sgd", 1024] == pytest.approx(4 * rates["sgd", 256])
    assert rates["adamw", 1024] == pytest.approx(2 * rates["adamw", 256])


@pytest.mark.parametrize(
    ("recipe", "precision"),
    [("", "tf32"), ("precision=bf16", "tf32"), ("precision=auto", "tf32"), ("precision=fp32", "ieee")],
)
def test_on_gpus_what_is_fp32_is_rounded_unless_fp32_is_asked_for(
    recipe: str, precision: str, backends: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    paths: dict[str, Any] = {name: Path(name) for name in ("dataset", "model", "metrics", "curves")}
    assert choose_device(Train(store="store", **paths, gpus="2", recipe=recipe), 1) == torch.device("cuda", 1)
    assert [backend.fp32_precision for backend in backends] == [precision] * 2


def test_a_gpu_that_is_here_and_not_used_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    told = "trains on the processor, although a GPU is here; --gpus 1 trains on it"
    assert (unused(torch.device("cpu")), unused(torch.device("cuda", 0))) == (told, "")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert unused(torch.device("cpu")) == ""


def test_weights_that_are_dealt_to_nobody_are_told() -> None:
    dealt, whole = read_recipe("parallel=fsdp"), read_recipe("")
    assert undivided(dealt, ALONE) == "parallel=fsdp does nothing in a single process"
    assert undivided(dealt, Ranks(0, 2, 0)) == undivided(whole, ALONE) == ""


def test_room_is_left_for_the_images_that_stay_on_a_gpu(manifest: Manifest) -> None:
    image = 28 * 28
    assert (manifest.images("train"), manifest.images("validation")) == (540, 60)
    assert resident(manifest, (28, 28, 1), 4 * 540 * image) == 600 * image
    assert resident(manifest, (28, 28, 1), 4 * 540 * image - 1) == 60 * image  # others are read anew each time
    cropped = replace(manifest, shape=(None, None, 1))
    assert resident(cropped, (28, 28, 1), 10**9) == 60 * image
