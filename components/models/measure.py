"""A network in figures, found by running it."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from components.models import library, networks
from components.models.catalogue import ARCHITECTURES

DEFAULTS = {"activation": "relu", "pooling": "max", "bias": True}
"""The options of LeNet-5 that train takes by default."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a network costs, and for which images it was made."""

    parameters: int
    multiply_adds: int  # for one image
    height: int  # of that image, in pixels
    width: int
    channels: int


def measure(name: str) -> Figures:
    """The figures of a network for the images and the number of classes that it was made for.

    Runs it without memory for weights or images, so that the largest takes seconds. Raises UserError where there is
    none of this name.
    """
    known = ARCHITECTURES.get(name)
    height, width = (known.side, known.side) if known else library.native_size(name)
    channels, classes = networks.native_channels(name), known.classes if known else 1000
    options = {option: DEFAULTS[option] for option in (known.options if known else ())}
    network = networks.sketch(name, options, (height, width, channels), classes).eval()
    with next(network.parameters()).device, torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, channels, height, width))
    return Figures(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        multiply_adds=counter.get_total_flops() // 2,  # it counts both
        height=height,
        width=width,
        channels=channels,
    )
