"""LeNet-5, layer by layer as its paper describes it.

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner: "Gradient-Based Learning Applied to Document Recognition", Proceedings of
the IEEE 86(11), 1998; section II.B and Table I. The layers keep the names that the paper gives them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.step import choose, require

# Table I: the maps of S2 (0 to 5) that each of the 16 maps of C3 looks at. It breaks the symmetry between the maps.
TABLE_I = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5)),
)


class ScaledTanh(nn.Module):
    """1.7159 tanh(2x/3), which maps -1 and 1 to themselves (the paper's Appendix A)."""

    def forward(self, x: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(x * (2 / 3))


class Subsampling(nn.Module):
    """S2 and S4: the sum of each 2 by 2 square, times a coefficient, plus a bias, both trainable and one a map."""

    def __init__(self, maps: int, bias: bool) -> None:
        super().__init__()
        # Starts as the mean of the square: the sum times a quarter.
        self.coefficient = nn.Parameter(torch.full((maps, 1, 1), 0.25))
        self.bias = nn.Parameter(torch.zeros(maps, 1, 1)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(x, 2) * (4 * self.coefficient)
        return x if self.bias is None else x + self.bias


class PartialConv2d(nn.Module):
    """C3: a 5 by 5 convolution in which each output map sees only the input maps that `table` lists.

    Only the kernels that exist are parameters: `weight` is [connections, 5, 5]. They are laid out as a dense weight
    once a batch, which is the fastest way for so few maps.
    """

    def __init__(self, maps: int, table: tuple[tuple[int, ...], ...], bias: bool) -> None:
        super().__init__()
        connections = [(output, seen) for output, sees in enumerate(table) for seen in sees]
        # Uniform within 1/sqrt(fan-in), as nn.Conv2d starts; only that the fan-in differs from map to map.
        bound = torch.tensor([(25 * len(sees)) ** -0.5 for sees in table])
        outputs = torch.tensor([output for output, _ in connections])
        self.weight = nn.Parameter(torch.empty(len(connections), 5, 5).uniform_(-1, 1) * bound[outputs, None, None])
        self.bias = nn.Parameter(torch.empty(len(table)).uniform_(-1, 1) * bound) if bias else None
        # Where the kernel of each pair of maps lies in `weight`; the pairs without one share the zeros after the last.
        place = torch.full((len(table), maps), len(connections))
        for index, pair in enumerate(connections):
            place[pair] = index
        self.shape = (len(table), maps, 5, 5)
        self.place: Tensor
        self.register_buffer("place", place.flatten(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        kernels = F.pad(self.weight, (0, 0, 0, 0, 0, 1))
        return F.conv2d(x, kernels.index_select(0, self.place).view(self.shape), self.bias)


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": ScaledTanh,
    "sigmoid": nn.Sigmoid,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
}


class LeNet5(nn.Module):
    """float32 [N, channels, height, width] to logits, float32 [N, classes].

    With `activation="tanh"`, `pooling="avg"` and biases the layers up to F6 are the paper's, with its 60,000 trainable
    parameters. The output is a linear layer, for a softmax: the paper's RBF units compare F6 with hand-drawn bitmaps
    of the ASCII characters, which exist neither for other classes nor as probabilities.

    Args:
        shape: Height, width and channels of an image. 28 by 28 pixels are padded to the paper's 32 by 32.
        classes: How many.
        activation: One of ACTIVATIONS; "tanh" is the paper's.
        pooling: "avg" is the paper's subsampling, trained and squashed; "max" takes the largest of each square.
        bias: Whether the layers have biases.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, *, activation: str, pooling: str, bias: bool) -> None:
        super().__init__()
        height, width, channels = shape
        require(
            (height, width) in ((28, 28), (32, 32)), "image size", f"{height}x{width}", "be 28x28 or 32x32 for lenet5"
        )
        squash = ACTIVATIONS[choose("activation", activation, list(ACTIVATIONS))]
        choose("pooling", pooling, ("avg", "max"))

        def pool(maps: int) -> nn.Module:
            if pooling == "avg":
                return nn.Sequential(squash(), Subsampling(maps, bias), squash())
            # The largest is the same before and after a function that never falls, and there are 4 times fewer after.
            return nn.Sequential(nn.MaxPool2d(2), squash())

        self.c1 = nn.Conv2d(channels, 6, 5, padding=(32 - height) // 2, bias=bias)
        self.s2 = pool(6)
        self.c3 = PartialConv2d(6, TABLE_I, bias)
        self.s4 = pool(16)
        self.c5 = nn.Conv2d(16, 120, 5, bias=bias)
        self.squash5 = squash()
        self.f6 = nn.Linear(120, 84, bias=bias)
        self.squash6 = squash()
        self.output = nn.Linear(84, classes, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.s2(self.c1(x))  # [N, 6, 14, 14]
        x = self.s4(self.c3(x))  # [N, 16, 5, 5]
        x = self.squash5(self.c5(x)).flatten(1)  # [N, 120]
        x = self.squash6(self.f6(x))  # [N, 84]
        logits: Tensor = self.output(x)
        return logits
