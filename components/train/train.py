"""Trains a classifier; read it from top to bottom."""

import dataclasses
import json
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from components.dataset.manifest import Manifest, read_manifest
from components.loader.batches import OrderedBatches, TrainingBatches
from components.models import SIZES
from components.models.artifact import ModelConfig, build, save
from components.progress import Progress
from components.step import Metadata, StepError, require
from components.storage import aside, open_store
from components.train.augmentation import distort
from components.train.interface import Train
from components.train.learner import Learner, judge
from components.train.memory import keep_freed_memory

Row = dict[str, Any]
"""An epoch of the learning curve, or the results of a training: flat, so that the UI can list it."""


def train(step: Train) -> Metadata:
    """Trains on the training split, judges on the validation split after each epoch, and writes the model.

    The same seed, data and machine give bitwise the same weights. Raises StepError, and writes nothing, where the loss
    ceases to be a number or a shard is damaged or gone.
    """
    keep_freed_memory()

    device = choose_device(step)

    # data
    manifest = read_manifest(step.dataset)
    store = open_store(step.store)
    config = describe(step, manifest)
    validation = OrderedBatches(store, manifest, "validation", config.shape, device=device)
    batches = TrainingBatches(store, manifest, config.shape, step.batch_size, step.seed, distort, device=device)

    # model
    torch.manual_seed(step.seed)
    learner = Learner(build(config).to(device), step.epochs * len(batches), step.learning_rate)

    # epochs
    progress = Progress("", step.epochs * batches.images, "images")
    curve: list[Row] = []
    for epoch in range(1, step.epochs + 1):
        start, waited, name = time.monotonic(), batches.waited_seconds, f"epoch {epoch}/{step.epochs}"
        train_loss = run_epoch(learner, batches.epoch(epoch), progress, name)
        validation_loss, accuracy = judge(learner.classifier, validation)
        check_loss(validation_loss, f"after {name}", learner.learning_rate)
        seconds = time.monotonic() - start
        row = {
            "epoch": epoch,
            "train_loss": train_loss,
            "validation_loss": validation_loss,
            "validation_accuracy": accuracy,
            "learning_rate": learner.learning_rate,  # at the end of the epoch
            "data_wait": (batches.waited_seconds - waited) / seconds,  # the share of them spent waiting for images
            "seconds": seconds,
        }
        curve.append(row)
        print(
            f"{name}: train loss {train_loss:.4f}, validation accuracy {accuracy:.2%}, "
            f"learning rate {row['learning_rate']:.2g}, {seconds:.1f} s, {row['data_wait']:.0%} of it waiting for data",
            flush=True,
        )

    # results
    results = summarize(curve, images=step.epochs * batches.images)
    recipe = {name: getattr(step, name) for name in ("epochs", "batch_size", "learning_rate", "seed")}
    parameters = sum(parameter.numel() for parameter in learner.classifier.parameters())
    machine = {"torch": torch.__version__, "device": str(device), "threads": torch.get_num_threads()}
    config = dataclasses.replace(config, training=recipe | results | machine | {"parameters": parameters})
    save(step.model, learner.classifier, config, curve)
    write_metrics(step.metrics, results)
    model = {"architecture": config.architecture, **config.options, "dataset": config.dataset, "parameters": parameters}
    return {"model": model | recipe, "metrics": results}


def choose_device(step: Train) -> torch.device:
    """Where to train. Raises StepError where a GPU was asked for and is not there: never silently on the CPU."""
    if step.gpus == "0":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise StepError(
            f"train asked for {step.gpus} {step.gpu_type} and PyTorch {torch.__version__} sees none; check the node's "
            "driver and the image's torch, or ask for --gpus 0"
        )
    return torch.device("cuda")


def describe(step: Train, manifest: Manifest) -> ModelConfig:
    """The config of the model to train; `training` is filled in when it is done."""
    return ModelConfig(
        architecture=step.architecture,
        options={"activation": step.activation, "pooling": step.pooling, "bias": step.bias},
        classes=manifest.classes,
        shape=input_shape(step, manifest),
        mean=manifest.mean,
        std=manifest.std,
        dataset=manifest.digest,
        training={},
    )


def input_shape(step: Train, manifest: Manifest) -> tuple[int, int, int]:
    """Height, width and channels that the network takes. Raises UserError where raw pixels are wanted in another size.

    Image files are fitted to a square; raw pixels are taken as they are.
    """
    height, width, channels = manifest.shape
    if height and width and manifest.encoding == "raw":
        must = f"be 0 or {height}: the dataset holds raw pixels of {height}x{width}"
        require(step.image_size in (0, height), "image_size", step.image_size, must)
        return height, width, channels
    sides = SIZES[step.architecture]
    side = step.image_size or (height if height and height == width and height in sides else sides[0])
    return side, side, channels


def run_epoch(learner: Learner, batches: Iterable[tuple[Tensor, Tensor]], progress: Progress, name: str) -> float:
    """One pass over the training split; returns the mean loss."""
    learner.classifier.train()
    total, count = 0.0, 0
    for number, (images, labels) in enumerate(batches, 1):
        rate = learner.learning_rate
        loss = learner.learn(images, labels)
        check_loss(loss, f"in {name}, batch {number}", rate)
        progress.advance(len(labels), f"{name}, loss {loss:.4f}, learning rate {rate:.2g}")
        total, count = total + loss * len(labels), count + len(labels)
    return total / count


def check_loss(loss: float, where: str, rate: float) -> None:
    """Raises StepError unless the loss is a number."""
    if not math.isfinite(loss):
        raise StepError(f"loss is {loss} {where}, at learning rate {rate:.3g}; try a smaller --learning-rate")


def summarize(curve: list[Row], images: int) -> Row:
    """The results in numbers; `images` counts every pass."""
    seconds = sum(row["seconds"] for row in curve)
    data_wait = sum(row["data_wait"] * row["seconds"] for row in curve) / seconds
    last = {name: curve[-1][name] for name in ("train_loss", "validation_loss", "validation_accuracy")}
    return last | {"seconds": seconds, "images_per_second": images / seconds, "data_wait": data_wait}


def write_metrics(path: Path, results: Row) -> None:
    """Writes the results as JSON."""
    with aside(path) as file:
        file.write_text(json.dumps(results, indent=2) + "\n")
