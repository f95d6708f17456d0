"""Which split an image belongs to: decided by its content alone, so that it is the same everywhere and for ever."""

import hashlib
from dataclasses import dataclass

from components.source.example import Example


@dataclass(frozen=True)
class Cuts:
    """Where the splits are cut on the line from 0 to 1 on which every image has its `position`.

    From 0 to `test` lies the test split, from there to `validation` the validation split, the rest is for training. A
    split that the source gives itself has no room on the line. A class in `by_class` has cuts of its own, by which its
    images are divided exactly. Appended data is cut by the cuts of its parent: so an image keeps its split.
    """

    test: float
    validation: float
    by_class: dict[str, tuple[float, float]]

    def split(self, example: Example, position: float) -> str:
        """The split of an example at this position: its own, or that of the line."""
        if example.split in ("validation", "test"):
            return example.split
        everywhere = (self.test, self.validation)
        test, validation = everywhere if example.group else self.by_class.get(example.label, everywhere)
        return "test" if position < test else "validation" if position < validation else "train"


def position(example: Example, sha256: bytes) -> float:
    """Where an example whose content has this hash lies on the line: by its group, if it has one, or by its content."""
    return (group_hash(example.group) if example.group else int.from_bytes(sha256[:8], "big")) / 2**64


def group_hash(group: str) -> int:
    """The first eight bytes of the SHA-256 of a group's name."""
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big")
