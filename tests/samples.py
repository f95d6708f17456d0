"""Small generated data sets in the form in which real ones come."""

import gzip
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CLASSES = 10


def write_idx(path: Path, values: NDArray[np.uint8]) -> None:
    """Writes an array as an IDX file, gzipped where the name ends in .gz."""
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 0x08, values.ndim, *values.shape)
    content = header + values.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def drawn_images(per_class: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images uint8 [N, 28, 28] and labels uint8 [N], in mixed order: a pattern for each class, moved, with noise."""
    patterns = np.kron(np.random.default_rng(0).random((CLASSES, 7, 7)) < 0.4, np.ones((4, 4)))
    random = np.random.default_rng(seed)
    labels = random.permutation(np.repeat(np.arange(CLASSES), per_class))
    moved = [np.roll(patterns[label], random.integers(-2, 3, size=2), axis=(0, 1)) for label in labels]
    noisy = 200 * np.stack(moved) + random.normal(0, 40, (len(labels), 28, 28))
    return noisy.clip(0, 255).astype(np.uint8), labels.astype(np.uint8)


def write_folder(folder: Path, suffix: str = "") -> Path:
    """Writes a folder like MNIST's, with 600 training and 200 test images; `suffix` may be '.gz'."""
    folder.mkdir()
    for part, per_class, seed in (("train", 60, 1), ("t10k", 20, 2)):
        images, labels = drawn_images(per_class, seed)
        write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", labels)
    return folder


def write_tree(folder: Path, per_class: int = 40) -> Path:
    """Writes a folder a class with JPEG files of many sizes: coloured discs, squares and stripes."""
    random = np.random.default_rng(0)
    for name in ("disc", "square", "stripes"):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            width, height = random.integers(40, 100, 2)
            across, down = np.abs(np.meshgrid(np.arange(width) - width / 2, np.arange(height) - height / 2))
            radius = min(width, height) * random.uniform(0.25, 0.4)
            drawn = {
                "disc": across**2 + down**2 < radius**2,
                "square": np.maximum(across, down) < radius,
                "stripes": across // random.integers(4, 9) % 2 == 0,
            }[name]
            pixels = np.where(drawn[..., None], random.integers(150, 256, 3), random.integers(0, 100, 3))
            noisy = pixels + random.normal(0, 8, pixels.shape)
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / name / f"{number}.jpg", quality=90)
    return folder
