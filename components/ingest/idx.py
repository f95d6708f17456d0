"""The IDX format of MNIST: a magic number, the sizes of the dimensions, then the values.

The magic number is two zero bytes, the type of the values (0x08: unsigned bytes) and the number of dimensions; each
size is a big-endian 32-bit number. Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits".
"""

import gzip
import hashlib
import math
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.step import UserError

UNSIGNED_BYTES = 0x08

DIMENSIONS = {"train-images": (3, 4), "train-labels": (1,), "t10k-images": (3, 4), "t10k-labels": (1,)}
"""The four files of a folder, and how many dimensions they may have: an image is [H, W] or [H, W, C]."""


@dataclass(frozen=True)
class IdxFile:
    """What an IDX file holds."""

    path: Path
    sha256: str
    """Of the file as it is uncompressed."""
    values: NDArray[np.uint8]


@dataclass(frozen=True)
class Images:
    """Images uint8 [N, H, W, C] and the numbers of their classes, int64 [N]."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Source:
    """Labelled images as they came; `files` has the SHA-256 of every file, uncompressed, by name."""

    train: Images
    test: Images
    files: dict[str, str]


def read_folder(folder: Path) -> Source:
    """Reads a folder of four IDX files that are named like MNIST's, plain or gzipped.

    Raises UserError, which names the file, what it holds and what it should, when one is missing, damaged or unfit.
    """
    files = {stem: read_idx(find(folder, stem), dimensions) for stem, dimensions in DIMENSIONS.items()}
    train = pair(files["train-images"], files["train-labels"])
    test = pair(files["t10k-images"], files["t10k-labels"])
    if train.images.shape[1:] != test.images.shape[1:]:
        shapes = f"{by(train.images.shape[1:])} and {by(test.images.shape[1:])}"
        raise UserError(f"{folder} has training and test images of different shapes, {shapes}; they must be the same")
    return Source(train, test, {file.path.name.removesuffix(".gz"): file.sha256 for file in files.values()})


def find(folder: Path, stem: str) -> Path:
    """The file of that stem: `train-images-idx3-ubyte`, also as `train-images.idx3-ubyte`, also with `.gz`."""
    try:
        names = sorted(path.name for path in folder.iterdir())  # so that plain comes before .gz
    except OSError as error:
        raise UserError(f"source must be 'mnist' or a folder of IDX files, not '{folder}': {error.strerror}") from None
    pattern = re.compile(rf"{stem}[-.]idx\d-ubyte(\.gz)?")
    for name in filter(pattern.fullmatch, names):
        return folder / name
    name = f"{stem}-idx{DIMENSIONS[stem][0]}-ubyte"
    raise UserError(
        f"source '{folder}' lacks {name} (plain or .gz); a folder of IDX files has four, named like MNIST's"
    )


def pair(images: IdxFile, labels: IdxFile) -> Images:
    """Images with their labels; raises UserError when they do not fit each other."""
    count, height, width = images.values.shape[:3]
    if count != len(labels.values):
        raise UserError(f"{images.path} has {count} images, but {labels.path} has {len(labels.values)} labels")
    pixels = images.values.reshape(count, height, width, -1)
    if pixels.shape[3] not in (1, 3):
        raise UserError(f"{images.path} has images with {pixels.shape[3]} channels; they must have 1 or 3")
    return Images(pixels, labels.values.astype(np.int64))


def read_idx(path: Path, dimensions: tuple[int, ...]) -> IdxFile:
    """Reads a file of unsigned bytes, plain or gzipped, whose array has one of these numbers of dimensions."""
    content = read_content(path)
    shape = read_shape(path, content, dimensions)
    start = 4 + 4 * len(shape)
    expected = start + math.prod(shape)
    if len(content) != expected:
        state = "truncated" if len(content) < expected else "too long"
        raise UserError(f"{path} is {state}: it has {len(content)} bytes, not the {expected} of {by(shape)} values")
    values = np.frombuffer(content, np.uint8, offset=start).reshape(shape)
    return IdxFile(path, hashlib.sha256(content).hexdigest(), values)


def read_content(path: Path) -> bytes:
    """The bytes of a file, uncompressed where its name ends in .gz."""
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path} is a damaged gzip file ({error}); get it anew") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def read_shape(path: Path, content: bytes, dimensions: tuple[int, ...]) -> tuple[int, ...]:
    """The sizes in the header of an IDX file."""
    magics = [bytes((0, 0, UNSIGNED_BYTES, count)) for count in dimensions]
    if content[:4] not in magics:
        wanted = " or ".join(magic.hex() for magic in magics)
        raise UserError(f"{path} has the magic number {content[:4].hex() or 'nothing'}, not {wanted}")
    count = content[3]
    if len(content) < 4 + 4 * count:
        raise UserError(f"{path} is truncated: it has {len(content)} bytes, its header alone {4 + 4 * count}")
    shape = struct.unpack_from(f">{count}I", content, 4)
    if 0 in shape:
        raise UserError(f"{path} is empty: it has {by(shape)} values")
    return shape


def by(shape: tuple[int, ...]) -> str:
    """A shape as people write it: 28x28x1."""
    return "x".join(map(str, shape))
