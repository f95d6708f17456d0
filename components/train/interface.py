"""What train takes and gives."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from components.models import ARCHITECTURES
from components.step import In, Out, check_choices, choose, require


@dataclass(frozen=True, kw_only=True)
class Train:
    """Trains a classifier on the training split of a dataset; the validation split steers; the test split is unseen."""

    dataset: Annotated[Path, In("Dataset"), "The manifest that ingest wrote."]
    store: Annotated[str, "Where shards and models are kept: a directory, or s3://bucket/prefix."]
    architecture: Annotated[str, "The network by name."] = "lenet5"
    activation: Annotated[Literal["tanh", "sigmoid", "relu", "leaky_relu"], "LeNet-5's squashing function."] = "relu"
    pooling: Annotated[Literal["max", "avg"], "LeNet-5's subsampling."] = "max"
    bias: Annotated[bool, "Whether LeNet-5's layers have biases."] = True
    image_size: Annotated[int, "Side of the square that images are fitted to; 0: their own, or the network's."] = 0
    epochs: Annotated[int, "Passes over the training split."] = 12
    batch_size: Annotated[int, "Images a step of the optimizer."] = 256
    learning_rate: Annotated[float, "Peak learning rate of the one-cycle schedule."] = 0.006
    seed: Annotated[int, "Seed of the weights, the order of the images and their augmentation."] = 0
    gpus: Annotated[str, "GPUs that the step gets; a whole number, as text, which is what KFP can place by."] = "0"
    gpu_type: Annotated[str, "The resource that Kubernetes knows the GPUs by."] = "nvidia.com/gpu"
    model: Annotated[Path, Out("Model"), "A directory: weights.safetensors, config.json and curve.json."]
    metrics: Annotated[Path, Out("Metrics"), "Validation accuracy, loss and speed of the training."]

    def __post_init__(self) -> None:
        choose("architecture", self.architecture, list(ARCHITECTURES))
        check_choices(self)
        require(self.image_size >= 0, "image_size", self.image_size, "be at least 0")
        require(self.epochs >= 1, "epochs", self.epochs, "be at least 1")
        require(self.batch_size >= 1, "batch_size", self.batch_size, "be at least 1")
        require(0 < self.learning_rate < float("inf"), "learning_rate", self.learning_rate, "be a positive number")
        require(self.gpus in ("0", "1"), "gpus", self.gpus, "be 0 or 1")
        require(self.seed >= 0, "seed", self.seed, "be at least 0")
