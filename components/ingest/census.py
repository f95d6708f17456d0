"""Counts what a dataset holds, and finds what is no part of it: images of two labels, of two splits, of the parent.

Exact, and in little memory however many images there are: they are divided into buckets by their hashes, so that all
copies of an image come together, and in the order in which the digests of the splits are taken.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.dataset.buckets import Buckets
from components.dataset.ledger import RECORD, Ledger
from components.dataset.manifest import SPLITS
from components.ingest.likeness import Likeness, Likenesses
from components.progress import Progress

GROUP = np.dtype([("group", np.uint64), ("split", np.uint8)])
"""Of an image that is in one, as RECORD has it."""

EXAMPLES = 6
"""Images of each fault that are kept for the report, with one copy each."""


@dataclass
class Census:
    """What was counted. An image that comes twice within a split is two images, as it is in the source."""

    counts: NDArray[np.int64]
    """Images of the dataset, by split and by number of the label, int64 [3, L]."""
    appended: NDArray[np.int64]
    """Those of them that the parent does not have, likewise."""
    rows: int = 0
    """Images that came, those that are excluded among them."""
    duplicates: int = 0
    """Images that their split has already."""
    known: int = 0
    """Rows that are excluded because the parent has them."""
    conflicts: int = 0
    """Rows that are excluded because their image has two labels; the parent's are among them."""
    leaked: int = 0
    """Rows that are excluded because a split that is judged later has them."""
    leaks: int = 0
    """Images of validation and test that another split had, too."""
    groups: int = 0
    """Groups of images."""
    torn_groups: int = 0
    """Those of them with images in more than one split, because the source names splits of its own."""
    channels: int = 1
    """1, or 3 where any image has colours."""
    widths: tuple[int, int] = (2**32, 0)
    """The least and the greatest, in pixels."""
    heights: tuple[int, int] = (2**32, 0)
    """Likewise."""
    sides: NDArray[np.int64] = field(default_factory=lambda: np.zeros(33, np.int64))
    """Images whose shorter side has so many binary digits: [5] counts those from 16 to 31 pixels."""
    split_digests: dict[str, str] = field(default_factory=dict)
    excluded: list[NDArray[np.int64]] = field(default_factory=list)
    """Arrays of shard << 32 | row."""
    examples: dict[str, list[tuple[Any, Any]]] = field(
        default_factory=lambda: {"conflicts": [], "leaks": [], "duplicates": []}
    )
    """Pairs of records that show each fault."""


def take(ledger: Ledger, inherited: int, folder: Path) -> tuple[Census, Likeness]:
    """Counts the images of a ledger, the first `inherited` shards of which are the parent's.

    `folder` is for temporary files, about 200 bytes an image.
    """
    buckets = Buckets(folder / "images", RECORD, ledger.rows)
    progress = Progress("merge", ledger.rows, "images")
    for batch in ledger.batches():
        buckets.add(batch, batch["hash"][:, 0])
        progress.advance(len(batch))

    shape = (len(SPLITS), len(ledger.labels))
    census = Census(np.zeros(shape, np.int64), np.zeros(shape, np.int64))
    digests = SplitDigests(ledger.labels)
    likenesses = Likenesses(folder, ledger.rows)
    groups = Buckets(folder / "groups", GROUP, ledger.rows)
    for records in buckets:
        records = _sorted(records)
        kept = _sift(records, inherited, census)
        different = kept[_firsts(kept["hash"])]
        census.duplicates += len(kept) - len(different)
        _keep_twins(kept, census)
        _count(kept, inherited, census)
        digests.add(kept)
        likenesses.add(different)
        grouped = kept[kept["group"] > 0]
        groups.add(grouped[["group", "split"]].astype(GROUP), grouped["group"])
    _count_groups(groups, census)
    census.split_digests = digests.digests()
    return census, likenesses.find()


def _count_groups(groups: Buckets, census: Census) -> None:
    """Counts groups, and those of them that are in several splits."""
    for members in groups:
        found = np.unique(np.unique(members)["group"], return_counts=True)[1]  # the splits of each
        census.groups += len(found)
        census.torn_groups += int((found > 1).sum())


class SplitDigests:
    """SHA-256 over a split's images in the order of their hashes: of each its SHA-256 and that of its label's name."""

    def __init__(self, labels: Iterable[str]) -> None:
        names = b"".join(hashlib.sha256(label.encode()).digest() for label in labels)
        self.names = np.frombuffer(names, np.uint8).reshape(-1, 32)
        self.hashes = [hashlib.sha256() for _ in SPLITS]

    def add(self, records: NDArray[Any]) -> None:
        """Adds images, RECORD, that are sorted by hash and come after those that were added before."""
        for split, digest in enumerate(self.hashes):
            chosen = records[records["split"] == split]
            content = np.empty((len(chosen), 64), np.uint8)
            content[:, :32] = chosen["hash"].astype(">u8").view(np.uint8)
            content[:, 32:] = self.names[chosen["label"]]
            digest.update(content.data)

    def digests(self) -> dict[str, str]:
        """By split."""
        return {split: digest.hexdigest() for split, digest in zip(SPLITS, self.hashes, strict=True)}


def _sorted(records: NDArray[Any]) -> NDArray[Any]:
    """By hash; the copies of an image by label, split, shard and row."""
    kind = records["label"].astype(np.uint64) << np.uint64(8) | records["split"]
    order: NDArray[np.intp] = np.lexsort((_places(records), kind, *records["hash"].T[::-1]))
    ordered: NDArray[Any] = records[order]
    return ordered


def _places(records: NDArray[Any]) -> NDArray[np.int64]:
    places: NDArray[np.int64] = records["shard"].astype(np.int64) << 32 | records["row"]
    return places


def _firsts(hashes: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Of sorted hashes [N, 4] the indices at which another one begins."""
    differs = np.ones(len(hashes), np.bool_)
    differs[1:] = (hashes[1:] != hashes[:-1]).any(axis=1)
    return np.flatnonzero(differs)


def _sift(records: NDArray[Any], inherited: int, census: Census) -> NDArray[Any]:
    """Counts what is excluded of the sorted records, and returns the others."""
    if not len(records):
        return records
    firsts = _firsts(records["hash"])
    lasts = np.append(firsts[1:], len(records)) - 1
    group = np.repeat(np.arange(len(firsts)), lasts - firsts + 1)
    old = records["shard"] < inherited

    torn = records["label"][firsts] != records["label"][lasts]  # the copies are sorted by label
    known = np.logical_or.reduceat(old, firsts)[group] & ~old
    judged = np.maximum.reduceat(np.where(known, 0, records["split"]), firsts)[group]
    conflicts = torn[group]
    known &= ~conflicts
    leaked = (records["split"] != judged) & ~known & ~conflicts
    leaks = np.unique(group[leaked])

    census.rows += len(records)
    census.conflicts += int(conflicts.sum())
    census.known += int(known.sum())
    census.leaked += int(leaked.sum())
    census.leaks += len(leaks)
    for fault, groups in (("conflicts", np.flatnonzero(torn)), ("leaks", leaks)):
        room = EXAMPLES - len(census.examples[fault])
        census.examples[fault] += [(records[firsts[one]], records[lasts[one]]) for one in groups[:room]]
    excluded = conflicts | known | leaked
    census.excluded.append(_places(records)[excluded])
    kept: NDArray[Any] = records[~excluded]
    return kept


def _keep_twins(kept: NDArray[Any], census: Census) -> None:
    twins = np.flatnonzero((kept["hash"][1:] == kept["hash"][:-1]).all(axis=1))
    pairs = census.examples["duplicates"]
    pairs += [(kept[twin], kept[twin + 1]) for twin in twins[: EXAMPLES - len(pairs)]]


def _count(kept: NDArray[Any], inherited: int, census: Census) -> None:
    """Counts images that are part of the dataset."""
    if not len(kept):
        return
    labels = census.counts.shape[1]
    for which, counts in ((kept, census.counts), (kept[kept["shard"] >= inherited], census.appended)):
        cells = which["split"] * np.int64(labels) + which["label"]
        counts += np.bincount(cells, minlength=counts.size).reshape(counts.shape)
    census.channels = max(census.channels, int(kept["channels"].max()))
    census.widths = _widened(census.widths, kept["width"])
    census.heights = _widened(census.heights, kept["height"])
    shorter = np.minimum(kept["width"], kept["height"])
    digits = np.frexp(shorter)[1]
    census.sides += np.bincount(digits, minlength=len(census.sides))


def _widened(bounds: tuple[int, int], values: NDArray[np.uint32]) -> tuple[int, int]:
    return min(bounds[0], int(values.min())), max(bounds[1], int(values.max()))
