"""Finds images that look alike: whose perceptual hashes (see dataset/images.py) differ in few of their 64 bits.

The bits are dealt out to BANDS bands. Two hashes that differ in DISTANCE bits agree in all the other bands, two at
least, so they meet in one of the tables in which hashes are grouped by two bands (G. S. Manku, A. Jain, A. Das Sarma,
"Detecting near-duplicates for web crawling", 2007; M. Norouzi, A. Punjani, D. Fleet, "Fast search in Hamming space with
multi-index hashing", 2012). In a group each hash is compared with the WINDOW hashes that follow it.

What is exact: images with the same hash are counted as a group, however many they are, and not compared. What is
bounded: of more than WINDOW + 1 different hashes that agree in two bands, 25 or 26 bits, not all are compared. So pairs
may be missed, but the time stays linear. The memory is that of one bucket (see dataset/buckets.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.dataset.buckets import Buckets
from components.dataset.manifest import SPLITS

DISTANCE = 3
"""Bits in which images that look alike differ, at most."""

BANDS = 5

WINDOW = 64

EXAMPLES = 6
"""Pairs that are kept for the report."""

PLACE = [("phash", np.uint64), ("split", np.uint8), ("shard", np.uint32), ("row", np.uint32)]

IMAGE = np.dtype([*PLACE, ("count", np.uint32)])
"""An image, and how many with its hash in its split it stands for, itself among them."""

HASH = np.dtype([("phash", np.uint64), ("splits", np.uint8), ("twice", np.uint8)])
"""A hash; the splits that have an image with it, and those that have two, as bits: 1 << index into SPLITS."""

NEAR = np.dtype([("phash", np.uint64), ("splits", np.uint8)])
"""A hash, and the splits that have another one near it."""


def _masks() -> Iterator[np.uint64]:
    # Every fifth bit is of the same band, because neighbouring bits, of neighbouring places in an image, often agree.
    bands = [sum(1 << bit for bit in range(first, 64, BANDS)) for first in range(BANDS)]
    for chosen in combinations(bands, BANDS - DISTANCE):
        yield np.uint64(sum(chosen))


MASKS = tuple(_masks())
"""The bits that count in each of the tables."""


@dataclass
class Likeness:
    """What looks alike."""

    near_duplicates: int = 0
    """Images that look like another one of their split."""
    near_leaks: int = 0
    """Images of validation and test that look like one of another split."""
    examples: dict[str, list[tuple[Any, Any]]] = field(default_factory=dict)
    """Pairs of records, IMAGE, of both kinds."""


End = tuple[int, int]
"""An image of an example: its hash and the index of its split."""


class Likenesses:
    """Takes images, each with different bytes, and then says which look alike."""

    def __init__(self, folder: Path, expected: int) -> None:
        self.folder, self.expected = folder, expected
        self.images = Buckets(folder / "phashes", IMAGE, expected)
        self.pairs: dict[str, list[tuple[End, End]]] = {"near_duplicates": [], "near_leaks": []}

    def add(self, records: NDArray[Any]) -> None:
        """Adds images: records with the fields of PLACE, and others."""
        images = np.empty(len(records), IMAGE)
        for name, _ in PLACE:
            images[name] = records[name]
        images = _collapsed(images)
        self.images.add(images, _spread(images["phash"]))

    def find(self) -> Likeness:
        """Compares all of them."""
        different = Buckets(self.folder / "different", HASH, self.expected)
        for images in self.images:
            hashes = _hashes(images)
            self._keep(hashes, hashes, hashes["twice"])
            different.add(hashes, _spread(hashes["phash"]))
        near = Buckets(self.folder / "near", NEAR, self.expected)
        for number, mask in enumerate(MASKS):
            table = Buckets(self.folder / f"table{number}", HASH, self.expected)
            for hashes in different:
                table.add(hashes, _spread(hashes["phash"] & mask))
            for hashes in table:
                found = self._compare(hashes[np.argsort(hashes["phash"])], mask)
                near.add(found, _spread(found["phash"]))
            table.remove()
        return self._count(near)

    def _compare(self, hashes: NDArray[Any], mask: np.uint64) -> NDArray[Any]:
        """Of the hashes, sorted, those that are near another one with the same bits in the mask; as NEAR."""
        found = np.zeros(len(hashes), NEAR)
        found["phash"] = hashes["phash"]
        for one, other in _near(hashes["phash"], mask):
            np.bitwise_or.at(found["splits"], one, hashes["splits"][other])
            np.bitwise_or.at(found["splits"], other, hashes["splits"][one])
            self._keep(hashes[one], hashes[other], hashes["splits"][one] & hashes["splits"][other])
        return found[found["splits"] > 0]

    def _count(self, near: Buckets) -> Likeness:
        likeness = Likeness()
        images_of: dict[End, list[Any]] = {end: [] for pairs in self.pairs.values() for pair in pairs for end in pair}
        for images, found in zip(self.images, near, strict=True):
            _count(images, found, likeness)
            for end in images_of:
                here = np.flatnonzero((images["phash"] == end[0]) & (images["split"] == end[1]))
                images_of[end] += list(images[here[:2]])
        for kind, pairs in self.pairs.items():
            likeness.examples[kind] = [(images_of[one][0], images_of[other][-1]) for one, other in pairs]
        return likeness

    def _keep(self, one: NDArray[Any], other: NDArray[Any], common: NDArray[np.uint8]) -> None:
        """Keeps some of these pairs of hashes as examples; `common` are the splits in which both have images."""
        both = one["splits"] | other["splits"]
        for kind, which in (("near_duplicates", common > 0), ("near_leaks", np.bitwise_count(both) > 1)):
            pairs = self.pairs[kind]
            for index in np.flatnonzero(which)[: EXAMPLES - len(pairs)]:
                if kind == "near_duplicates":
                    first = second = _bits(common[index])[0]
                else:
                    ends = product(_bits(one["splits"][index]), _bits(other["splits"][index]))
                    first, second = next((first, second) for first, second in ends if first != second)
                pair = (int(one["phash"][index]), first), (int(other["phash"][index]), second)
                if pair not in pairs:  # hashes that are near meet in several tables
                    pairs.append(pair)


def _collapsed(images: NDArray[Any]) -> NDArray[Any]:
    """Two images at most of each hash and split: one of them stands for all the others."""
    images = images[np.lexsort((images["split"], images["phash"]))]
    differs = np.ones(len(images), np.bool_)
    differs[1:] = (images["phash"][1:] != images["phash"][:-1]) | (images["split"][1:] != images["split"][:-1])
    firsts = np.flatnonzero(differs)
    sizes = np.diff(firsts, append=len(images))
    images["count"] = 1
    images["count"][firsts] = np.maximum(sizes - 1, 1)
    two: NDArray[Any] = images[np.sort(np.concatenate([firsts, firsts[sizes > 1] + 1]))]
    return two


def _spread(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Keys whose leading bits differ where hashes do: Fibonacci hashing (D. Knuth, TAOCP 3, section 6.4)."""
    return hashes * np.uint64(0x9E3779B97F4A7C15)


def _hashes(images: NDArray[Any]) -> NDArray[Any]:
    """The different hashes of images [N, IMAGE], ascending, as HASH."""
    different, counts = _by_split(images)
    hashes = np.empty(len(different), HASH)
    hashes["phash"] = different
    hashes["splits"] = (counts > 0) @ BITS
    hashes["twice"] = (counts > 1) @ BITS
    return hashes


BITS = np.array([1 << index for index in range(len(SPLITS))], np.uint8)


def _bits(splits: int) -> list[int]:
    return [index for index in range(len(SPLITS)) if splits >> index & 1]


def _by_split(images: NDArray[Any]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The different hashes, ascending, uint64 [U], and the number of their images by split, int64 [U, 3]."""
    different, inverse = np.unique(images["phash"], return_inverse=True)
    cells = inverse * len(SPLITS) + images["split"]
    counts = np.bincount(cells, images["count"], len(different) * len(SPLITS)).astype(np.int64)
    return different, counts.reshape(-1, len(SPLITS))


def _near(hashes: NDArray[np.uint64], mask: np.uint64) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Pairs of indices of different hashes, sorted, that agree in the mask and differ in DISTANCE bits at most."""
    order = np.argsort(hashes & mask, kind="stable")
    ordered = hashes[order]
    groups = ordered & mask
    first = np.arange(len(hashes))
    for step in range(1, WINDOW + 1):
        first = first[: np.searchsorted(first, len(hashes) - step)]
        first = first[groups[first] == groups[first + step]]  # who has none so far away has none farther away
        if not len(first):
            return
        near = first[np.bitwise_count(ordered[first] ^ ordered[first + step]) <= DISTANCE]
        yield order[near], order[near + step]


def _count(images: NDArray[Any], near: NDArray[Any], likeness: Likeness) -> None:
    """Counts the images [N, IMAGE] of a bucket; `near` are those of its hashes that are near others, as NEAR."""
    different, counts = _by_split(images)
    neighbours = np.zeros(len(different), np.uint8)
    np.bitwise_or.at(neighbours, np.searchsorted(different, near["phash"]), near["splits"])
    seen = neighbours | (counts > 0) @ BITS
    for index, bit in enumerate(BITS):
        alike = (counts[:, index] > 1) | (neighbours & bit > 0)
        likeness.near_duplicates += int(counts[alike, index].sum())
        if SPLITS[index] != "train":
            likeness.near_leaks += int(counts[seen & ~bit > 0, index].sum())
