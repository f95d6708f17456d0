"""A trained classifier: built from its config, saved to a directory and loaded back, without a pickle."""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.models import networks
from components.models.config import ModelConfig, read_config, read_curve, read_weights_sha256, write_config
from components.registry import Version, read_file
from components.step import StepError, UserError
from components.storage import Store, aside

__all__ = [
    "Classifier",
    "ModelConfig",
    "adaptations",
    "build",
    "load",
    "load_version",
    "read_config",
    "read_curve",
    "save",
]


class Classifier(nn.Module):
    """Images as they are stored, uint8 [N, height, width, channels], to logits, float32 [N, classes].

    The preprocessing is part of the model, so that training, evaluation and the exported graph cannot differ in it.

    Args:
        network: float32 [N, channels, height, width] to logits, float32 [N, classes].
        mean: Of each channel, of pixels scaled to [0, 1].
        std: Likewise.
        size: Height and width that the network sees, where the images have another.
        repeats: How often the channels are repeated for the network.
        width: Of the images, for speed; 1 for any.
    """

    def __init__(
        self,
        network: nn.Module,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        size: tuple[int, int] | None = None,
        repeats: int = 1,
        width: int = 1,
    ) -> None:
        super().__init__()
        self.network = network
        self.size = size
        self.repeats = repeats
        # (pixel / 255 - mean) / std as one product and one sum. Not saved with the weights: the config has them.
        scale, shift = [1 / (255 * s) for s in std], [-m / s for m, s in zip(mean, std, strict=True)]
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", _row(scale, width), persistent=False)
        self.register_buffer("shift", _row(shift, width), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        x = images.permute(0, 3, 1, 2).float().mul_(self.scale).add_(self.shift)
        if self.size:
            x = F.interpolate(x, self.size, mode="bilinear", align_corners=False)
        if self.repeats > 1:
            x = x.repeat(1, self.repeats, 1, 1)
        logits: Tensor = self.network(x)
        return logits


def _row(values: list[float], width: int) -> Tensor:
    """A value of each channel for each pixel of a row, float32 [C, 1, width], in memory as the images have them.

    With one value for all pixels the innermost loop would be over three channels, and take seven times as long. Of a
    single channel one value does.
    """
    return torch.tensor(values).repeat(width if len(values) > 1 else 1, 1).T.unsqueeze(1)


def build(config: ModelConfig) -> Classifier:
    """A classifier with fresh weights, whose network is adapted to the images: `adaptations` says how.

    Raises UserError where there is no such architecture, or it does not take its options or so many channels.
    """
    name, shape = config.architecture, config.shape
    network = networks.make(name, config.options, shape, len(config.classes))
    size = networks.seen_size(name, network, shape, len(config.classes))
    repeats = networks.repeats(name, shape[2])
    return Classifier(network, config.mean, config.std, None if size == shape[:2] else size, repeats, shape[1])


def adaptations(config: ModelConfig, classifier: Classifier) -> list[str]:
    """How the network was adapted to images that it was not made for: a sentence for each way, none as a rule."""
    name, (height, width, channels) = config.architecture, config.shape
    sentences = []
    if classifier.size:
        seen = "x".join(map(str, classifier.size))
        sentences.append(f"{name} takes no images of {height}x{width}: they are resized to {seen} inside the network.")
    if classifier.repeats > 1:
        sentences.append(f"{name} takes images of 3 channels: the one channel of these is repeated.")
    elif channels != (native := networks.native_channels(name)):
        sentences.append(f"{name} was designed for {native} channels: its first layer is made for {channels} here.")
    return sentences


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


def load_version(store: Store, version: Version) -> tuple[Classifier, ModelConfig]:
    """The classifier of a published version, in eval mode, and its config. Raises StepError where it is damaged."""
    with tempfile.TemporaryDirectory(prefix="version-") as folder:
        for file in ("weights.safetensors", "config.json"):
            (Path(folder) / file).write_bytes(read_file(store, version, file))
        return load(Path(folder))


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
