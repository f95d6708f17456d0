"""A trained classifier: built from its config, saved to a directory and loaded back, without a pickle."""

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from components.models import ARCHITECTURES
from components.models.config import ModelConfig, read_config, read_curve, read_weights_sha256, write_config
from components.models.lenet5 import LeNet5
from components.step import StepError, UserError, choose
from components.storage import aside

__all__ = ["Classifier", "ModelConfig", "build", "load", "read_config", "read_curve", "save"]

NETWORKS = {"lenet5": LeNet5}


class Classifier(nn.Module):
    """Images as they are stored, uint8 [N, height, width, channels], to logits, float32 [N, classes].

    The preprocessing is part of the model, so that training, evaluation and the exported graph cannot differ in it.
    """

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        # (pixel / 255 - mean) / std as one product and one sum. Not saved with the weights: the config has them.
        scale, shift = [1 / (255 * s) for s in std], [-m / s for m, s in zip(mean, std, strict=True)]
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", torch.tensor(scale).view(-1, 1, 1), persistent=False)
        self.register_buffer("shift", torch.tensor(shift).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        x = images.permute(0, 3, 1, 2).float().mul_(self.scale).add_(self.shift)
        logits: Tensor = self.network(x)
        return logits


def build(config: ModelConfig) -> Classifier:
    """A classifier with fresh weights. UserError where the architecture does not take its options or the images."""
    network = NETWORKS[choose("architecture", config.architecture, list(ARCHITECTURES))]
    try:
        return Classifier(network(config.shape, len(config.classes), **config.options), config.mean, config.std)
    except TypeError:
        raise UserError(f"architecture {config.architecture!r} does not take the options {config.options}") from None


def save(directory: Path, classifier: Classifier, config: ModelConfig, curve: list[dict[str, Any]]) -> None:
    """Writes weights.safetensors, config.json and curve.json; the directory appears whole or not at all."""
    weights = safetensors.torch.save({name: tensor.contiguous() for name, tensor in classifier.state_dict().items()})
    with aside(directory) as room:
        room.mkdir()
        (room / "weights.safetensors").write_bytes(weights)
        (room / "curve.json").write_text(json.dumps(curve, indent=1) + "\n")
        write_config(room / "config.json", config, hashlib.sha256(weights).hexdigest())


def load(directory: Path) -> tuple[Classifier, ModelConfig]:
    """The classifier in a model's directory, in eval mode, and its config.

    Raises UserError where the directory holds no model, StepError where its files are damaged or of another model.
    """
    config = read_config(directory)
    classifier = build(config)
    classifier.load_state_dict(_read_weights(directory, classifier))
    return classifier.eval(), config


def _read_weights(directory: Path, classifier: Classifier) -> dict[str, Tensor]:
    path = directory / "weights.safetensors"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"model {str(directory)!r} has no {path.name}; name the directory that train wrote") from None
    if hashlib.sha256(content).hexdigest() != read_weights_sha256(directory):
        raise StepError(f"{path} is damaged or of another model: not the SHA-256 in config.json; train the model again")
    weights = safetensors.torch.load(content)
    if {n: t.shape for n, t in weights.items()} != {n: t.shape for n, t in classifier.state_dict().items()}:
        raise StepError(f"{path} does not fit the network in config.json; train the model again")
    return weights
