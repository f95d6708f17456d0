"""Networks by name, adapted to images that they were not made for."""

import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from components.models.artifact import adaptations, build
from components.models.config import ModelConfig
from components.models.networks import fitted_side
from components.step import UserError

LENET5 = {"activation": "relu", "pooling": "max", "bias": True}


def describe(architecture: str, *shape: int) -> ModelConfig:
    """The config of a fresh classifier of three classes."""
    height, width, channels = shape
    return ModelConfig(
        architecture=architecture,
        options=LENET5 if architecture == "lenet5" else {},
        classes=("circle", "square", "star"),
        shape=(height, width, channels),
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        dataset="digest of the dataset",
        training={},
    )


def logits(config: ModelConfig) -> torch.Tensor:
    """Of two images of noise."""
    images = torch.randint(0, 256, (2, *config.shape), dtype=torch.uint8)
    answer: torch.Tensor = build(config).eval()(images)
    return answer


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "shape", "told"),
    [
        ("lenet5", (28, 28, 1), []),
        ("lenet5", (30, 30, 1), ["lenet5 takes no images of 30x30: they are resized to 32x32 inside the network."]),
        ("resnet18", (28, 40, 3), []),
        ("resnet18", (9, 9, 1), ["resnet18 was designed for 3 channels: its first layer is made for 1 here."]),
        ("squeezenet", (32, 32, 1), ["squeezenet takes images of 3 channels: the one channel of these is repeated."]),
        (
            "shufflenet_v2",
            (28, 28, 1),
            ["shufflenet_v2 takes images of 3 channels: the one channel of these is repeated."],
        ),
        (
            "squeezenet",
            (9, 12, 3),
            ["squeezenet takes no images of 9x12: they are resized to 17x23 inside the network."],
        ),
        (
            "timm/vit_tiny_patch16_224",
            (28, 28, 3),
            ["timm/vit_tiny_patch16_224 takes no images of 28x28: they are resized to 224x224 inside the network."],
        ),
        ("timm/resnet10t", (28, 30, 3), []),
        (
            "torchvision/googlenet",
            (28, 28, 1),
            ["torchvision/googlenet takes images of 3 channels: the one channel of these is repeated."],
        ),
    ],
)
def test_images_of_any_size_and_grey_ones_are_adapted_to_and_it_is_said(
    architecture: str, shape: tuple[int, int, int], told: list[str]
) -> None:
    config = describe(architecture, *shape)
    assert logits(config).shape == (2, 3)
    assert adaptations(config, build(config)) == told


def test_grey_images_are_seen_as_the_same_in_colour() -> None:
    torch.manual_seed(0)
    grey = build(describe("squeezenet", 20, 20, 1)).eval()
    colour = build(describe("squeezenet", 20, 20, 3)).eval()
    colour.load_state_dict(grey.state_dict())
    images = torch.randint(0, 256, (2, 20, 20, 1), dtype=torch.uint8)
    assert torch.allclose(grey(images), colour(images.expand(-1, -1, -1, 3)), atol=1e-6)


def test_small_images_are_enlarged_bilinearly() -> None:
    torch.manual_seed(0)
    small = build(describe("squeezenet", 10, 10, 3)).eval()
    assert small.size == (17, 17)
    images = torch.randint(0, 256, (2, 10, 10, 3), dtype=torch.uint8)
    pixels = (images.permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    enlarged = torch.nn.functional.interpolate(pixels, (17, 17), mode="bilinear", align_corners=False)
    assert torch.allclose(small(images), small.network(enlarged), atol=1e-6)


@pytest.mark.parametrize(
    ("architecture", "told"),
    [
        ("timm/resnet27", r"unknown architecture 'timm/resnet27': timm 1\.\S+ has no 'resnet27'; did you mean 'timm/"),
        ("timm/resnet26.bt", r"timm \S+ has no 'resnet26.bt'; did you mean 'timm/resnet26.bt_in1k'"),
        ("torchvision/vgg12", r"torchvision \S+ has no 'vgg12'; did you mean 'torchvision/vgg1"),
        ("torchvision/fasterrcnn_resnet50_fpn", "has no 'fasterrcnn_resnet50_fpn'"),
    ],
)
def test_a_network_that_a_library_has_not_is_refused_with_its_nearest(architecture: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        build(describe(architecture, 32, 32, 3))


def test_options_and_channels_that_a_network_does_not_take_are_refused() -> None:
    with pytest.raises(UserError, match="architecture 'resnet18' does not take the options"):
        build(replace(describe("resnet18", 32, 32, 3), options={"bias": True}))
    with pytest.raises(UserError, match="channels must be 1 or 3 for squeezenet, not 4"):
        build(describe("squeezenet", 32, 32, 4))


@pytest.mark.slow
def test_what_is_no_classifier_is_refused() -> None:
    told = "timm/csatv2 gives no logits for images of 32x32 with 1 channels, nor at its own 512x512"
    with pytest.warns(UserWarning, match="designed for 3-channel"), pytest.raises(UserError, match=told):
        build(describe("timm/csatv2", 32, 32, 1))


TOO_LARGE = """
from components.models.artifact import build
from components.models.networks import make
from components.step import UserError
from tests.components.models.test_networks import describe
from tests.memory import peak

make("timm/resnet10t", {}, (224, 224, 3), 3)
before = peak()
try:
    build(describe("timm/vit_giant_patch14_224", 224, 224, 3))
except UserError as error:
    print(error, peak() - before, sep="\\n")
"""


@pytest.mark.slow
def test_what_is_too_large_to_export_is_refused_before_it_takes_memory() -> None:
    told, growth = subprocess.check_output([sys.executable, "-c", TOO_LARGE], text=True).splitlines()
    assert re.fullmatch(
        "architecture timm/vit_giant_patch14_224 must have at most 530,000,000 parameters, "
        r"for one ONNX file holds 2 GB, not '1,011,\d+,\d+'",
        told,
    )
    assert int(growth) < 200 * 2**10, "KiB; its weights are 4 GB"


def test_files_are_fitted_to_the_side_that_the_network_was_made_for_unless_theirs_is_smaller() -> None:
    assert fitted_side("resnet18", None, None) == 224
    assert fitted_side("resnet18", 64, 64) == 64
    assert fitted_side("resnet18", 64, 80) == fitted_side("resnet18", 512, 512) == 224
    assert fitted_side("inception_v4", None, None) == fitted_side("inception_v4", 32, 32) == 299
    assert fitted_side("inception_v4", 32, 32, image_size=48) == 48
    assert fitted_side("lenet5", None, None) == fitted_side("lenet5", 300, 300) == 32
    assert fitted_side("lenet5", 28, 28) == 28
    assert fitted_side("timm/inception_v3", None, None) == fitted_side("torchvision/inception_v3", None, None) == 299


def test_a_size_that_the_network_does_not_take_cannot_be_asked_for() -> None:
    assert fitted_side("lenet5", None, None, image_size=28) == 28
    with pytest.raises(UserError, match="image size must be 28x28 or 32x32 for lenet5, not '30x30'"):
        fitted_side("lenet5", None, None, image_size=30)


@pytest.mark.slow
def test_lenet5_waits_for_no_library_of_networks() -> None:
    code = (
        "import sys; from components.models.artifact import build; "
        "from tests.components.models.test_networks import describe; build(describe('lenet5', 28, 28, 1)); "
        "print([m for m in ('timm', 'torchvision') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
