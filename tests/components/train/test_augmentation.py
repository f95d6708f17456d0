from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms import v2

from components.train import augmentation
from components.train.augmentation import DISTORT, chain, distort, policy


def drawn(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 6, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(64, 28, 28, 1), (3, 32, 32, 3), (2, 8, 12, 1)])
def test_a_batch_keeps_its_shape_and_type(shape: tuple[int, int, int, int]) -> None:
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    before = images.clone()
    distorted = distort(images, drawn(len(images)))
    assert distorted.shape == images.shape
    assert distorted.dtype == torch.uint8
    assert distorted.stride() == images.stride()  # or the network falls off its fast path
    assert torch.equal(images, before)


def test_the_seed_decides_the_distortion() -> None:
    images = torch.randint(0, 256, (8, 28, 28, 1), dtype=torch.uint8)
    assert torch.equal(distort(images, drawn(len(images))), distort(images, drawn(len(images))))
    assert not torch.equal(distort(images, drawn(len(images))), distort(images, drawn(len(images), 1)))


def test_each_image_of_a_batch_is_distorted_its_own_way() -> None:
    image = torch.randint(0, 256, (1, 28, 28, 1), dtype=torch.uint8)
    first, second = distort(image.repeat(2, 1, 1, 1), drawn(2))
    assert not torch.equal(first, second)


def test_no_distortion_is_the_image_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augmentation, "SPREAD", ((0.0,) * 3,) * 2)
    images = torch.randint(0, 256, (8, 28, 28, 1), dtype=torch.uint8)
    assert torch.equal(distort(images, drawn(len(images))), images)


def test_a_distorted_image_stays_near_where_it_was() -> None:
    images = torch.zeros(200, 28, 28, 1, dtype=torch.uint8)
    images[:, 13:15, 13:15] = 255
    weights = distort(images, drawn(len(images))).squeeze(-1).double()
    weights /= weights.sum((1, 2), keepdim=True)
    places = torch.arange(28, dtype=torch.double)
    rows, columns = (weights.sum(2) * places).sum(1), (weights.sum(1) * places).sum(1)
    assert (rows - 13.5).abs().max() <= 1.8  # 5 % of 28 pixels, and the scaling of that
    assert (columns - 13.5).abs().max() <= 1.8
    assert rows.std() >= 0.5
    assert columns.std() >= 0.5


def test_each_entry_of_the_map_does_what_affine_grid_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augmentation, "SPREAD", ((0.3, 0.1, 0.4), (0.2, 0.5, 0.6)))
    images = torch.randint(0, 256, (4, 8, 12, 1), dtype=torch.uint8)
    moves = 2 * drawn(4).view(4, 2, 3) - 1
    maps = torch.eye(2, 3) + torch.tensor(augmentation.SPREAD) * moves
    grid = F.affine_grid(maps, [4, 1, 8, 12], align_corners=False)
    expected = F.grid_sample(images.permute(0, 3, 1, 2).float(), grid, mode="nearest", align_corners=False)
    assert torch.equal(distort(images, drawn(len(images))).permute(0, 3, 1, 2), expected)


@pytest.mark.parametrize(("name", "made"), [("trivial", v2.TrivialAugmentWide), ("rand", v2.RandAugment)])
def test_a_policy_does_what_torchvision_does_by_the_same_seed(name: str, made: type[v2.Transform]) -> None:
    images = torch.randint(0, 256, (40, 16, 16, 3), dtype=torch.uint8)
    numbers = torch.rand(len(images)).tolist()
    change, theirs = policy(name), made()
    assert change
    with torch.random.fork_rng(devices=[]):
        for image, number in zip(images, numbers, strict=True):
            torch.manual_seed(int(number * 2**53))
            assert torch.equal(change(image, number), theirs(image.permute(2, 0, 1)).permute(1, 2, 0))


@pytest.mark.parametrize("name", ["trivial", "rand"])
def test_a_policy_neither_seeds_nor_draws_from_what_others_draw_from(name: str) -> None:
    images = torch.randint(0, 256, (40, 16, 16, 3), dtype=torch.uint8)
    numbers = torch.rand(len(images)).tolist()
    change = policy(name)
    assert change
    expected = [change(image, number) for image, number in zip(images, numbers, strict=True)]
    torch.manual_seed(0)
    drawn = torch.rand(1000)
    torch.manual_seed(0)
    with ThreadPoolExecutor(4) as pool:
        changing = [pool.submit(change, image, number) for image, number in zip(images, numbers, strict=True)]
        assert torch.equal(torch.cat([torch.rand(1) for _ in range(1000)]), drawn)
        assert all(torch.equal(one.result(), other) for one, other in zip(changing, expected, strict=True))


def test_a_policy_comes_after_the_distortion_of_a_batch_with_a_number_of_its_own() -> None:
    images = torch.randint(0, 256, (4, 8, 8, 1), dtype=torch.uint8)
    both = chain(DISTORT, lambda image, number: image + round(100 * number))
    numbers = torch.tensor([[0.0], [0.1], [0.2], [0.3]])
    assert both.draws == DISTORT.draws + 1
    changed = both.apply(images, torch.cat([drawn(4), numbers], 1))
    assert torch.equal(changed, distort(images, drawn(4)) + (100 * numbers).round().to(torch.uint8).view(4, 1, 1, 1))
    assert chain(DISTORT, policy("none")) is DISTORT
