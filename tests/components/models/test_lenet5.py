from itertools import product

import pytest
import torch

from components.models.lenet5 import ACTIVATIONS, TABLE_I, LeNet5, PartialConv2d, ScaledTanh, Subsampling
from components.step import UserError

GREY = (28, 28, 1)


def lenet5(
    shape: tuple[int, int, int] = GREY,
    classes: int = 10,
    activation: str = "tanh",
    pooling: str = "avg",
    bias: bool = True,
) -> LeNet5:
    return LeNet5(shape, classes, activation=activation, pooling=pooling, bias=bias)


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_paper_s_options_give_the_paper_s_trainable_parameters() -> None:
    counts = {name: parameters(layer) for name, layer in lenet5().named_children() if parameters(layer)}
    output = counts.pop("output")
    assert counts == {"c1": 156, "s2": 12, "c3": 1_516, "s4": 32, "c5": 48_120, "f6": 10_164}
    assert sum(counts.values()) == 60_000
    assert output == 84 * 10 + 10


@pytest.mark.parametrize(
    ("pooling", "bias", "expected"),
    [("avg", True, 60_850), ("max", True, 60_806), ("avg", False, 60_592), ("max", False, 60_570)],
)
def test_options_take_away_only_their_own_parameters(pooling: str, bias: bool, expected: int) -> None:
    assert parameters(lenet5(pooling=pooling, bias=bias)) == expected


@pytest.mark.parametrize(("activation", "pooling", "bias"), [*product(ACTIVATIONS, ("avg", "max"), (True, False))])
def test_every_option_gives_a_logit_a_class_and_trains_every_parameter(
    activation: str, pooling: str, bias: bool
) -> None:
    network = lenet5(classes=7, activation=activation, pooling=pooling, bias=bias)
    logits = network(torch.randn(16, 1, 28, 28))
    assert logits.shape == (16, 7)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def test_28_pixels_are_the_paper_s_32_with_a_border() -> None:
    small, large = lenet5((28, 28, 1)), lenet5((32, 32, 1))
    large.load_state_dict(small.state_dict())
    images = torch.randn(4, 1, 28, 28)
    assert torch.allclose(small(images), large(torch.nn.functional.pad(images, (2, 2, 2, 2))), atol=1e-6)


def test_colour_images_give_c1_three_times_the_kernels() -> None:
    network = lenet5((32, 32, 3))
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert parameters(network.c1) == 6 * 3 * 25 + 6


def test_table_i_has_the_paper_s_sixty_connections() -> None:
    assert [len(sees) for sees in TABLE_I] == [3] * 6 + [4] * 9 + [6]
    assert len(set(TABLE_I)) == 16
    assert all([sees.count(seen) for sees in TABLE_I].count(1) == 10 for seen in range(6))  # each map of S2 feeds ten


def test_a_map_of_c3_sees_only_the_maps_that_table_i_lists() -> None:
    c3 = PartialConv2d(6, TABLE_I, bias=False)
    for seen in range(6):
        images = torch.zeros(1, 6, 14, 14)
        images[:, seen] = torch.randn(14, 14)
        reached = c3(images).flatten(2).any(dim=2)[0]
        assert reached.tolist() == [seen in sees for sees in TABLE_I]


def test_subsampling_is_the_sum_of_a_square_times_a_coefficient_plus_a_bias() -> None:
    s2 = Subsampling(1, bias=True)
    with torch.no_grad():
        s2.coefficient.fill_(2.0)
        assert s2.bias is not None
        s2.bias.fill_(0.5)
    assert s2(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])).item() == 2 * (1 + 2 + 3 + 4) + 0.5


def test_the_scaled_tanh_maps_one_to_one() -> None:
    assert ScaledTanh()(torch.tensor([-1.0, 0.0, 1.0])).tolist() == pytest.approx([-1, 0, 1], abs=1e-4)


@pytest.mark.parametrize("shape", [(29, 28, 1), (28, 32, 1), (224, 224, 3)])
def test_another_image_size_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match=f"image size must be 28x28 or 32x32 for lenet5, not '{shape[0]}x{shape[1]}'"):
        lenet5(shape)


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(UserError, match="unknown activation 'rely'; did you mean 'relu'"):
        lenet5(activation="rely")
    with pytest.raises(UserError, match="unknown pooling 'min'"):
        lenet5(pooling="min")
