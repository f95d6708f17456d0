"""What a model says of itself: how to build it, what it was trained on, how it learnt. Read without torch."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from components.step import StepError, UserError

FORMAT = 1
"""The version of the files in a model's directory; a newer one is refused."""


@dataclass(frozen=True)
class ModelConfig:
    """All that rebuilds a classifier around its weights, and where they come from."""

    architecture: str
    options: dict[str, Any]  # the architecture's own: activation, pooling, bias
    classes: tuple[str, ...]
    shape: tuple[int, int, int]  # height, width, channels
    mean: tuple[float, ...]  # per channel, of pixels scaled to [0, 1]
    std: tuple[float, ...]
    dataset: str  # digest of the dataset it was trained on
    training: dict[str, Any]  # recipe, results and machine: epochs, seed, validation_accuracy, seconds, ...


def write_config(path: Path, config: ModelConfig, weights_sha256: str) -> None:
    """Writes config.json, with the digest that tells whether the weights beside it are whole."""
    content = {"format": FORMAT, "weights_sha256": weights_sha256, **asdict(config)}
    path.write_text(json.dumps(content, indent=2) + "\n")


def read_config(directory: Path) -> ModelConfig:
    """The config in a model's directory. Raises UserError where there is none, StepError if it is damaged."""
    content = _read_fields(directory)
    try:
        config = ModelConfig(**{field.name: content[field.name] for field in fields(ModelConfig)})
        tuples = {name: tuple(getattr(config, name)) for name in ("classes", "shape", "mean", "std")}
    except (KeyError, TypeError) as error:
        raise StepError(f"{directory / 'config.json'} is damaged ({error}); train the model again") from None
    return ModelConfig(**{**vars(config), **tuples})


def read_weights_sha256(directory: Path) -> str:
    """The SHA-256 that weights.safetensors must have."""
    return str(_read_fields(directory).get("weights_sha256"))


def read_curve(directory: Path) -> list[dict[str, Any]]:
    """The learning curve: a row an epoch, with epoch, train_loss, validation_loss, validation_accuracy, ..."""
    rows: list[dict[str, Any]] = _read_json(directory / "curve.json")
    return rows


def _read_fields(directory: Path) -> dict[str, Any]:
    content = _read_json(directory / "config.json")
    if not isinstance(content, dict) or "format" not in content:
        raise UserError(f"{directory / 'config.json'} is not a model's config; name the directory that train wrote")
    if content["format"] != FORMAT:
        raise UserError(f"{directory / 'config.json'} has format {content['format']!r}, not {FORMAT}; update Retrain")
    return content


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"model {str(path.parent)!r} has no {path.name}; name the directory that train wrote") from None
    except ValueError as error:
        raise StepError(f"{path} is damaged ({error}); train the model again") from None
