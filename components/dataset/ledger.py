"""What is known of every image of a dataset, as records of a fixed size: its facts without its name.

ledger = Ledger(store, [Volume(manifest.shards, manifest.facts)])
for batch in ledger.batches():
    batch["hash"], batch["label"], batch["split"], …
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as compute
from numpy.typing import NDArray

from components.dataset import facts
from components.dataset.manifest import SPLITS, File, Shard
from components.dataset.splits import group_hash
from components.source.ahead import ahead
from components.storage import Store

RECORD = np.dtype(
    [
        ("hash", np.uint64, 4),  # the SHA-256 as big-endian words: they compare as its bytes do
        ("label", np.uint32),  # an index into Ledger.labels
        ("split", np.uint8),  # an index into SPLITS
        ("shard", np.uint32),  # an index into Ledger.shards
        ("row", np.uint32),
        ("width", np.uint32),
        ("height", np.uint32),
        ("channels", np.uint8),
        ("phash", np.uint64),
        ("group", np.uint64),  # see splits.group_hash; 0 where the image has none
    ]
)

NUMBERS = ("row", "width", "height", "channels", "phash")
"""The columns of the facts that are numbers already."""

BATCH = 2**17
"""Records that come at once, at least, but for the last."""

DECODED = 3
"""How many times as large facts are in memory as in their file, about."""


@dataclass(frozen=True)
class Volume:
    """Shards, and the facts about them in the same order."""

    shards: Sequence[Shard]
    facts: Sequence[File]


@dataclass(frozen=True)
class Entry:
    """An image by name."""

    name: str
    label: str
    split: str
    shard: Shard
    row: int


class Ledger:
    """The images of some volumes; the rows that their shards exclude do not come."""

    def __init__(self, store: Store, volumes: Sequence[Volume]) -> None:
        self.store, self.volumes = store, volumes
        self.shards = [shard for volume in volumes for shard in volume.shards]
        self.labels: list[str] = []
        """The names of the classes in the order in which they were met."""
        self._numbers: dict[str, int] = {}  # of the labels
        self.origins: dict[int, File] = {}
        """The facts about each shard, by its number, as far as it was met."""

    @property
    def rows(self) -> int:
        """How many images come."""
        return sum(shard.images for shard in self.shards)

    def batches(self) -> Iterator[NDArray[Any]]:
        """All the images as arrays of RECORD, in the order of the facts. Raises StepError where facts are damaged."""
        waiting: list[NDArray[Any]] = []
        for records in self._records():
            waiting.append(records)
            if sum(map(len, waiting)) >= BATCH:
                yield np.concatenate(waiting)
                waiting.clear()
        if waiting:
            yield np.concatenate(waiting)

    def _records(self) -> Iterator[NDArray[Any]]:
        first = 0
        for volume in self.volumes:
            mentions = _Mentions(volume.shards, first)
            first += len(volume.shards)
            for file, tables in ahead(self._read, volume.facts, lambda file: DECODED * file.bytes):
                mentions.begin_file()
                for table in tables:
                    yield self._convert(table, file, mentions)

    def _read(self, file: File) -> list[pa.Table]:
        return list(facts.read(self.store, file, ["sha256", "label", "split", "shard", "group", *NUMBERS]))

    def _convert(self, table: pa.Table, file: File, mentions: "_Mentions") -> NDArray[Any]:
        records = np.empty(len(table), RECORD)
        records["hash"] = facts.hashes(table).view(">u8")
        for name in NUMBERS:
            records[name] = table[name].to_numpy()
        records["label"] = _numbered(table["label"], self._label)
        records["split"] = _numbered(table["split"], SPLITS.index)
        records["group"] = _group_hashes(table["group"])
        names, shards = _dictionary(table["shard"])
        kept = np.zeros(len(table), np.bool_)
        for pair in np.unique(shards * len(SPLITS) + records["split"]):
            code, split = divmod(int(pair), len(SPLITS))
            number = mentions.number(names[code], SPLITS[split])
            if number is None:
                continue
            self.origins.setdefault(number, file)
            here = (shards == code) & (records["split"] == split)
            records["shard"][here] = number
            kept |= here & ~np.isin(records["row"], self.shards[number].excluded)
        return records if kept.all() else records[kept]

    def _label(self, name: str) -> int:
        if name not in self._numbers:
            self._numbers[name] = len(self.labels)
            self.labels.append(name)
        return self._numbers[name]

    def entry(self, record: Any) -> Entry:
        """The image of a record that came, by name; its facts are read once more."""
        number, row = int(record["shard"]), int(record["row"])
        shard = self.shards[number]
        same = {"shard": shard.sha256, "split": shard.split, "row": row}
        for table in facts.read(self.store, self.origins[number], ["name", "label", *same]):
            shards, splits, rows = (compute.equal(table[column], value) for column, value in same.items())
            found = table.filter(compute.and_(compute.and_(shards, splits), rows))
            if len(found):
                name, label = found["name"][0].as_py(), found["label"][0].as_py()
                return Entry(name, label, shard.split, shard, row)
        raise LookupError(f"no facts about row {row} of {shard.key}")


class _Mentions:
    """Which shard the facts speak of.

    Two chunks of a source that hold the same images make the same shard twice: its first mention, by one file of facts,
    is then the first of the two, its second, by another file, the second.
    """

    def __init__(self, shards: Sequence[Shard], first: int) -> None:
        self.unmet: dict[tuple[str, str], list[int]] = {}
        """The last first. Lists, because a deque of one number takes 600 bytes."""
        for number in reversed(range(len(shards))):
            shard = shards[number]
            self.unmet.setdefault((shard.sha256, shard.split), []).append(first + number)
        self.met: dict[tuple[str, str], int | None] = {}

    def begin_file(self) -> None:
        self.met = {}

    def number(self, sha256: str, split: str) -> int | None:
        """None where the dataset has no such shard any more, as all of its rows were excluded."""
        key = sha256, split
        if key not in self.met:
            self.met[key] = self.unmet[key].pop() if self.unmet.get(key) else None
        return self.met[key]


def _dictionary(column: pa.ChunkedArray) -> tuple[list[str], NDArray[np.int64]]:
    """The different values of a column, and for each row which of them it has."""
    array = column.unify_dictionaries().combine_chunks()
    array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
    return array.dictionary.to_pylist(), array.indices.to_numpy().astype(np.int64)


def _group_hashes(column: pa.ChunkedArray) -> NDArray[np.uint64]:
    groups, indices = _dictionary(compute.fill_null(column, ""))
    return np.array([group_hash(group) if group else 0 for group in groups], np.uint64)[indices]


def _numbered(column: pa.ChunkedArray, number: Callable[[str], int]) -> NDArray[np.int64]:
    names, indices = _dictionary(column)
    return np.array([number(name) for name in names], np.int64)[indices]
