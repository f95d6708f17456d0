"""What only a GPU can show. Where there is none these tests are not collected; conftest.py sees to that."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor

from components.dataset.manifest import read_manifest
from components.loader.batches import UNCHANGED, TrainingBatches
from components.models.artifact import Classifier, ModelConfig, build, read_curve
from components.step import StepError
from components.storage import DirectoryStore
from components.train.interface import Train
from components.train.learner import Learner
from components.train.probe import largest_batch
from components.train.recipe import Recipe
from tests.components.train.runs import ENVIRONMENT, Make, finish, flags, start
from tests.components.train.test_resume import checkpoints, end

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    # Of PyTorch itself, where what a thread does first on a GPU is a product of matrices.
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS"),
]

DEVICE = torch.device("cuda", 0)
RESNET18 = ModelConfig("resnet18", {}, tuple("0123456789"), (64, 64, 3), (0.5,) * 3, (0.5,) * 3, "", {})


def column(step: Train, name: str) -> list[float]:
    """Of the learning curve."""
    return [row[name] for row in read_curve(step.model)]


def difference(one: Train, other: Train) -> float:
    """The largest between the weights of two trainings."""
    first, second = (load_file(step.model / "weights.safetensors") for step in (one, other))
    return max(float(np.abs(first[name] - second[name]).max()) for name in first)


def training(step: Train) -> dict[str, object]:
    """What the model says of its training."""
    found: dict[str, object] = json.loads((step.model / "config.json").read_text())["training"]
    return found


def test_a_gpu_learns_what_a_processor_learns(of_pixels: Make) -> None:
    recipe = {"epochs": 4, "batch_size": 64, "recipe": "precision=fp32 compile=off"}
    processor, gpu = of_pixels("processor", **recipe), of_pixels("gpu", gpus="1", **recipe)
    assert "on cuda:0" in finish(gpu)
    finish(processor)
    for name in ("train_loss", "validation_loss"):
        assert column(gpu, name) == pytest.approx(column(processor, name), rel=1e-2)
    assert difference(processor, gpu) < 1e-2


def test_what_is_left_open_is_chosen_for_the_gpu(of_files: Make) -> None:
    step = of_files("auto", architecture="resnet18", image_size=64, epochs=3, gpus="1")
    told = finish(step)
    assert re.search(r"\d+ images fit into the memory of a GPU", told)
    facts = training(step)
    assert facts["precision"] == ("bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16")
    assert np.isfinite(column(step, "train_loss")).all()


@pytest.mark.parametrize("recipe", ["precision=fp16", "precision=fp16 clip=1 ema=0.9 accumulate=2", "precision=bf16"])
def test_half_precision_learns(recipe: str, of_pixels: Make) -> None:
    step = of_pixels("half", epochs=8, batch_size=64, gpus="1", recipe=recipe)
    finish(step)
    assert column(step, "validation_accuracy")[-1] > 0.8


@pytest.mark.parametrize("kind", ["of_pixels", "of_files"])
def test_every_augmentation_runs_on_the_gpu(kind: str, request: pytest.FixtureRequest) -> None:
    make = request.getfixturevalue(kind)
    for augment in ("trivial", "rand"):
        recipe = f"augment={augment} mixup=0.2 cutmix=1 class_weights=balanced"
        step = make(augment, epochs=1, batch_size=64, gpus="1", recipe=recipe)
        finish(step)
        assert np.isfinite(column(step, "train_loss")).all()


@pytest.mark.parametrize("kind", ["of_pixels", "of_files"])
@pytest.mark.parametrize("recipe", ["precision=fp32", "precision=fp16 ema=0.9"])
def test_a_training_that_was_killed_goes_on_on_its_gpu(recipe: str, kind: str, request: pytest.FixtureRequest) -> None:
    make = request.getfixturevalue(kind)
    options = {"epochs": 30, "batch_size": 32, "gpus": "1", "recipe": f"compile=off {recipe}"}
    undisturbed, disturbed = make("1", **options), make("2", checkpoint_minutes=0.0, **options)
    finish(undisturbed)
    assert end(disturbed, signal.SIGKILL, 0, after="epoch 5/") == -signal.SIGKILL
    assert checkpoints(disturbed)
    assert "goes on from a checkpoint after batch" in finish(disturbed)
    losses = [column(step, "validation_loss") for step in (undisturbed, disturbed)]
    assert losses[1] == pytest.approx(losses[0], rel=0.1, abs=0.02)


@pytest.mark.parametrize("kind", ["of_pixels", "of_files"])
def test_sigterm_leaves_a_checkpoint_of_the_gpu(kind: str, request: pytest.FixtureRequest) -> None:
    step = request.getfixturevalue(kind)("ended", epochs=100, batch_size=64, gpus="1")
    assert end(step, signal.SIGTERM, 0, after="epoch 2/") == 128 + signal.SIGTERM
    assert checkpoints(step)


def test_a_compiled_network_learns_the_same(of_files: Make) -> None:
    options = {"architecture": "resnet18", "image_size": 64, "epochs": 2, "batch_size": 64, "gpus": "1"}
    recipe = "precision=fp32 optimizer=sgd"
    plain = of_files("plain", recipe=f"{recipe} compile=off", **options)
    compiled = of_files("compiled", recipe=f"{recipe} compile=on", **options)
    finish(plain)
    assert "compiled: a step takes " in finish(compiled)
    assert column(compiled, "train_loss") == pytest.approx(column(plain, "train_loss"), rel=0.05)


def test_a_gpu_gets_the_batches_of_a_processor_from_pinned_memory(of_files: Make) -> None:
    step = of_files("batches")
    torch.cuda.init()  # type: ignore[no-untyped-call]
    arguments = DirectoryStore(Path(step.store)), read_manifest(step.dataset), RESNET18.shape, 16, 0, UNCHANGED
    here, there = (TrainingBatches(*arguments, device=device) for device in (torch.device("cpu"), DEVICE))
    assert there._apart
    assert there._apart._places.is_pinned()
    for epoch in (1, 2):
        moved = list(there.epoch(epoch))  # the memory that they came through has been filled anew since
        for (images, labels), (found, known) in zip(here.epoch(epoch), moved, strict=True):
            assert found.device == DEVICE
            assert torch.equal(found.cpu(), images)
            assert torch.equal(known.cpu(), labels)


@pytest.fixture
def little_memory() -> Iterator[None]:
    """In which PyTorch may have 1 GB of the GPU's memory."""
    torch.cuda.set_per_process_memory_fraction(1e9 / torch.cuda.mem_get_info(DEVICE)[1])
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def maker(classifier: Classifier) -> Learner:
    return Learner(classifier, Recipe(), classes=10, batches=2, epochs=1, learning_rate=0.1, precision="bf16")


@pytest.mark.usefixtures("little_memory")
def test_the_largest_batch_is_found_where_memory_ends() -> None:
    torch.manual_seed(0)
    classifier = build(RESNET18).to(DEVICE)
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    found = largest_batch(classifier, lambda: maker(classifier), RESNET18.shape, 4096, 0)
    assert 16 <= found < 4096
    learner = maker(classifier)
    learner.learn(*images(learner, found), found)
    with pytest.raises(torch.OutOfMemoryError):
        learner.learn(*images(learner, 4 * found), 4 * found)
    assert before.keys() == classifier.state_dict().keys()


@pytest.mark.usefixtures("little_memory")
def test_where_nothing_fits_into_a_gpu_a_sentence_says_what_to_do() -> None:
    classifier = build(RESNET18).to(DEVICE)
    with pytest.raises(StepError, match="not even 4 images of 2048x2048 fit into the memory of cuda:0; try a smaller"):
        largest_batch(classifier, lambda: maker(classifier), (2048, 2048, 3), 64, 0)


def images(learner: Learner, count: int) -> tuple[Tensor, Tensor]:
    labels = torch.arange(count, device=DEVICE) % 10
    return torch.zeros(count, *RESNET18.shape, dtype=torch.uint8, device=DEVICE), learner.targets(labels)


def test_more_gpus_than_there_are_are_refused(of_pixels: Make) -> None:
    there = torch.cuda.device_count()
    _, told = start(of_pixels("many", gpus=str(there + 1))).communicate(timeout=300)
    assert f"error: train asked for {there + 1} nvidia.com/gpu and PyTorch {torch.__version__} sees {there};" in told


def test_processes_that_nccl_cannot_join_end_with_a_sentence(of_pixels: Make) -> None:
    step = of_pixels("joined", epochs=1, batch_size=64, gpus="1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    started = []
    for rank in range(2):  # both with the same GPU, which NCCL refuses
        own = {"RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": "2"}
        own |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        command = [sys.executable, "-m", "components.train", *flags(step)]
        started.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT | own))
    told = [process.communicate(timeout=300)[1] for process in started]
    assert all(process.returncode == 1 for process in started), told
    assert any("error: the GPUs cannot exchange gradients: " in text for text in told), told
    assert not any("Traceback" in text for text in told), told


def test_a_range_test_measures_on_the_gpu(of_pixels: Make) -> None:
    step = of_pixels("range", gpus="1", batch_size=32)
    assert (
        "on cuda:0"
        in subprocess.run(
            [sys.executable, "-m", "components.train.range_test", *flags(step)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    assert 1e-6 < json.loads(step.metrics.read_text())["learning_rate"] < 1


def test_pods_log_what_the_gpu_does(of_files: Make) -> None:
    step = of_files("lines", architecture="resnet18", image_size=64, epochs=40, batch_size=64, gpus="1")
    often = os.environ | {"RETRAIN_LOG_FORMAT": "logfmt", "RETRAIN_PROGRESS_SECONDS": "0.2"}
    command = [sys.executable, "-m", "components.train", *flags(step)]
    told = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True, env=often).stderr
    lines = [line for line in told.splitlines() if line.startswith("progress ")]
    assert any(re.search(r" gpu_memory_mib=[1-9]\d* gpu=\d+%", line) for line in lines), lines
