"""Image files: what is in them, whether they are whole, and their pixels.

JPEGs are read by simplejpeg, which is libjpeg-turbo and nothing else; PNG, WebP, BMP, TIFF, the first frame of a GIF
and the rare JPEG in CMYK by Pillow. Whatever else is in a file, or wrong with it, ends in BadImage.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

Image.MAX_IMAGE_PIXELS = None  # the limit is a parameter here, and is kept before anything is decoded

Content = bytes | memoryview
Pixels = NDArray[np.uint8]

Sums = NDArray[np.uint64]
"""Of many pixels, by channel [3, C]: how many they are, the sum of their values, the sum of their squares."""

MAGICS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"RIFF": "WEBP",
    b"BM": "BMP",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",  # BigTIFF
    b"MM\0+": "TIFF",
}
"""What files begin with."""

FACTORS = (8, 4, 2, 1)
"""By which an image is made smaller while it is decoded; libjpeg-turbo has quick ways for these alone."""
MEASURED = 128
"""Pixels along the shorter side, at least, where an image has so many: so much is looked at for its hash and sums."""
AT_ONCE = 2**19
"""Pixels that are summed, or converted, together."""
SCANS = 100
"""Of a progressive JPEG, at most. Each costs a pass over all of the image, and few bytes; real ones have ten or so."""
THUMBNAIL = (96, 96)


class BadImage(Exception):
    """A file that is no image, or none that can be used; `reason` is one of quarantine.REASONS."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True, slots=True)
class Inspected:
    """A whole image."""

    width: int
    height: int
    channels: int
    """1 or 3."""
    content: bytes
    """What is stored: the file as it came where every reader of images has its like, or else a PNG of it."""
    phash: int
    sums: Sums
    """[3, channels]; of a large image, those of the image made smaller."""


# From a file to pixels


def inspect(content: bytes, max_pixels: int) -> Inspected:
    """Decodes all of a file and says what is in it; width and height are those of the image upright.

    A JPEG is read to its end, but decoded to an image up to eight times smaller, which takes about half the time.
    Raises BadImage, without decoding it, where the image has more than `max_pixels`.
    """
    kind = recognise(content)
    if kind != "JPEG":
        return _inspect_by_pillow(content, kind, max_pixels)
    header = read_jpeg_header(content)
    _check_cost(content, header, max_pixels)
    if header.channels == 4:  # CMYK
        return _inspect_by_pillow(content, kind, max_pixels)
    pixels = upright(_decode_strictly(content, header), header.orientation)
    width, height = header.size
    return Inspected(width, height, header.channels, content, *_measure(pixels))


def decode(content: Content, channels: int, at_least: tuple[int, int] | None = None) -> Pixels:
    """The pixels of a stored file, upright, uint8 [H, W, C], in 1 (grey) or 3 (RGB) channels.

    With `at_least`, height and width, a JPEG comes as small as can be had quickly, but no smaller than that.
    Raises BadImage on what `inspect` would not have stored; truncated JPEGs, though, come as far as they go.
    """
    if recognise(content) == "JPEG":
        header = read_jpeg_header(content)
        return upright(_decode_jpeg(content, header, channels, at_least), header.orientation)
    with _as_bad_image():
        image = _open(content, recognise(content))
        return upright(np.asarray(_flat(image, channels)).reshape(image.height, image.width, channels), _exif(image))


def fit(content: Content, shape: tuple[int, int, int]) -> Pixels:
    """A stored file as a model sees it in an evaluation: uint8 [H, W, C] of this shape.

    An image of another size is resized to cover 8/7 of the shape (256 for 224, as usual), and cut to its middle.
    Raises BadImage like `decode`; a file that nobody has inspected, or of another kind, goes through `inspect` first.
    """
    height, width, channels = shape
    header = size(content)
    if header == (width, height):
        return decode(content, channels)
    scale = max(8 * height / (7 * header[1]), 8 * width / (7 * header[0]))
    wanted = (min(header[1], round(scale * header[1])), min(header[0], round(scale * header[0])))
    return crop(decode(content, channels, wanted), shape)


def crop(pixels: Pixels, shape: tuple[int, int, int]) -> Pixels:
    """The middle of an image [H, W, C], resized to a shape so that one eighth of it at the least is cut off."""
    height, width, _ = shape
    # What is 7/8 of the side that fits more tightly, in pixels of the image.
    scale = max(8 * height / (7 * pixels.shape[0]), 8 * width / (7 * pixels.shape[1]))
    half_height, half_width = height / scale / 2, width / scale / 2
    y, x = pixels.shape[0] / 2, pixels.shape[1] / 2
    box = (x - half_width, y - half_height, x + half_width, y + half_height)
    image = _image(pixels)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, box)).reshape(shape)


def size(content: Content) -> tuple[int, int]:
    """Width and height of a stored file's image upright. Raises BadImage."""
    kind = recognise(content)
    if kind == "JPEG":
        return read_jpeg_header(content).size
    with _as_bad_image():
        image = _open(content, kind)
        # Of what stands behind a PNG's pixels Pillow knows only when it has decoded them.
        orientation = _png_orientation(content) if kind == "PNG" else _exif(image)
        return image.size if orientation < 5 else (image.height, image.width)


def thumbnail(content: bytes, max_pixels: int) -> bytes | None:
    """A small JPEG of a file that may be damaged, as much as there is of it; None where there is nothing to be seen."""
    try:
        kind = recognise(content)
        header = read_jpeg_header(content) if kind == "JPEG" else None
        if header:
            _check_cost(content, header, max_pixels)
        if header and header.channels != 4:
            image = _image(upright(_decode_jpeg(content, header, header.channels, THUMBNAIL), header.orientation))
        else:
            with _as_bad_image(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image = _load(content, kind, max_pixels)
    except BadImage:
        return None
    image.thumbnail(THUMBNAIL)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def recognise(content: Content) -> str:
    """Pillow's name of the format. Raises BadImage where it is none that is read here."""
    if not content:
        raise BadImage("empty", "has no bytes")
    beginning = bytes(content[:12])
    for magic, kind in MAGICS.items():
        if beginning.startswith(magic) and (kind != "WEBP" or beginning.endswith(b"WEBP")):
            return kind
    names = ", ".join(dict.fromkeys(MAGICS.values()))
    raise BadImage("unsupported", f"is none of {names}: it begins with {beginning[:8].hex(' ')}")


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if not width or not height:
        raise BadImage("undecodable", f"has a size of {width}x{height}")
    if width * height > max_pixels:
        raise BadImage("too many pixels", f"has {width}x{height} pixels; max_pixels is {max_pixels:,}")


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Pixels [H, W, C] turned as EXIF's orientation, 1 to 8, says (Exif 3.0, section 4.6.5.1.7); contiguous."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def read_orientation(exif: Content) -> int:
    """The orientation in Exif data, which is a TIFF file; 1, upright, where there is none or it makes no sense."""
    exif = bytes(exif).removeprefix(b"Exif\0\0")
    order = "little" if exif[:2] == b"II" else "big"

    def number(start: int, length: int) -> int:
        return int.from_bytes(exif[start : start + length], "little" if order == "little" else "big")

    directory = number(4, 4)
    for entry in range(directory + 2, min(directory + 2 + 12 * number(directory, 2), len(exif) - 11), 12):
        if number(entry, 2) == 0x0112:
            return found if 1 <= (found := number(entry + 8, 2)) <= 8 else 1
    return 1


# JPEG


class JpegHeader(NamedTuple):
    """Sizes are of the image as it lies in the file."""

    width: int
    height: int
    channels: int
    orientation: int
    several_scans: bool

    @property
    def size(self) -> tuple[int, int]:
        """Width and height upright."""
        return (self.width, self.height) if self.orientation < 5 else (self.height, self.width)


PROCESSES = range(0xC0, 0xC3)
"""Markers of the frames that every reader knows: baseline, extended sequential and progressive, by Huffman's code."""
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
SCAN = 0xDA
ALONE = {0x01, *range(0xD0, 0xD9)}
"""Markers that nothing belongs to."""


def read_jpeg_header(content: Content) -> JpegHeader:
    """Reads what precedes the first scan's data. Raises BadImage. Source: ITU-T T.81, annex B."""
    orientation = 1
    channels = width = height = 0
    several_scans = False
    for marker, start, end in _segments(content):
        if marker == 0xE1 and orientation == 1 and content[start : start + 6] == b"Exif\0\0":
            orientation = read_orientation(content[start:end])
        elif marker in FRAMES:
            if end - start < 6:
                raise BadImage("undecodable", "has a damaged header")
            height = int.from_bytes(content[start + 1 : start + 3])
            width = int.from_bytes(content[start + 3 : start + 5])
            channels = content[start + 5]
            several_scans = marker == 0xC2
            if marker not in PROCESSES or content[start] != 8 or channels not in (1, 3, 4):
                kind = f"a JPEG of {content[start]} bits, {channels} channels and process {marker - 0xC0}"
                raise BadImage("unsupported", f"is {kind}; 8 bits, 1, 3 or 4 channels and processes 0 to 2 are read")
        elif marker == SCAN and end > start:
            several_scans |= content[start] < channels
    if not channels:
        raise BadImage("undecodable", "is a JPEG without a frame")
    return JpegHeader(width, height, channels, orientation, several_scans)


def _check_cost(content: bytes, header: JpegHeader, max_pixels: int) -> None:
    """Raises BadImage where a JPEG would take too much memory or time."""
    _check_size(header.width, header.height, max_pixels)
    if header.channels == 4 and header.several_scans and header.width * header.height > max_pixels // 2:
        # Its coefficients alone are 8 bytes a pixel, and all in memory at once.
        read = f"of a progressive JPEG in CMYK at most half of max_pixels are read, {max_pixels // 2:,}"
        raise BadImage("too many pixels", f"has {header.width}x{header.height} pixels; {read}")
    if header.several_scans and content.count(b"\xff\xda") > SCANS:
        raise BadImage("unsupported", f"has more than {SCANS} scans")


def _segments(content: Content) -> Iterator[tuple[int, int, int]]:
    """The marker, the start and the end of each segment's content, up to the header of the first scan."""
    position, length = 2, len(content)
    while position + 4 <= length:
        if content[position] != 0xFF:
            position += 1  # bytes that do not belong there; libjpeg passes over them, too
            continue
        marker = content[position + 1]
        if marker == 0xD9:
            return
        if marker == 0xFF or marker == 0 or marker in ALONE:
            position += 1 if marker == 0xFF else 2
            continue
        end = position + 2 + (content[position + 2] << 8 | content[position + 3])
        if end > length:
            break
        yield marker, position + 4, end
        if marker == SCAN:
            return
        position = max(end, position + 4)
    raise BadImage("truncated", "ends before its first scan")


HARMLESS = ("extraneous bytes before marker", "unknown JFIF revision", "Unknown Adobe color transform")
"""Warnings of libjpeg that leave the image as it should be."""


def _decode_strictly(content: bytes, header: JpegHeader) -> Pixels:
    """The pixels, made smaller. Raises BadImage where anything is damaged, or missing at the end."""
    at_least = _reduced(header.height, header.width)
    colours = "GRAY" if header.channels == 1 else "RGB"
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(content, colours, min_height=at_least[0], min_width=at_least[1])
        return pixels
    except ValueError as error:
        said = str(error)
    # libjpeg tells its first warning alone: after a harmless one the end must at least be there.
    if any(harmless in said for harmless in HARMLESS) and b"\xff\xd9" in content[-64:]:
        return _decode_jpeg(content, header, header.channels, at_least)
    ended = "Premature end" in said or ("premature end" in said and b"\xff\xd9" not in content[-64:])
    raise BadImage("truncated" if ended else "undecodable", said)


def _decode_jpeg(content: Content, header: JpegHeader, channels: int, at_least: tuple[int, int] | None) -> Pixels:
    """The pixels as they lie in the file; `at_least` is height and width of the image upright."""
    least = at_least if at_least is None or header.orientation < 5 else at_least[::-1]
    height, width = _smallest(header.height, header.width, *least) if least else (0, 0)
    colours = "GRAY" if channels == 1 else "RGB"
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(content, colours, min_height=height, min_width=width, strict=False)
        return pixels
    except ValueError as error:
        raise BadImage("undecodable", str(error)) from None


def _smallest(height: int, width: int, least_height: int, least_width: int) -> tuple[int, int]:
    """The smallest of the quick sizes that is at least so large."""
    sizes = ((-(-height // factor), -(-width // factor)) for factor in FACTORS)
    return next((size for size in sizes if size[0] >= least_height and size[1] >= least_width), (height, width))


def _reduced(height: int, width: int) -> tuple[int, int]:
    """The size at which an image is measured."""
    return _smallest(height, width, MEASURED, MEASURED)


# What Pillow reads


@contextmanager
def _as_bad_image() -> Iterator[None]:
    """Turns what Pillow raises, which is nearly everything, into BadImage."""
    try:
        yield
    except BadImage:
        raise
    except Exception as error:
        said = "has a damaged header" if isinstance(error, UnidentifiedImageError) else str(error) or repr(error)
        raise BadImage("truncated" if "truncated" in said.lower() else "undecodable", said) from None


def _inspect_by_pillow(content: bytes, kind: str, max_pixels: int) -> Inspected:
    with _as_bad_image(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = _load(content, kind, max_pixels)
        original = _storable(content, kind)
        height, width = _reduced(image.height, image.width)
        small = image.reduce((round(image.width / width), round(image.height / height)))
        channels = len(image.getbands())
        measured = _measure(np.asarray(small).reshape(small.height, small.width, channels))
        return Inspected(image.width, image.height, channels, content if original else _png(image), *measured)


def _load(content: bytes, kind: str, max_pixels: int) -> Image.Image:
    """The image upright, grey ("L") or "RGB"."""
    _check_whole(content, kind)
    if kind == "WEBP":  # Pillow makes room for all of its pixels as soon as it is opened
        _check_size(*_webp_size(content), max_pixels)
    image = _open(content, kind)
    _check_size(image.width, image.height, max_pixels)
    tile = getattr(image, "tag_v2", {})
    if tile.get(322, 0) * tile.get(323, 0) > max(max_pixels, 2**16):
        raise BadImage("undecodable", "has absurdly large tiles")
    if kind == "PNG":
        _open(content, kind).verify()  # the checksums, which are not looked at when it is decoded
    image.load()
    orientation, channels = _exif(image), 1 if image.mode in GREY else 3
    if orientation == 1 and image.mode in ("L", "RGB"):
        return image
    pixels = _pixels(image, channels)
    del image
    pixels = upright(pixels, orientation)
    return _image(pixels)


GREY = ("1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N")


def _open(content: Content, kind: str) -> Image.Image:
    return Image.open(io.BytesIO(content), formats=[kind])


def _flat(image: Image.Image, channels: int) -> Image.Image:
    """The image in 1 ("L") or 3 ("RGB") channels of 8 bits; transparency is dropped, as torchvision's loader does."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise BadImage("unsupported", "has pixels of 32 bits a channel")
    mode = "L" if channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _image(pixels: Pixels) -> Image.Image:
    """Pixels [H, W, C] in 1 (grey) or 3 (RGB) channels as an image of Pillow."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _pixels(image: Image.Image, channels: int) -> Pixels:
    """The same as an array [H, W, C]; made by strips, since Pillow's images of any colours take 4 bytes a pixel."""
    pixels = np.empty((image.height, image.width, channels), np.uint8)
    rows = max(1, AT_ONCE // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        pixels[top : top + rows] = np.asarray(_flat(strip, channels)).reshape(strip.height, strip.width, channels)
    return pixels


def _exif(image: Image.Image) -> int:
    """The orientation of an image that Pillow opened."""
    if image.format == "TIFF":
        found = getattr(image, "tag_v2", {}).get(0x0112, 1)
        return found if found in range(1, 9) else 1
    exif = image.info.get("exif")
    return read_orientation(exif) if isinstance(exif, bytes) else 1


def _png_orientation(content: Content) -> int:
    """The orientation that the last eXIf chunk of a PNG says: a length, a name, so many bytes and a checksum each."""
    orientation, position = 1, 8
    while position + 8 <= len(content):
        start, end = position + 8, position + 8 + int.from_bytes(content[position : position + 4])
        if content[position + 4 : start] == b"eXIf":
            orientation = read_orientation(content[start:end])
        position = end + 4
    return orientation


def _check_whole(content: bytes, kind: str) -> None:
    """Finds out by the container alone what is truncated, where Pillow would say something else, or nothing."""
    wanted = 0
    if kind == "PNG":
        end = content.rfind(b"IEND")
        wanted = end + 8 if end >= 0 else len(content) + 1
    if kind == "WEBP":
        wanted = int.from_bytes(content[4:8], "little") + 8
    if len(content) < wanted:
        raise BadImage("truncated", "ends too early")


def _storable(content: bytes, kind: str) -> bool:
    """Whether a file is stored as it came: a still PNG with 8 bits of grey or RGB, or a still and opaque WebP."""
    if kind == "PNG" and content[24:26] not in (b"\x08\0", b"\x08\x02"):  # in the IHDR: bits, colours
        return False
    image = _open(content, kind)
    return kind in ("PNG", "WEBP") and image.mode in ("L", "RGB") and not getattr(image, "is_animated", False)


def _webp_size(content: bytes) -> tuple[int, int]:
    """Width and height of the canvas. Source: the WebP container specification, and RFC 9649."""
    kind = content[12:16]
    if kind == b"VP8X":
        return int.from_bytes(content[24:27], "little") + 1, int.from_bytes(content[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(content[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(content[26:28], "little") & 0x3FFF, int.from_bytes(content[28:30], "little") & 0x3FFF


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.info.clear()  # transparency, profiles, texts: none is part of the pixels
    image.save(buffer, "PNG")
    return buffer.getvalue()


# Measures of pixels


def _measure(pixels: Pixels) -> tuple[int, Sums]:
    """The hash of an image [H, W, C], and its sums."""
    return int(phash(pixels[None])[0]), sums(pixels[None])


LUMA = np.array([299, 587, 114], np.uint64)
"""How bright red, green and blue are, in thousandths: ITU-R BT.601."""


def phash(images: Pixels) -> NDArray[np.uint64]:
    """A hash of what images [N, H, W, C] look like, uint64 [N]: where two are alike, few of its 64 bits differ.

    Whether each of 8x8 fields is darker than the one to its right: dHash, N. Krawetz, "Kind of Like That", 2013. By
    whole numbers alone, so that it is the same on every machine.
    """
    rows, _ = _fields(images.shape[1], 8)
    columns, widths = _fields(images.shape[2], 9)
    steps = [(1, rows), (2, columns)]
    if images.shape[2] > images.shape[1]:  # the longer side first, so that what lies between is small
        steps.reverse()
    fields = images
    for axis, starts in steps:
        fields = np.add.reduceat(fields, starts, axis=axis, dtype=np.uint32)
    grey = fields.astype(np.uint64) @ LUMA if images.shape[3] == 3 else fields[..., 0].astype(np.uint64)
    darker = grey[:, :, :-1] * widths[1:] < grey[:, :, 1:] * widths[:-1]
    return np.packbits(darker.reshape(len(images), 64), axis=1).view(">u8").ravel().astype(np.uint64)


@cache
def _fields(length: int, fields: int) -> tuple[NDArray[np.intp], NDArray[np.uint64]]:
    """Where each field of a side begins, and how many pixels it has; one without a pixel of its own has another's."""
    bounds = np.arange(fields + 1) * length // fields
    return bounds[:-1], np.maximum(np.diff(bounds), 1).astype(np.uint64)


def sums(images: Pixels) -> Sums:
    """The sums of images [N, H, W, C], exactly."""
    width, channels = images.shape[2:]
    rows = images.reshape(-1, width * channels)
    step = max(1, AT_ONCE // width)
    total = np.zeros((2, width * channels))
    for start in range(0, len(rows), step):
        # Products with a matrix are by far the fastest way, and in float64 exact up to 2**53, whatever their order.
        part = rows[start : start + step].astype(np.float64)
        ones = np.ones(len(part))
        total[0] += ones @ part
        total[1] += ones @ np.square(part, out=part)
    pixels = np.full((1, channels), len(rows) * width)
    return np.concatenate([pixels, total.reshape(2, width, channels).sum(axis=1)]).astype(np.uint64)
