"""NASNet-A Mobile, of the cells that timm has for NASNet-A Large.

B. Zoph, V. Vasudevan, J. Shlens, Q. V. Le: "Learning Transferable Architectures for Scalable Image Recognition", 2017,
arXiv:1707.07012; Figure 4 has the cells, Table 2 the network: 4 normal cells a stage, 1,056 features, 5.3 million
parameters.
"""

from functools import partial

import torch.nn.functional as F
from timm.layers.conv_bn_act import ConvNormAct
from timm.models.nasnet import CellStem0, CellStem1, FirstCell, NormalCell, ReductionCell0, ReductionCell1
from torch import Tensor, nn


class NASNetA(nn.Module):
    """float32 [N, channels, height, width] to logits, float32 [N, classes].

    Args:
        classes: How many.
        channels: Of the images.
        cells: Normal cells in each of the three stages, the paper's N.
        filters: In the cells of the first stage; each stage doubles them. A cell gives six times as many features.
        stem: Filters of the first convolution.
    """

    def __init__(self, classes: int, channels: int = 3, *, cells: int = 4, filters: int = 44, stem: int = 32) -> None:
        super().__init__()
        norm = partial(nn.BatchNorm2d, eps=0.001)
        self.conv0 = ConvNormAct(channels, stem, 3, stride=2, padding=0, norm_layer=norm, apply_act=False)
        self.stem0 = CellStem0(stem, filters // 4, "same")
        self.stem1 = CellStem1(stem, filters // 2, "same")
        self.cells = nn.ModuleList(
            [
                *_stage(cells, filters, filters, 2 * filters),
                ReductionCell0(6 * filters, 2 * filters, 6 * filters, 2 * filters, "same"),
                *_stage(cells, 2 * filters, 6 * filters, 8 * filters),
                ReductionCell1(12 * filters, 4 * filters, 12 * filters, 4 * filters, "same"),
                *_stage(cells, 4 * filters, 12 * filters, 16 * filters),
            ]
        )
        self.head = nn.Linear(24 * filters, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv0(x)
        before = self.stem0(x)
        x = self.stem1(x, before)
        for cell in self.cells:
            if isinstance(cell, ReductionCell0 | ReductionCell1):
                x = cell(x, before)  # what the cell after it looks back at is what it looked back at itself
            else:
                before, x = x, cell(x, before)
        logits: Tensor = self.head(F.relu(x).mean((2, 3)))
        return logits


def _stage(cells: int, filters: int, before: int, last: int) -> list[nn.Module]:
    """The normal cells of a stage; `before` and `last` are the features of the two layers that the first looks at."""
    first = FirstCell(before, filters // 2, last, filters, "same")
    second = NormalCell(last, filters, 6 * filters, filters, "same")
    others = [NormalCell(6 * filters, filters, 6 * filters, filters, "same") for _ in range(cells - 2)]
    return [first, second, *others]
