import pytest
import timm
import torch

from components.models.nasnet import NASNetA


def test_the_mobile_network_has_the_parameters_that_the_paper_counts() -> None:
    assert sum(parameter.numel() for parameter in NASNetA(1000).parameters()) == 5_289_978  # "5.3 M"


@pytest.mark.slow
def test_at_the_size_of_the_large_network_it_is_timm_s() -> None:
    ours = NASNetA(10, cells=6, filters=168, stem=96).eval()
    theirs = timm.create_model("nasnetalarge", num_classes=10).eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    images = torch.randn(2, 3, 64, 64)
    assert torch.allclose(ours(images), theirs(images), atol=1e-5)


def test_cells_look_at_the_two_before_them_through_both_reductions() -> None:
    torch.manual_seed(0)
    network = NASNetA(5, channels=1, filters=8, stem=4).eval()
    assert network(torch.randn(3, 1, 33, 41)).shape == (3, 5)
