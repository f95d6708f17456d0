"""Every network is a line of stages from its stem to its head."""

from itertools import chain
from typing import Any

import pytest
import timm
from torch import nn

from components.models import ARCHITECTURES, networks
from components.models.lenet5 import LeNet5
from components.models.stages import stages


def options(name: str) -> dict[str, Any]:
    return {"activation": "tanh", "pooling": "avg", "bias": True} if name == "lenet5" else {}


def make(name: str) -> nn.Module:
    """The network without memory for its weights."""
    return networks.sketch(name, options(name), (75, 75, 3), 10)


FOREIGN = ["torchvision/resnet18", "torchvision/vgg11_bn", "torchvision/vit_b_16", "torchvision/swin_t"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ARCHITECTURES, *FOREIGN, "timm/caformer_s18", "timm/rdnet_tiny"])
def test_every_parameter_is_in_one_stage_and_the_head_in_the_last(name: str) -> None:
    network = make(name)
    grouped = stages(network)
    assert sorted(chain.from_iterable(grouped)) == sorted(name for name, _ in network.named_parameters())
    assert len(grouped) >= 5
    assert all(grouped)
    assert set(networks.head(name, options(name), (75, 75, 3), 10)) <= set(grouped[-1])
    assert next(iter(dict(network.named_parameters()))) in grouped[0]


def test_stages_follow_the_way_of_the_image() -> None:
    network = make("torchvision/resnet18")
    assert [group[0].split(".")[0] for group in stages(network)] == [
        *("conv1", "layer1", "layer2", "layer3", "layer4", "fc")
    ]
    assert stages(network)[0] == ["conv1.weight", "bn1.weight", "bn1.bias"]
    lenet5 = LeNet5((28, 28, 1), 10, activation="tanh", pooling="avg", bias=True)
    assert [group[0].split(".")[0] for group in stages(lenet5)] == ["c1", "s2", "c3", "s4", "c5", "f6", "output"]


def test_timm_says_the_stages_of_its_own_networks() -> None:
    network = timm.create_model("resnet18", num_classes=10)
    assert [len(group) for group in stages(network)] == [3, 12, 15, 15, 15, 2]
