"""What the catalogue says of its networks is so."""

import pytest
import timm
import torch

from components.models import ARCHITECTURES, library, networks
from components.models.measure import DEFAULTS, measure


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_catalogue_has_the_figures_of_the_network_as_it_runs(name: str) -> None:
    figures, known = measure(name), ARCHITECTURES[name]
    assert (figures.parameters, figures.multiply_adds) == (known.parameters, known.multiply_adds)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "lenet5"])
def test_the_smallest_image_that_a_network_takes_is_the_catalogue_s(name: str) -> None:
    smallest = ARCHITECTURES[name].smallest
    with torch.device("meta"):
        network = networks.sketch(name, {}, (32, 32, 3), 10).eval()
        for size in ((smallest, smallest), (smallest + 1, smallest + 6)):
            assert network(torch.empty(2, 3, *size)).shape == (2, 10)
        if smallest > 1:
            with pytest.raises(RuntimeError):
                network(torch.empty(2, 3, smallest - 1, smallest - 1))


def test_the_catalogue_has_the_libraries_sides_and_weights() -> None:
    for known in ARCHITECTURES.values():
        if known.library != "retrain":
            assert library.native_size(known.source) == (known.side, known.side)
            weights = library.weights(known.source)
            assert (weights.repository if weights else None) == known.repository
            assert weights is None or weights.licence == "apache-2.0"  # as docs/models.md says


def test_lenet5_is_measured_with_the_options_that_train_takes_by_default() -> None:
    from components.train.interface import Train

    assert {option: getattr(Train, option) for option in ARCHITECTURES["lenet5"].options} == DEFAULTS


def test_a_network_of_a_library_is_measured_at_its_own_size() -> None:
    figures = measure("timm/resnet10t")
    assert (figures.height, figures.width, figures.channels) == (176, 176, 3)
    assert figures.parameters == sum(p.numel() for p in timm.create_model("resnet10t").parameters())


def test_a_network_that_cannot_be_made_without_memory_is_measured_with_it() -> None:
    assert measure("torchvision/regnet_y_400mf").parameters == 4_344_144
