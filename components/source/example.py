"""What a source gives, whatever its layout."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Piece = Mapping[str, Any]
"""The smallest part of a source that is read by itself, as JSON: a file, a row group, a row of a table, an archive.

Every piece has `bytes` (about how many are read for it) and the `version` of the object behind it, by which a change
between planning and reading is noticed. `images` says how many it holds unless it is one, None where nobody knows. The
rest is the layout's own.
"""


Shape = tuple[int, int, int]
"""Height, width and channels."""


@dataclass(frozen=True, slots=True)
class Example:
    """A labelled image as it came."""

    name: str
    """Unique in the source: a key, `archive.tar/member.jpg`, `table.parquet#17`; what reports call the image."""
    label: str
    """The name of its class."""
    content: bytes
    """The image file; in a raw source its pixels, uint8 [H, W, C]."""
    split: str | None = None
    """One of SPLITS where the source says so."""
    group: str | None = None
    """What must not be torn apart by the splits: a patient, a video, a shop."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """An entry of the source that is no example; it goes into quarantine."""

    name: str
    reason: str
    """One of quarantine.REASONS."""
    detail: str
    """A sentence for people."""
    content: bytes = b""
    entries: int = 1
    """How many of the source's it stands for, about: the rest of a damaged archive or row group goes with it."""


class Source(Protocol):
    """A recognised layout."""

    kind: str
    """"tree", "table", "parquet", "webdataset" or "idx"."""
    uri: str
    """Absolute where it is a path."""
    by_file: bool
    """Whether every piece is an image in a file of its own, so that pieces cost the same in any order."""
    shape: Shape | None
    """Where the images are raw pixels; None where they are image files."""
    splits: frozenset[str]
    """Which of `validation` and `test` the source gives itself; they are known when `pieces` has come to its end.

    The others are cut from what it calls `train` or does not assign.
    """
    passed_over: Counter[str]
    """The files that `pieces` came across and that are no part of the layout, by suffix; links as storage.LINK,
    others as storage.NO_KEY."""

    def pieces(self) -> Iterator[Piece]:
        """Every piece, streamed, in an order that depends on the source alone."""

    def examples(self, pieces: Sequence[Piece]) -> Iterator[Example | Rejected]:
        """What these pieces hold, in their order, read ahead.

        Raises StepError where the store fails, or where a file changed that holds many images; a file that is one image
        is rejected as changed.
        """
