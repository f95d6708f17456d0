"""The claims of the crops: they show what torchvision's would, at less cost."""

import io
import math

import numpy as np
import pytest
import simplejpeg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms.v2 import functional as vision

from components.dataset import images
from components.dataset.images import BadImage
from components.loader.crops import DRAWN, RATIO, SCALE, Box, Crops, _factor, choose, draw

HEIGHT, WIDTH = 300, 430


def photo(height: int = HEIGHT, width: int = WIDTH, channels: int = 3) -> NDArray[np.uint8]:
    """Smooth waves of several lengths and colours, uint8 [height, width, channels]; no two corners are alike."""
    down, across = np.mgrid[0:height, 0:width] / np.array([height, width]).reshape(2, 1, 1)
    waves = [np.sin(down * (7 + 3 * c) + c) + np.cos(across * (9 + 2 * c)) for c in range(channels)]
    values: NDArray[np.uint8] = (127 + 60 * np.stack(waves, axis=2)).astype(np.uint8)
    return values


def jpeg(pixels: NDArray[np.uint8], subsampling: str = "420") -> bytes:
    grey = pixels.shape[2] == 1
    content: bytes = simplejpeg.encode_jpeg(
        pixels, 95, "GRAY" if grey else "RGB", "Gray" if grey else subsampling, fastdct=False
    )
    return content


def by_pillow(pixels: NDArray[np.uint8], kind: str, orientation: int = 1, **options: object) -> bytes:
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, kind, exif=exif, **options)
    return buffer.getvalue()


def crop(
    content: bytes, drawn: list[float], shape: tuple[int, int, int] = (32, 24, 3), room: int = 0
) -> NDArray[np.uint8]:
    out = np.zeros(shape, np.uint8)
    Crops(room).crop(memoryview(content), out, drawn, 0)
    return out


def drawn_for(seed: int) -> list[float]:
    return draw(np.random.default_rng(seed), 1)[0]


def fixed(share: float, down: float = 0.5, across: float = 0.5, mirrored: bool = False) -> list[float]:
    """What is drawn for a square of that share of the area."""
    square = math.log(1 / RATIO[0]) / math.log(RATIO[1] / RATIO[0])
    size = (share - SCALE[0]) / (SCALE[1] - SCALE[0])
    return [size] * 10 + [square] * 10 + [down, across, 0.0 if mirrored else 1.0]


def close(one: NDArray[np.uint8], other: NDArray[np.uint8], mean: float, most: int = 255) -> None:
    difference = np.abs(one.astype(int) - other)
    assert difference.mean() <= mean
    assert difference.max() <= most


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_a_crop_of_a_png_is_that_of_torchvision(seed: int) -> None:
    pixels, drawn = photo(), drawn_for(seed)
    box = choose(drawn, HEIGHT, WIDTH)
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    expected = vision.resized_crop(image, *box, [32, 24], antialias=True)
    expected = vision.horizontal_flip(expected) if drawn[-1] < 0.5 else expected
    close(crop(by_pillow(pixels, "PNG"), drawn), expected.permute(1, 2, 0).numpy(), 0.5, most=1)


@pytest.mark.slow
@pytest.mark.parametrize("subsampling", ["444", "422", "420", "440", "411"])
@pytest.mark.parametrize("seed", range(10))
def test_a_crop_of_a_jpeg_that_is_decoded_in_part_is_that_of_the_whole(seed: int, subsampling: str) -> None:
    content, drawn, shape = jpeg(photo(), subsampling), drawn_for(seed), (200, 180, 3)
    whole = by_pillow(images.decode(content, 3), "PNG")
    assert choose(drawn, HEIGHT, WIDTH).rows < 400  # so nothing is scaled while it is decoded
    np.testing.assert_array_equal(crop(content, drawn, shape), crop(whole, drawn, shape))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("size", [(768, 1024), (301, 333), (1537, 2049)])
def test_a_crop_of_a_jpeg_that_is_scaled_while_it_is_decoded_is_nearly_the_same(
    seed: int, size: tuple[int, int]
) -> None:
    pixels, drawn = photo(*size), drawn_for(seed)
    close(crop(jpeg(pixels), drawn, (64, 64, 3)), crop(by_pillow(pixels, "PNG"), drawn, (64, 64, 3)), 3)


@pytest.mark.slow
@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(40, 300), st.integers(40, 300), st.sampled_from([1, 3]))
def test_what_is_kept_is_what_would_be_decoded(
    seed: int, orientation: int, height: int, width: int, channels: int
) -> None:
    content = memoryview(by_pillow(photo(height, width, channels), "JPEG", orientation))
    crops = Crops(2**30)
    for number in range(8):
        drawn = drawn_for(seed + number)
        out = np.zeros((24, 20, channels), np.uint8)
        crops.crop(content, out, drawn, 0)
        np.testing.assert_array_equal(out, crop(bytes(content), drawn, out.shape))


def test_no_more_is_kept_than_there_is_room_for() -> None:
    crops, content, out = Crops(100_000), memoryview(jpeg(photo(100, 100))), np.zeros((64, 64, 3), np.uint8)
    for number in range(5):
        crops.crop(content, out, fixed(0.5), number)
    assert sum(kept.pixels.nbytes for kept in crops._kept.values() if kept.pixels is not None) == 90_000


@pytest.mark.slow
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_crops_are_upright(orientation: int, kind: str) -> None:
    pixels = photo()
    turned = {2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1]}
    turned |= {5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, 1), 8: lambda a: np.rot90(a, -1)}
    turned |= {7: lambda a: np.rot90(a, 2).swapaxes(0, 1)}
    lying = np.ascontiguousarray(turned.get(orientation, lambda a: a)(pixels))
    options = {"lossless": True} if kind == "WEBP" else {"quality": 98} if kind == "JPEG" else {}
    content = by_pillow(lying, kind, orientation, **options)
    for seed in range(5):
        drawn = drawn_for(seed)
        close(crop(content, drawn, (160, 220, 3)), crop(by_pillow(pixels, "PNG"), drawn, (160, 220, 3)), 2)


def test_a_progressive_jpeg_is_decoded_like_another() -> None:
    for seed in range(10):
        drawn = drawn_for(seed)
        plain, progressive = (crop(by_pillow(photo(), "JPEG", progressive=p), drawn) for p in (False, True))
        np.testing.assert_array_equal(plain, progressive)


@pytest.mark.parametrize(("stored", "wanted"), [(1, 3), (3, 1), (1, 1)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_crop_has_the_channels_of_the_network(stored: int, wanted: int, kind: str) -> None:
    content = by_pillow(photo(channels=stored), kind)
    expected = by_pillow(images.decode(content, wanted), "PNG")
    for seed in range(5):
        drawn = drawn_for(seed)
        close(crop(content, drawn, (160, 220, wanted)), crop(expected, drawn, (160, 220, wanted)), 1)


def test_half_of_the_crops_are_mirrored() -> None:
    content = by_pillow(photo(), "PNG")
    plain, mirrored = (crop(content, fixed(0.3, mirrored=mirrored)) for mirrored in (False, True))
    np.testing.assert_array_equal(plain, mirrored[:, ::-1])
    assert 400 < sum(drawn[-1] < 0.5 for drawn in draw(np.random.default_rng(0), 1000)) < 600


def test_crops_are_spread_as_those_of_torchvision() -> None:
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    image = torch.empty(3, HEIGHT, WIDTH)
    theirs = np.array([RandomResizedCrop.get_params(image, list(SCALE), list(RATIO)) for _ in range(4000)])
    ours = np.array([choose(drawn, HEIGHT, WIDTH) for drawn in draw(np.random.default_rng(0), 4000)])
    for column in range(4):
        quantiles = np.linspace(0.05, 0.95, 10)
        one, other = np.quantile(theirs[:, column], quantiles), np.quantile(ours[:, column], quantiles)
        np.testing.assert_allclose(one, other, atol=0.04 * WIDTH)


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 2**32))
def test_a_crop_lies_within_its_image(height: int, width: int, seed: int) -> None:
    top, left, rows, columns = choose(drawn_for(seed), height, width)
    assert 0 <= top <= top + rows <= height
    assert 0 <= left <= left + columns <= width
    assert rows > 0
    assert columns > 0


def test_of_a_long_image_the_middle_is_taken() -> None:
    assert choose([0.9] * DRAWN, 10, 1000) == Box(0, 493, 10, 13)
    assert choose([0.9] * DRAWN, 1000, 10) == Box(493, 0, 13, 10)


def test_a_crop_is_scaled_while_it_is_decoded_only_if_it_stays_as_large_as_the_network_takes_it() -> None:
    sizes = (10, 63, 64, 127, 128, 255, 256, 10_000)
    assert [_factor(size, size, (32, 32, 3)) for size in sizes] == [1, 1, 2, 2, 4, 4, 8, 8]
    assert _factor(300, 40, (32, 32, 3)) == 1


def test_what_cannot_be_decoded_is_refused() -> None:
    for content in (b"", b"GIF89a", jpeg(photo())[:100], by_pillow(photo(), "PNG")[:100]):
        with pytest.raises(BadImage):
            crop(content, drawn_for(0))
