"""The networks by name, and what is known of each without building it. Needs no torch."""

import difflib
import re
from dataclasses import dataclass

from components.step import UserError


@dataclass(frozen=True)
class Paper:
    """Where a network was published."""

    title: str
    authors: str
    year: int
    venue: str  # "arXiv:1512.03385", or where the paper appeared

    def __str__(self) -> str:
        return f'{self.authors}: "{self.title}", {self.year}, {self.venue}'


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network that has a short name here."""

    source: str  # "retrain", or the library's own name for it, with the tag of its weights: "timm/resnet18.a1_in1k"
    repository: str | None  # of these weights on the Hugging Face Hub
    paper: Paper
    parameters: int
    multiply_adds: int  # for one image
    side: int  # of the square images that it was made for, in pixels
    channels: int = 3  # of those images
    classes: int = 1000  # that it was made for
    smallest: int = 1  # the smallest side that it takes
    sides: tuple[int, ...] = ()  # the only sides that it takes, where there are such
    options: tuple[str, ...] = ()  # what ModelConfig.options holds

    @property
    def library(self) -> str:
        """retrain, timm or torchvision."""
        return self.source.partition("/")[0]

    @property
    def licence(self) -> str:
        """Of the network's code; pretrained weights have licences of their own."""
        return LICENCES[self.library]

    def takes(self, height: int, width: int) -> bool:
        """Whether the network takes images of this size, in pixels, as they are."""
        if self.sides:
            return height == width and height in self.sides
        return min(height, width) >= self.smallest

    def seen_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width at which the network sees such images: their own, or the nearest that it takes."""
        if self.takes(height, width):
            return height, width
        if self.sides:
            return self.side, self.side
        short = min(height, width)
        return -(-height * self.smallest // short), -(-width * self.smallest // short)


LICENCES = {"retrain": "Apache-2.0", "timm": "Apache-2.0", "torchvision": "BSD-3-Clause"}

LENET = Paper(
    "Gradient-Based Learning Applied to Document Recognition",
    "LeCun, Bottou, Bengio, Haffner",
    1998,
    "Proceedings of the IEEE 86(11)",
)
RESNET = Paper("Deep Residual Learning for Image Recognition", "He, Zhang, Ren, Sun", 2015, "arXiv:1512.03385")
RESNEXT = Paper(
    "Aggregated Residual Transformations for Deep Neural Networks",
    "Xie, Girshick, Dollár, Tu, He",
    2016,
    "arXiv:1611.05431",
)
SENET = Paper("Squeeze-and-Excitation Networks", "Hu, Shen, Albanie, Sun, Wu", 2017, "arXiv:1709.01507")
DENSENET = Paper(
    "Densely Connected Convolutional Networks", "Huang, Liu, van der Maaten, Weinberger", 2016, "arXiv:1608.06993"
)
INCEPTION_V4 = Paper(
    "Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning",
    "Szegedy, Ioffe, Vanhoucke, Alemi",
    2016,
    "arXiv:1602.07261",
)
XCEPTION = Paper("Xception: Deep Learning with Depthwise Separable Convolutions", "Chollet", 2016, "arXiv:1610.02357")
NASNET = Paper(
    "Learning Transferable Architectures for Scalable Image Recognition",
    "Zoph, Vasudevan, Shlens, Le",
    2017,
    "arXiv:1707.07012",
)
MOBILENET_V2 = Paper(
    "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
    "Sandler, Howard, Zhu, Zhmoginov, Chen",
    2018,
    "arXiv:1801.04381",
)
SHUFFLENET_V2 = Paper(
    "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design",
    "Ma, Zhang, Zheng, Sun",
    2018,
    "arXiv:1807.11164",
)
SQUEEZENET = Paper(
    "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size",
    "Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer",
    2016,
    "arXiv:1602.07360",
)


def _known(
    source: str, paper: Paper, parameters: int, multiply_adds: int, side: int = 224, smallest: int = 1
) -> Architecture:
    return Architecture(
        source=source,
        # timm's own are all there, under their names here, but for Xception's.
        repository=source if source.startswith("timm/") and "legacy" not in source else None,
        paper=paper,
        parameters=parameters,
        multiply_adds=multiply_adds,
        side=side,
        smallest=smallest,
    )


ARCHITECTURES: dict[str, Architecture] = {
    "lenet5": Architecture(
        source="retrain",
        repository=None,
        paper=LENET,
        parameters=60_806,
        multiply_adds=416_520,
        side=32,
        channels=1,
        classes=10,
        smallest=28,
        sides=(32, 28),
        options=("activation", "pooling", "bias"),
    ),
    "resnet18": _known("timm/resnet18.a1_in1k", RESNET, 11_689_512, 1_814_073_344),
    "resnet34": _known("timm/resnet34.a1_in1k", RESNET, 21_797_672, 3_663_761_408),
    "resnet50": _known("timm/resnet50.a1_in1k", RESNET, 25_557_032, 4_089_184_256),
    "resnet101": _known("timm/resnet101.a1_in1k", RESNET, 44_549_160, 7_801_405_440),
    "resnet152": _known("timm/resnet152.a1_in1k", RESNET, 60_192_808, 11_513_626_624),
    "resnext50": _known("timm/resnext50_32x4d.a1_in1k", RESNEXT, 25_028_904, 4_230_479_872),
    "resnext101": _known("timm/resnext101_32x4d.gluon_in1k", RESNEXT, 44_177_704, 7_969_996_800),
    "se_resnet50": _known("timm/seresnet50.a1_in1k", SENET, 28_088_024, 4_091_699_200),
    "senet154": _known("timm/senet154.gluon_in1k", SENET, 115_088_984, 20_688_363_520),
    "densenet121": _known("timm/densenet121.ra_in1k", DENSENET, 7_978_856, 2_834_161_664, smallest=29),
    "densenet161": _known("timm/densenet161.tv_in1k", DENSENET, 28_681_000, 7_727_907_072, smallest=29),
    "densenet169": _known("timm/densenet169.tv_in1k", DENSENET, 14_149_480, 3_359_843_328, smallest=29),
    "densenet201": _known("timm/densenet201.tv_in1k", DENSENET, 20_013_928, 4_291_365_888, smallest=29),
    "inception_resnet_v2": _known(
        "timm/inception_resnet_v2.tf_in1k", INCEPTION_V4, 55_843_464, 13_155_794_016, 299, smallest=75
    ),
    "inception_v4": _known("timm/inception_v4.tf_in1k", INCEPTION_V4, 42_679_816, 12_253_974_624, 299, smallest=75),
    "xception": _known("timm/legacy_xception.tf_in1k", XCEPTION, 22_855_952, 8_357_403_496, 299, smallest=7),
    "nasnet_mobile": _known("retrain", NASNET, 5_289_978, 563_638_816, smallest=3),
    "nasnet_large": _known("timm/nasnetalarge.tf_in1k", NASNET, 88_753_150, 23_783_414_658, 331, smallest=3),
    "mobilenet_v2": _known("timm/mobilenetv2_100.ra_in1k", MOBILENET_V2, 3_504_872, 300_774_272),
    "shufflenet_v2": _known("torchvision/shufflenet_v2_x1_0", SHUFFLENET_V2, 2_278_604, 144_907_992),
    "squeezenet": _known("torchvision/squeezenet1_1", SQUEEZENET, 1_235_496, 349_151_936, smallest=17),
}
"""The networks that have a short name. Every other of timm and torchvision goes as timm/NAME and torchvision/NAME."""

FOREIGN = re.compile(r"(timm|torchvision)/[A-Za-z0-9_][A-Za-z0-9_.-]*")


def check_architecture(name: str) -> None:
    """Raises UserError, with the nearest name, unless `name` is in ARCHITECTURES or has the form of a library's name.

    Whether timm or torchvision has such a network is known to them alone: `components.models.library.check` asks.
    """
    if name in ARCHITECTURES or FOREIGN.fullmatch(name):
        return
    near = difflib.get_close_matches(name, ARCHITECTURES, n=1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    raise UserError(
        f"unknown architecture {name!r}; {meant}`retrain models` lists all, and any other network of timm or "
        "torchvision is timm/NAME or torchvision/NAME"
    )
