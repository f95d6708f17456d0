"""Image files of every kind that is read, all of the same picture."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image


def picture(height: int = 96, width: int = 144, seed: int = 0) -> NDArray[np.uint8]:
    """Fields of colour with a little noise, uint8 [H, W, 3]; each seed has fields of its own."""
    random = np.random.default_rng(seed)
    fields = random.integers(0, 256, (8, 12, 3))
    rows, columns = np.arange(height) * 8 // height, np.arange(width) * 12 // width
    noise = random.normal(0, 4, (height, width, 3))
    return (fields[rows][:, columns] + noise).clip(0, 255).astype(np.uint8)


def save(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(height: int = 96, width: int = 144, seed: int = 0) -> bytes:
    """A JPEG of `picture`."""
    return bytes(simplejpeg.encode_jpeg(picture(height, width, seed), 90))


def png(height: int = 96, width: int = 144, seed: int = 0) -> bytes:
    """A PNG of `picture`."""
    return save(Image.fromarray(picture(height, width, seed)), "PNG")


def oriented(orientation: int, kind: str, **options: Any) -> bytes:
    """A file that says in its Exif data how it is to be turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return save(Image.fromarray(picture()), kind, exif=exif, **options)


def every_kind() -> dict[str, bytes]:
    """Files by a name for people."""
    colours = Image.fromarray(picture())
    modes = {mode: colours.convert(mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK")}
    for mode in ("LA", "RGBA"):
        modes[mode].putalpha(modes["L"])
    deep = Image.fromarray(np.asarray(modes["L"]).astype(np.uint16) * 257)
    kinds = {
        "JPEG": ("L", "RGB", "CMYK"),
        "PNG": ("1", "L", "LA", "P", "RGB", "RGBA"),
        "WEBP": ("RGB", "RGBA"),
        "BMP": ("1", "L", "P", "RGB"),
        "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK"),
        "GIF": ("L", "P", "RGB"),
    }
    files = {f"{kind} {mode}": save(modes[mode], kind) for kind, names in kinds.items() for mode in names}
    others = {
        "JPEG progressive": save(colours, "JPEG", progressive=True),
        "PNG 16 bit": save(deep, "PNG"),
        "PNG 48 bit": png48(picture()),
        "PNG animated": save(colours, "PNG", save_all=True, append_images=[modes["L"].convert("RGB")]),
        "TIFF 16 bit": save(deep, "TIFF"),
        "TIFF lzw": save(colours, "TIFF", compression="tiff_lzw"),
        "TIFF jpeg": save(colours, "TIFF", compression="jpeg"),
        "TIFF fax": save(modes["1"], "TIFF", compression="group4"),
        "WEBP lossless": save(colours, "WEBP", lossless=True),
        "WEBP animated": save(colours, "WEBP", save_all=True, append_images=[colours.rotate(90)]),
        "GIF animated": save(colours, "GIF", save_all=True, append_images=[colours.rotate(90)]),
    }
    return files | others


def png48(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG with 16 bits a channel, which Pillow cannot write: each value is 257 times as large."""
    rows = (pixels.astype(">u2") * 257).astype(">u2")
    content = b"".join(b"\0" + row.tobytes() for row in rows)
    return png_of(struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, 2, 0, 0, 0), zlib.compress(content))


def png_of(header: bytes, content: bytes, *more: bytes) -> bytes:
    """A PNG of these chunks' contents; `more` are whole chunks before the image."""
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(more) + chunk(b"IDAT", content) + chunk(b"IEND", b"")
    )


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
