import subprocess
import sys

import pytest

from components.models import ARCHITECTURES, check_architecture
from components.step import UserError

TEXTBOOK = """
    lenet5 resnet18 resnet34 resnet50 resnet101 resnet152 resnext50 resnext101 se_resnet50 senet154 densenet121
    densenet161 densenet169 densenet201 inception_resnet_v2 inception_v4 xception nasnet_mobile nasnet_large
    mobilenet_v2 shufflenet_v2 squeezenet
"""


def test_every_network_of_the_textbook_has_a_short_name() -> None:
    assert list(ARCHITECTURES) == TEXTBOOK.split()


@pytest.mark.parametrize("name", ["lenet5", "resnet18", "timm/resnet26", "timm/resnet26.bt_in1k", "torchvision/vgg11"])
def test_short_names_and_names_of_a_library_are_taken(name: str) -> None:
    check_architecture(name)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("resnt18", "unknown architecture 'resnt18'; did you mean 'resnet18'? `retrain models` lists all, and"),
        (
            "vit",
            "unknown architecture 'vit'; `retrain models` lists all, and any other network of timm or torchvision is",
        ),
        ("timm/", "unknown architecture 'timm/'"),
        ("timm/hf-hub:someone/else", "unknown architecture"),
        ("timm/../../etc/passwd", "unknown architecture"),
        ("keras/resnet50", "unknown architecture"),
    ],
)
def test_another_name_is_refused_with_the_nearest(name: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        check_architecture(name)
    assert told in str(caught.value)


def test_the_catalogue_needs_neither_torch_nor_a_library_of_networks() -> None:
    code = "import sys, components.models; print([m for m in ('torch', 'timm', 'torchvision') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_images_that_are_too_small_are_seen_enlarged_in_their_own_proportions() -> None:
    inception = ARCHITECTURES["inception_v4"]
    assert inception.seen_size(28, 28) == (75, 75)
    assert inception.seen_size(28, 40) == (75, 108)
    assert inception.seen_size(75, 400) == (75, 400)
    assert ARCHITECTURES["resnet18"].seen_size(28, 40) == (28, 40)


def test_lenet5_sees_its_own_two_sizes_and_all_others_as_the_paper_s() -> None:
    lenet5 = ARCHITECTURES["lenet5"]
    assert lenet5.seen_size(28, 28) == (28, 28)
    assert lenet5.seen_size(30, 30) == lenet5.seen_size(28, 40) == lenet5.seen_size(300, 300) == (32, 32)
