"""Small data sets whose images tell which they are."""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from components.dataset.manifest import Manifest, Shard
from components.dataset.shards import write_shard
from components.dataset.splits import Cuts
from components.storage import Store

RAW = (2, 3, 3)
"""The shape of raw images."""
CLASSES = ("ant", "bee", "cow")


def pixels(number: int, height: int = 2, width: int = 3) -> NDArray[np.uint8]:
    """An image of one colour, uint8 [height, width, 3], which is `number`."""
    return np.tile(np.array([number % 256, number // 256, 7], np.uint8), (height, width, 1))


def number_of(image: NDArray[np.uint8]) -> int:
    """Which of them it is; all of it has the same colour."""
    assert (image == image[0, 0]).all()
    return int(image[0, 0, 0]) + 256 * int(image[0, 0, 1])


def png(number: int, height: int = 20, width: int = 24) -> bytes:
    """The same as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels(number, height, width)).save(buffer, "PNG")
    return buffer.getvalue()


def label_of(number: int) -> int:
    """The number of its class."""
    return number % len(CLASSES)


def write(store: Store, sizes: Sequence[int], encoded: bool = True, split: str = "train") -> Manifest:
    """A data set of shards with so many images each, numbered from 0 on."""
    shards, first = [], 0
    for size in sizes:
        numbers = range(first, first := first + size)
        images = [png(number) if encoded else pixels(number).tobytes() for number in numbers]
        labels = [CLASSES[label_of(number)] for number in numbers]
        shards.append(write_shard(store, split, images, labels, None if encoded else RAW))
    return manifest(shards, (20, 24, 3) if encoded else RAW, encoded)


def manifest(shards: Sequence[Shard], shape: tuple[int | None, int | None, int], encoded: bool = True) -> Manifest:
    """That of these shards."""
    counts = {split: sum(shard.images for shard in shards if shard.split == split) for split in ("train", "test")}
    return Manifest(
        classes=CLASSES,
        encoding="encoded" if encoded else "raw",
        shape=shape,
        counts={split: {"ant": count} for split, count in counts.items()},
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        split_digests={},
        digest="",
        shards=tuple(shards),
        facts=(),
        cuts=Cuts(test=0, validation=0, by_class={}),
        parent=None,
        provenance={},
    )


def shard(images: int, bytes: int = 1, excluded: tuple[int, ...] = ()) -> Shard:
    """One that is nowhere."""
    name = hashlib.sha256(str((images, bytes)).encode()).hexdigest()
    return Shard(key=name, sha256=name, bytes=bytes, split="train", rows=images + len(excluded), excluded=excluded)


def size(path: Path) -> int:
    """A file's bytes; none of one that is gone meanwhile."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
