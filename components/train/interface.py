"""What train takes and gives."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from components.models import check_architecture
from components.registry import check_name
from components.step import In, Out, check_choices, require
from components.train.recipe import read_recipe

FEWEST_IMAGES = 4
"""Of a batch that a process has: the last two of an epoch may be halves, and of one image there are no statistics."""


@dataclass(frozen=True, kw_only=True)
class Train:
    """Trains a classifier on the training split of a dataset; the validation split steers; the test split is unseen."""

    dataset: Annotated[Path, In("Dataset"), "The manifest that ingest wrote."]
    store: Annotated[str, "Where shards and models are kept: a directory, or s3://bucket/prefix."]
    model_name: Annotated[str, "The model's name in the registry."] = "mnist"
    architecture: Annotated[str, "The network by name; `retrain models` lists them."] = "lenet5"
    activation: Annotated[Literal["tanh", "sigmoid", "relu", "leaky_relu"], "LeNet-5's squashing function."] = "relu"
    pooling: Annotated[Literal["max", "avg"], "LeNet-5's subsampling."] = "max"
    bias: Annotated[bool, "Whether LeNet-5's layers have biases."] = True
    image_size: Annotated[int, "Side of the square that images are fitted to; 0: their own, or the network's."] = 0
    start: Annotated[
        Literal["scratch", "champion", "pretrained"],
        "What the weights start as: random, the champion's, or those of ImageNet that lie in the store or the cache.",
    ] = "scratch"
    epochs: Annotated[int, "Passes over the training split."] = 12
    batch_size: Annotated[
        int, "Images a step of the optimizer, on all GPUs together; 0: the network's own, or the most that fit."
    ] = 0
    learning_rate: Annotated[float, "The highest learning rate of the schedule; 0: the recipe's own."] = 0.0
    recipe: Annotated[
        str, "What else differs, as in 'optimizer=sgd schedule=cosine mixup=0.2'; see docs/training.md."
    ] = ""
    seed: Annotated[int, "Seed of the weights, the order of the images and their augmentation."] = 0
    gpus: Annotated[
        str,
        "GPUs to train on, of each node; 0: the processor. A whole number, as text: by this KFP can place the step.",
    ] = "0"
    gpu_type: Annotated[str, "The resource that Kubernetes knows the GPUs by."] = "nvidia.com/gpu"
    nodes: Annotated[int, "Machines to train on; more than one train together through Kubeflow Trainer."] = 1
    checkpoint_minutes: Annotated[float, "Time between checkpoints, from which a training that is ended goes on."] = 5.0
    model: Annotated[Path, Out("Model"), "A directory: weights.safetensors, config.json and curve.json."]
    metrics: Annotated[Path, Out("Metrics"), "Validation accuracy, loss and speed of the training."]
    curves: Annotated[Path, Out("HTML"), "The curves of the training, self-contained."]

    def __post_init__(self) -> None:
        check_name(self.model_name)
        check_architecture(self.architecture)
        check_choices(self)
        for name in ("activation", "pooling", "bias"):
            value, default = getattr(self, name), getattr(Train, name)
            must = f"be {default!r} for {self.architecture}: lenet5 alone has a choice"
            require(self.architecture == "lenet5" or value == default, name, value, must)
        read_recipe(self.recipe)
        require(self.image_size >= 0, "image_size", self.image_size, "be at least 0")
        require(self.epochs >= 1, "epochs", self.epochs, "be at least 1")
        require(
            0 <= self.learning_rate < float("inf"), "learning_rate", self.learning_rate, "be 0 or a positive number"
        )
        require(self.gpus.isdecimal(), "gpus", self.gpus, "be a whole number, 0 or more")
        require(self.nodes >= 1, "nodes", self.nodes, "be at least 1")
        if self.batch_size:
            check_batch_size(self.batch_size, max(1, int(self.gpus)) * self.nodes)
        require(self.checkpoint_minutes >= 0, "checkpoint_minutes", self.checkpoint_minutes, "be at least 0")
        require(0 <= self.seed < 2**63, "seed", self.seed, f"be from 0 to {2**63 - 1}")


def check_batch_size(size: int, processes: int) -> None:
    """Raises UserError where so many processes cannot share a batch."""
    must = f"be at least {FEWEST_IMAGES}, or 0"
    if processes > 1:
        must = f"be a multiple of the {processes} processes, with at least {FEWEST_IMAGES} images for each"
    require(size % processes == 0 and size >= FEWEST_IMAGES * processes, "batch_size", size, must)
