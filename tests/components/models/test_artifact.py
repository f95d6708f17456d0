import json
import pickletools
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from components.models.artifact import build, load, save
from components.models.config import ModelConfig, read_config, read_curve
from components.step import StepError, UserError

CONFIG = ModelConfig(
    architecture="lenet5",
    options={"activation": "relu", "pooling": "max", "bias": True},
    classes=("circle", "square", "star"),
    shape=(28, 28, 1),
    mean=(0.25,),
    std=(0.5,),
    dataset="ab" * 32,
    training={"epochs": 1, "seed": 0},
)
CURVE = [{"epoch": 1, "train_loss": 0.5, "validation_accuracy": 0.9}]


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (5, 28, 28, 1), dtype=torch.uint8)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save(tmp_path / "model", build(CONFIG), CONFIG, CURVE)
    return tmp_path / "model"


def test_a_saved_model_loads_with_identical_logits(tmp_path: Path, images: torch.Tensor) -> None:
    classifier = build(CONFIG)
    save(tmp_path / "model", classifier, CONFIG, CURVE)
    loaded, config = load(tmp_path / "model")
    assert torch.equal(loaded(images), classifier(images))
    assert not loaded.training
    assert config == CONFIG
    assert read_curve(tmp_path / "model") == CURVE


def test_a_model_is_three_files_without_a_pickle(model: Path) -> None:
    assert sorted(path.name for path in model.iterdir()) == ["config.json", "curve.json", "weights.safetensors"]
    for path in model.iterdir():
        with pytest.raises(ValueError, match=r"opcode|pickle"):
            list(pickletools.genops(path.read_bytes()))
    assert not list(model.parent.glob(".aside-*"))


def test_a_classifier_normalises_the_bytes_itself(images: torch.Tensor) -> None:
    classifier = build(CONFIG)
    pixels = (images.permute(0, 3, 1, 2) / 255 - 0.25) / 0.5
    assert torch.allclose(classifier(images), classifier.network(pixels), atol=1e-6)


def test_channels_are_normalised_each_with_its_own_figures() -> None:
    classifier = build(replace(CONFIG, shape=(32, 32, 3), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)))
    images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    pixels = (images / 255 - torch.tensor([0.1, 0.2, 0.3])) / torch.tensor([0.4, 0.5, 0.6])
    assert torch.allclose(classifier(images), classifier.network(pixels.permute(0, 3, 1, 2)), atol=1e-6)


def test_an_unknown_architecture_or_a_foreign_option_is_refused() -> None:
    with pytest.raises(UserError, match="unknown architecture 'lenet'; did you mean 'lenet5'"):
        build(replace(CONFIG, architecture="lenet"))
    with pytest.raises(UserError, match="'lenet5' does not take the options"):
        build(replace(CONFIG, options={"depth": 18}))


def test_one_flipped_bit_in_the_weights_is_noticed(model: Path) -> None:
    path = model / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StepError, match=r"weights\.safetensors is damaged"):
        load(model)


def test_the_weights_of_another_model_are_refused(model: Path) -> None:
    safetensors.torch.save_file({"other": torch.zeros(3)}, model / "weights.safetensors")
    with pytest.raises(StepError, match="damaged or of another model"):
        load(model)


def test_weights_that_do_not_fit_the_config_are_refused(model: Path) -> None:
    content = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(content | {"classes": ["circle", "square"]}))
    with pytest.raises(StepError, match="does not fit the network"):
        load(model)


def test_a_directory_without_a_model_is_the_user_s_mistake(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'.*empty' has no config\.json; name the directory that train wrote"):
        load(tmp_path / "empty")
    (model / "weights.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no weights\.safetensors"):
        load(model)


@pytest.mark.parametrize(
    ("content", "error", "told"),
    [
        ("{", StepError, "is damaged"),
        ("[1]", UserError, "is not a model's config"),
        ('{"format": 1}', StepError, "is damaged"),
        ('{"format": 2}', UserError, "has format 2, not 1; update Retrain"),
    ],
)
def test_a_bad_config_is_refused_in_one_sentence(model: Path, content: str, error: type[Exception], told: str) -> None:
    (model / "config.json").write_text(content)
    with pytest.raises(error, match=told):
        read_config(model)


def test_a_model_that_is_saved_again_replaces_the_one_before(model: Path) -> None:
    save(model, build(CONFIG), CONFIG, [*CURVE, {"epoch": 2}])
    assert len(read_curve(model)) == 2
    assert [path.name for path in model.parent.iterdir()] == ["model"]
