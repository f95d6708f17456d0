"""The networks by name, made for the images that they get."""

from typing import Any

import torch
from torch import nn

from components.models import library
from components.models.catalogue import ARCHITECTURES, check_architecture
from components.models.lenet5 import LeNet5
from components.step import UserError, require

Shape = tuple[int, int, int]
"""Height, width and channels of an image."""

LARGEST = 530_000_000
"""Parameters of a network that export can still put into one ONNX file, whose format ends at 2 GiB."""


def make(name: str, options: dict[str, Any], shape: Shape, classes: int) -> nn.Module:
    """A network with fresh weights: float32 [N, channels, height, width] to logits, float32 [N, classes].

    Its height and width are `seen_size`, its channels `repeats` times those of the shape. Raises UserError where there
    is no such architecture, it has more than LARGEST parameters, or it does not take its options or so many channels.
    """
    if name not in ARCHITECTURES:
        sketch(name, options, shape, classes)  # what is too large is refused before it takes memory
    return _make(name, options, shape, classes)


def sketch(name: str, options: dict[str, Any], shape: Shape, classes: int) -> nn.Module:
    """As `make`, with weights that have a shape, but no values and no memory, wherever that can be done."""
    try:
        with torch.device("meta"):
            network = _make(name, options, shape, classes)
    except NotImplementedError:  # torchvision's RegNets compute their widths with tensors
        network = _make(name, options, shape, classes)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    must = f"have at most {LARGEST:,} parameters, for one ONNX file holds 2 GB"
    require(parameters <= LARGEST, f"architecture {name}", f"{parameters:,}", must)
    return network


def _make(name: str, options: dict[str, Any], shape: Shape, classes: int) -> nn.Module:
    check_architecture(name)
    known = ARCHITECTURES.get(name)
    if set(options) != set(known.options if known else ()):
        raise UserError(f"architecture {name!r} does not take the options {options}")
    height, width, channels = shape
    if known and name == "lenet5":
        return LeNet5((*known.seen_size(height, width), channels), classes, **options)
    if name == "nasnet_mobile":
        from components.models.nasnet import NASNetA

        return NASNetA(classes, channels)
    return library.make(source(name), classes, channels * repeats(name, channels))


def source(name: str) -> str:
    """Where a network comes from: "retrain", or the name that its library knows it by."""
    return ARCHITECTURES[name].source if name in ARCHITECTURES else name


def head(name: str, options: dict[str, Any], shape: Shape, classes: int) -> list[str]:
    """The names of the tensors that have a row for each class."""
    ours, other = (sketch(name, options, shape, count).state_dict() for count in (classes, classes + 1))
    return [tensor for tensor in ours if ours[tensor].shape != other[tensor].shape]


def repeats(name: str, channels: int) -> int:
    """How often the channels of the images are repeated: 3 times where grey ones meet a network for colour alone.

    timm and Retrain make the first layer for the channels of the images, torchvision does not.
    """
    if not source(name).startswith("torchvision/"):
        return 1
    require(channels in (1, 3), "channels", channels, f"be 1 or 3 for {name}")
    return 3 // channels


def native_channels(name: str) -> int:
    """Of the images that the network was designed for."""
    return ARCHITECTURES[name].channels if name in ARCHITECTURES else 3


def fitted_side(name: str, height: int | None, width: int | None, image_size: int = 0) -> int:
    """The side, in pixels, of the square that image files of this size are fitted to; None stands for many sizes.

    It is `image_size` where that is not 0. Otherwise it is the images' own, where all are squares of one size that the
    network takes and that is not above the side it was made for; in all other cases it is that side.

    Raises UserError where `image_size` is none of the only sides that the network takes.
    """
    known = ARCHITECTURES.get(name)
    if image_size:
        if known and known.sides:
            must = f"be {' or '.join(f'{side}x{side}' for side in sorted(known.sides))} for {name}"
            require(image_size in known.sides, "image size", f"{image_size}x{image_size}", must)
        return image_size
    if not known:
        return min(library.native_size(name))
    taken = height and height == width and height <= known.side and known.takes(height, height)
    return height if height and taken else known.side


def seen_size(name: str, network: nn.Module, shape: Shape, classes: int) -> tuple[int, int]:
    """Height and width at which the network sees the images: their own, or the nearest that it takes.

    Raises UserError where it takes none.
    """
    height, width, channels = shape
    if known := ARCHITECTURES.get(name):
        return known.seen_size(height, width)
    native = library.native_size(name)
    for size in ((height, width), native):
        if _classifies(network, (*size, channels * repeats(name, channels)), classes):
            return size
    raise UserError(
        f"{name} gives no logits for images of {height}x{width} with {channels} channels, nor at its own "
        f"{native[0]}x{native[1]}; take another architecture: `retrain models` lists those that are tested"
    )


@torch.inference_mode()
def _classifies(network: nn.Module, shape: Shape, classes: int) -> bool:
    """Whether a network of which nothing else is known takes images of this shape: tried with a black one."""
    height, width, channels = shape
    training = network.training
    try:
        logits = network.eval()(torch.zeros(1, channels, height, width))
    except Exception:  # of any kind, from wherever in it the image becomes too small or does not fit
        return False
    finally:
        network.train(training)
    return isinstance(logits, torch.Tensor) and logits.shape == (1, classes) and bool(logits.isfinite().all())
