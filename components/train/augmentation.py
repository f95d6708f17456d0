"""How images are changed at random: a whole batch at once, or one by one."""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.nn import Module
from torch.overrides import TorchFunctionMode

from components.loader.batches import Augment, Policy

SPREAD = ((0.12, 0.2, 0.1), (0.2, 0.12, 0.1))
"""The most by which each entry of an affine map moves from the identity's.

The image spans -1 to 1 both ways: 0.12 scales by 12 %, 0.2 shears or, in both rows with opposite signs, rotates by
11 degrees, and 0.1 shifts by 5 % of the width or height.
"""


def distort(images: Tensor, drawn: Tensor) -> Tensor:
    """Maps each image affinely: uint8 [N, H, W, C] to the same shape and type. What comes in is black.

    `drawn`, float32 [N, 6] from 0 to 1, says how. The LeNet-5 paper (section III.A) distorts its training set likewise.
    """
    count, height, width, _ = images.shape
    least, spread = _least_and_spread(SPREAD, images.device)
    # From where a pixel goes to its origin.
    maps = torch.addcmul(least, spread, drawn)
    # The grid of F.affine_grid, as one product of matrices that takes a twentieth of the time.
    places = maps.view(2 * count, 3) @ _pixels(height, width, images.device)
    grid = places.view(count, 2, height, width).permute(0, 2, 3, 1)
    # The nearest pixel: MNIST's validation accuracy is that of interpolation, 99.50 %, in a third of the time.
    distorted = F.grid_sample(images.permute(0, 3, 1, 2).float(), grid, mode="nearest", align_corners=False)
    # With the strides that came in: those of grid_sample would lead the network away from channels_last, its fast path.
    return torch.empty_like(images).copy_(distorted.permute(0, 2, 3, 1))


# What is the same for all batches: to make it anew takes a fifth of the time.
@lru_cache
def _least_and_spread(spread: tuple[tuple[float, ...], ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """What each entry of a map is at least, and how much more it is at most; float32 [6]."""
    identity, most = torch.eye(2, 3, device=device).flatten(), torch.tensor(spread, device=device).flatten()
    return identity - most, 2 * most


@lru_cache
def _pixels(height: int, width: int, device: torch.device) -> Tensor:
    """Where the pixels of an image that spans -1 to 1 have their centres: rows x, y and 1, float32 [3, H * W]."""
    across, down = ((2 * torch.arange(pixels, device=device) + 1) / pixels - 1 for pixels in (width, height))
    x, y = torch.meshgrid(across, down, indexing="xy")
    return torch.stack([x, y, torch.ones_like(x)]).view(3, -1)


DISTORT = Augment(6, distort)


def policy(name: str) -> Policy | None:
    """ "trivial": TrivialAugment (Müller and Hutter, 2021); "rand": RandAugment (Cubuk et al., 2020); "none": nothing.

    torchvision's, image by image: of a batch as a whole it would change all images in the same way.
    """
    if name == "none":
        return None
    from torchvision.transforms import v2

    return partial(_changed, {"trivial": v2.TrivialAugmentWide, "rand": v2.RandAugment}[name]())


def _changed(change: Module, image: Tensor, number: float) -> Tensor:
    with _Seeded(int(number * 2**53)):
        changed: Tensor = change(image.permute(2, 0, 1)).permute(1, 2, 0)
    return changed


class _Seeded(TorchFunctionMode):
    """In which this thread draws from a generator of its own: torchvision takes the global one, which all share."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = Generator().manual_seed(seed)

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        own = {"generator": self.generator} if func in (torch.rand, torch.randint) else {}
        return func(*args, **(kwargs or {}), **own)


def chain(first: Augment, second: Policy | None) -> Augment:
    """One after the other; the second on the processor: a GPU would take a dozen tiny steps for each image."""
    if second is None:
        return first

    def apply(images: Tensor, drawn: Tensor) -> Tensor:
        found = first.apply(images, drawn[:, :-1]).cpu()
        changed = [second(image, number) for image, number in zip(found, drawn[:, -1].tolist(), strict=True)]
        return torch.stack(changed).to(images.device)

    return Augment(first.draws + 1, apply)


def mix(images: Tensor, targets: Tensor, mixup: float, cutmix: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Mixes each image with another one of the batch, and the targets, float32 [N, K], in the same proportion.

    Mixup (Zhang et al., 2018) blends them, CutMix (Yun et al., 2019) cuts a box out of the other; the proportion is of
    a Beta(a, a) distribution, a being `mixup` or `cutmix`; where both are above 0, one of them by lot. uint8
    [N, H, W, C] becomes float32, with pixels from 0 to 255, where images are blended.
    """
    cuts = cutmix > 0 and (mixup == 0 or float(torch.rand(1, generator=generator)) < 0.5)
    share = _beta(cutmix if cuts else mixup, generator)
    other = images.flip(0)
    if not cuts:
        return images.float().lerp(other.float(), 1 - share), targets.lerp(targets.flip(0), 1 - share)
    height, width = images.shape[1:3]
    top, bottom = _interval(height, (1 - share) ** 0.5, generator)
    left, right = _interval(width, (1 - share) ** 0.5, generator)
    mixed = images.clone()
    mixed[:, top:bottom, left:right] = other[:, top:bottom, left:right]
    cut = (bottom - top) * (right - left) / (height * width)
    return mixed, targets.lerp(targets.flip(0), cut)


def _beta(concentration: float, generator: Generator) -> float:
    """A number of the distribution Beta(a, a): as a ratio of gamma variates, which torch draws from a generator."""
    first, second = torch._standard_gamma(torch.full((2,), concentration), generator=generator).tolist()
    return float(first / (first + second)) if first + second else 0.5


def _interval(length: int, share: float, generator: Generator) -> tuple[int, int]:
    """A stretch of about this share of a line, its middle anywhere on it, as far as it lies there."""
    middle, half = float(torch.rand(1, generator=generator)) * length, share * length / 2
    return max(0, round(middle - half)), min(length, round(middle + half))
