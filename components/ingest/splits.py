"""The splits of a dataset: by content, so that neither the order of the source nor the machine matters."""

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from components.dataset.manifest import SPLITS
from components.dataset.shards import canonical_order, image_hashes
from components.ingest.idx import Images, Source
from components.step import UserError


@dataclass(frozen=True)
class Split(Images):
    """Images in canonical order, with their SHA-256, uint8 [N, 32]."""

    hashes: NDArray[np.uint8]

    def take(self, which: NDArray[np.bool_] | NDArray[np.intp]) -> "Split":
        return Split(self.images[which], self.labels[which], self.hashes[which])


def cut(source: Source, validation_fraction: float) -> dict[str, Split]:
    """The three splits by name: the source's test images as they are, its training images cut in two.

    Of each class the images with the smallest hashes are for validation: at least one, and not all.
    """
    training, test = _sorted(source.train), _sorted(source.test)
    chosen = np.zeros(len(training.labels), np.bool_)
    for label in np.unique(training.labels):
        members = np.flatnonzero(training.labels == label)
        count = min(max(1, round(len(members) * validation_fraction)), len(members) - 1)
        chosen[members[:count]] = True
    chosen = chosen[_first_twins(training.hashes)]
    return dict(zip(SPLITS, (training.take(~chosen), training.take(chosen), test), strict=True))


def _sorted(images: Images) -> Split:
    hashes = image_hashes(images.images)
    return Split(images.images, images.labels, hashes).take(canonical_order(hashes, images.labels))


def _first_twins(hashes: NDArray[np.uint8]) -> NDArray[np.intp]:
    """For each of the sorted hashes the index of the first that equals it: identical images must share a split."""
    differs = np.ones(len(hashes), np.bool_)
    differs[1:] = (hashes[1:] != hashes[:-1]).any(axis=1)
    return np.maximum.accumulate(np.where(differs, np.arange(len(hashes)), 0))


def name_classes(splits: dict[str, Split]) -> tuple[str, ...]:
    """The names '0', '1', ... up to the largest label; raises UserError unless each has an image in every split."""
    largest = max(int(split.labels.max(initial=0)) for split in splits.values())
    classes = tuple(str(label) for label in range(largest + 1))
    counts = {name: np.bincount(split.labels, minlength=len(classes)) for name, split in splits.items()}
    for label, name in product(range(len(classes)), SPLITS):
        if not counts[name][label]:
            raise UserError(
                f"class {classes[label]!r} has no image in the {name} split; each of the classes "
                f"'0' to {classes[-1]!r} needs at least one in {', '.join(SPLITS)}"
            )
    return classes
