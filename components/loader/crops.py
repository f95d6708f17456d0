"""Random crops of encoded images, of which little more is decoded than is needed, and as rarely as there is memory."""

import math
import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.dataset import images
from components.dataset.images import BadImage, JpegHeader

SCALE = (0.08, 1.0)
"""The share of an image's area that a crop has."""
RATIO = (3 / 4, 4 / 3)
"""Its width by its height, before it is stretched to the shape that the network takes."""
TRIES = 10
"""To find a crop that lies within the image."""
DRAWN = 2 * TRIES + 3
"""Random numbers an image."""
FACTORS = (8, 4, 2)
"""By which a JPEG is made smaller while it is decoded; libjpeg-turbo has quick ways for these alone."""
MARGIN = 16
"""Rows below a crop that are decoded: the colours of its last rows are interpolated with those of the next."""

Pixels = NDArray[np.uint8]
"""[height, width, channels]"""


class Box(NamedTuple):
    """A part of an image."""

    top: int
    left: int
    rows: int
    columns: int


class Image(NamedTuple):
    """What is known of an image."""

    height: int
    width: int
    factor: int
    """By which it is made smaller for most crops."""
    pixels: Pixels | None
    """Upright, smaller by this factor, where they were decoded before."""


class Crops:
    """Makes random crops: RandomResizedCrop with torchvision's defaults and RandomHorizontalFlip.

    Szegedy et al., "Going deeper with convolutions", 2015, section 6. Resizing is bilinear and antialiased, as
    torchvision's. A JPEG of which more is cropped than the network takes is decoded at a half, a quarter or an eighth
    of its height and width where that suffices. What was decoded is kept while there is room, which changes the speed
    alone.
    """

    def __init__(self, room: int) -> None:
        """`room` is in bytes."""
        self._room = room
        self._kept: dict[int, Image] = {}
        self._lock = threading.Lock()

    def crop(self, content: memoryview, out: Pixels, drawn: Sequence[float], number: int) -> None:
        """Fills `out` with a part of a JPEG, PNG or WebP file, of which `number` tells it from others; `draw` draws.

        Raises BadImage for what cannot be decoded.
        """
        jpeg = images.recognise(content) == "JPEG"
        image = self._kept.get(number) or _look(content, out.shape, jpeg)
        box = choose(drawn, image.height, image.width)
        factor = _factor(box.rows, box.columns, out.shape) if jpeg else 1
        box = _shrink(box, factor)
        if factor == image.factor:
            image = self._keep(number, image, content, out.shape[2])
        if factor == image.factor and image.pixels is not None:
            part = image.pixels[box.top : box.top + box.rows, box.left : box.left + box.columns]
        else:
            part = _decode_part(content, box, factor, out.shape[2])
        _resize(part, out)
        if drawn[-1] < 0.5:
            _mirror(out)

    def _keep(self, number: int, image: Image, content: memoryview, channels: int) -> Image:
        """Decodes all of an image, if it can be kept."""
        height, width = -(-image.height // image.factor), -(-image.width // image.factor)
        with self._lock:
            if number in self._kept or height * width * channels > self._room:
                return image
            self._room -= height * width * channels
        pixels = images.decode(content, channels, (height, width)) if image.pixels is None else image.pixels
        self._kept[number] = image = image._replace(pixels=pixels)
        return image


def draw(random: np.random.Generator, count: int) -> list[list[float]]:
    """What is left to chance of so many crops: DRAWN numbers from 0 to 1 for each."""
    drawn: list[list[float]] = random.random((count, DRAWN)).tolist()
    return drawn


def choose(drawn: Sequence[float], height: int, width: int) -> Box:
    """The part of an image of this size that is cropped."""
    area, low, high = height * width, *map(math.log, RATIO)
    for share, shape in zip(drawn[:TRIES], drawn[TRIES : 2 * TRIES], strict=True):
        target, ratio = area * (SCALE[0] + (SCALE[1] - SCALE[0]) * share), math.exp(low + (high - low) * shape)
        rows, columns = round(math.sqrt(target / ratio)), round(math.sqrt(target * ratio))
        if 0 < rows <= height and 0 < columns <= width:
            down, across = drawn[-3:-1]
            return Box(int(down * (height - rows + 1)), int(across * (width - columns + 1)), rows, columns)
    # A long image: the middle of it.
    rows, columns = min(height, round(width / RATIO[0])), min(width, round(height * RATIO[1]))
    return Box((height - rows) // 2, (width - columns) // 2, rows, columns)


def _look(content: memoryview, shape: tuple[int, ...], jpeg: bool) -> Image:
    """An image that is not kept. Only a JPEG says how large it is without being decoded."""
    if not jpeg:
        pixels = images.decode(content, shape[2])
        return Image(pixels.shape[0], pixels.shape[1], 1, pixels)
    width, height = images.size(content)
    usual = math.sqrt(sum(SCALE) / 2 * height * width)
    return Image(height, width, _factor(usual, usual, shape), None)


def _factor(rows: float, columns: float, shape: tuple[int, ...]) -> int:
    """How many times smaller a crop may be decoded and still be as large as the network takes it."""
    return next((factor for factor in FACTORS if rows >= factor * shape[0] and columns >= factor * shape[1]), 1)


def _shrink(box: Box, factor: int) -> Box:
    """Where a part is in an image that is so many times smaller, to the nearest pixel."""
    top, left, rows, columns = box
    edges = [(edge + factor // 2) // factor for edge in (top, left, top + rows, left + columns)]
    return Box(edges[0], edges[1], edges[2] - edges[0], edges[3] - edges[1])


def _decode_part(content: memoryview, box: Box, factor: int, channels: int) -> Pixels:
    """A part of a JPEG, upright; the box is in pixels of the image made smaller."""
    header = images.read_jpeg_header(content)
    box = _lay(box, header.orientation, -(-header.height // factor), -(-header.width // factor))
    pixels = _decode_rows(content, header, channels, factor, (box.top + box.rows) * factor)
    part = pixels[box.top : box.top + box.rows, box.left : box.left + box.columns]
    return images.upright(part, header.orientation) if header.orientation > 1 else part


def _lay(box: Box, orientation: int, height: int, width: int) -> Box:
    """Where a part of an upright image is in the image as it lies in the file, of this height and width.

    The steps of `images.upright`, backwards.
    """
    top, left, rows, columns = box
    upright_height, upright_width = (width, height) if orientation >= 5 else (height, width)
    if orientation in (2, 3, 6, 7):
        left = upright_width - left - columns
    if orientation in (3, 4, 7, 8):
        top = upright_height - top - rows
    return Box(left, top, columns, rows) if orientation >= 5 else Box(top, left, rows, columns)


def _decode_rows(content: memoryview, header: JpegHeader, channels: int, factor: int, bottom: int) -> Pixels:
    """A JPEG as it lies in the file, so many times smaller, down to a row of it or further.

    Rows come one after another, unless there are several scans: a decoder that is told of a smaller height stops there.
    """
    data: memoryview | bytearray = content
    height = bottom + MARGIN
    if height < header.height and not header.several_scans:
        data = bytearray(content)
        place = _height_place(content)
        data[place : place + 2] = height.to_bytes(2, "big")
    else:
        height = header.height
    least = (-(-height // factor), -(-header.width // factor)) if factor > 1 else (0, 0)
    try:
        # Not strict, or it complains of the rows that it did not read.
        pixels: Pixels = simplejpeg.decode_jpeg(
            data, "GRAY" if channels == 1 else "RGB", min_height=least[0], min_width=least[1], strict=False
        )
    except ValueError as error:
        raise BadImage("undecodable", str(error)) from None
    return pixels


def _height_place(content: memoryview) -> int:
    """Where in a JPEG file its height stands."""
    return next(start + 1 for marker, start, _ in images._segments(content) if marker in images.FRAMES)


def _resize(part: Pixels, out: Pixels) -> None:
    """Resizes [h, w, C] into [H, W, C], antialiased."""
    # What Pillow decoded is not writable, of which torch would warn.
    source = _planes(part if part.flags.writeable else part.copy())
    # What F.interpolate calls with antialias=True; it cannot write into memory that is there already.
    torch.ops.aten._upsample_bilinear2d_aa.out(source, out.shape[:2], False, None, None, out=_planes(out))


def _planes(image: Pixels) -> Tensor:
    """The same memory as [1, C, H, W]; by numpy, which unlike torch keeps Python's lock for what takes no time."""
    return torch.from_numpy(image.transpose(2, 0, 1)[None])


def _mirror(image: Pixels) -> None:
    """Swaps left and right; numpy would take ten times as long."""
    image[:] = torch.from_numpy(image).flip(1).numpy()
