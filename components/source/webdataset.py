"""WebDataset: tar archives in which the files of a sample lie one after another and differ only in their endings.

`0017.jpg` with `0017.cls` (the number of its class), `0017.txt` or `0017.json` (its name, there as `{"label": …}`).
Source: the WebDataset format specification; an ending begins at the first dot of a name, its folders left aside.
"""

import gzip
import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import islice
from typing import BinaryIO, cast

from components.source.ahead import open_ahead
from components.source.example import Example, Piece, Rejected, Shape
from components.source.files import LARGEST, SUFFIXES, suffix, too_large
from components.source.split import split_of_path
from components.source.tar import FILE, FOLDER, LARGEST_NAME, Damaged, Member, NoEnd, Tar
from components.step import StepError
from components.storage import NotFound, Object, Store

LABELS = ("cls", "txt", "json")
"""The files that tell a sample's class; the first of them counts."""
LARGEST_LABEL = 2**20
"""Bytes."""

DAMAGES = (Damaged, EOFError, gzip.BadGzipFile, zlib.error)
"""What ends the reading of an archive."""
SHOWN = 100
"""Letters of a name that is too long."""
LOOKED_AT = 100
"""Samples that tell how much of an archive a sample takes."""


def is_archive(key: str) -> bool:
    """Whether a file is a tar archive by its name."""
    return key.lower().endswith((".tar", ".tar.gz", ".tgz"))


class WebDataset:
    """A folder of archives, or one of them; each is a piece, and of the split that its path says."""

    kind = "webdataset"
    by_file = False
    shape: Shape | None = None

    def __init__(self, store: Store, only: str = "") -> None:
        self.store, self.only = store, only
        self.uri = f"{store.uri}/{only}" if only else store.uri
        self.splits: frozenset[str] = frozenset()
        self.passed_over: Counter[str] = Counter()

    def _archives(self, passed_over: Counter[str]) -> Iterator[Object]:
        for found in [self.store.stat(self.only)] if self.only else self.store.objects("", passed_over):
            if is_archive(found.key):
                yield found
            else:
                passed_over[suffix(found.key)] += 1

    def pieces(self) -> Iterator[Piece]:
        for found in self._archives(self.passed_over):
            split = split_of_path(found.key)
            self.splits |= {"validation", "test"} & {split}
            place = {"key": found.key, "bytes": found.size, "version": found.version}
            yield place | {"images": None, "split": split}

    def examples(self, pieces: Sequence[Piece]) -> Iterator[Example | Rejected]:
        for piece in pieces:
            yield from self._archive(Object(piece["key"], piece["bytes"], piece["version"]), piece["split"])

    def _archive(self, found: Object, split: str | None) -> Iterator[Example | Rejected]:
        """What an archive holds, as far as it can be read."""
        samples = 0
        try:
            with open_ahead(self.store, found) as file:
                try:
                    for entry in _samples(found.key, file, split):
                        samples += 1
                        yield entry
                except DAMAGES as error:
                    missing = self._missing(found, error, samples, file.tell())
                    more = f", and about {missing:,} images are missing" if missing > 1 else ""
                    reason, detail = _damage(error)
                    yield Rejected(found.key, reason, f"{detail}; what comes before that is read{more}", b"", missing)
        except NotFound:
            raise StepError(f"{found.key} in {self.uri} vanished while it was read; run the pipeline again") from None

    # What a damaged archive held

    def _missing(self, found: Object, error: Exception, samples: int, place: int) -> int:
        """About how many samples were lost in an archive of which so many were read up to a place; 1 at least.

        How large it was before it was cut off nobody knows: as large as the largest, or twice as large as it is now.
        """
        size = found.size
        if _damage(error)[0] == "truncated":
            size = max(size, self._largest)
            if size == found.size and not isinstance(error, NoEnd):
                size *= 2
        each = place / samples if samples else self._bytes_each
        return max(1, round((size - place) / each))

    @cached_property
    def _largest(self) -> int:
        """Bytes of the source's largest archive."""
        return max((found.size for found in self._archives(Counter())), default=0)

    @cached_property
    def _bytes_each(self) -> float:
        """How much of an archive a sample takes, by the beginning of the first archive that can be read."""
        for found in self._archives(Counter()):
            samples = 0
            with open_ahead(self.store, found) as file:
                with suppress(*DAMAGES):
                    for _ in islice(_samples(found.key, file, None), LOOKED_AT):
                        samples += 1
                if samples:
                    return file.tell() / samples
        return math.inf


def _damage(error: Exception) -> tuple[str, str]:
    """The reason and the detail of what ended the reading of an archive."""
    if isinstance(error, Damaged):
        return error.reason, str(error)
    if isinstance(error, EOFError):
        return "truncated", "is a gzip file without an end"
    return "undecodable", f"is a damaged gzip file ({error})"


def _samples(key: str, file: BinaryIO, split: str | None) -> Iterator[Example | Rejected]:
    """The samples of an archive, and the members that are not safe. Raises one of `DAMAGES`."""
    archive = Tar(file if key.lower().endswith(".tar") else cast(BinaryIO, gzip.GzipFile(fileobj=file)))
    sample = _Sample("")
    try:
        for member in archive:
            name = member.name.decode("utf-8", "backslashreplace")
            folders, _, base = name.rpartition("/")
            if fault := _fault(member):
                shown = name if len(name) <= LARGEST_NAME else f"{name[:SHOWN]}…"
                reason = "unsafe name" if member.kind in (FILE, FOLDER) else "unsupported"
                yield Rejected(f"{key}/{shown}", reason, fault)
            elif member.kind == FILE and base and not base.startswith("."):
                stem, _, ending = base.partition(".")
                if sample.stem != f"{folders}/{stem}":
                    yield from sample.result(split)
                    sample = _Sample(f"{folders}/{stem}")
                sample.take(f"{key}/{name}", ending.lower(), archive, member.size)
    except NoEnd:
        yield from sample.result(split)
        raise
    yield from sample.result(split)


def _fault(member: Member) -> str:
    """Why a member is not to be read, if it is not."""
    if member.kind not in (FILE, FOLDER):
        return f"is a {member.kind}; only plain files are read"
    try:
        name = member.name.decode()
    except UnicodeDecodeError:
        return "has a name that is not UTF-8"
    if len(member.name) > LARGEST_NAME:
        return f"has a name of {len(member.name):,} bytes; up to {LARGEST_NAME:,} are read"
    if name.startswith("/") or ".." in name.split("/") or "\0" in name:
        return "has a name that leads out of the archive"
    return ""


class _Sample:
    """Files of one stem, of which only the first image and what tells the label are read."""

    def __init__(self, stem: str) -> None:
        self.stem = stem
        self.name = ""
        """Of the image, or of its first file where there is none."""
        self.images: list[bytes | Rejected] = []
        self.labels: dict[str, bytes] = {}
        self.others: list[tuple[str, str]] = []
        """Name and ending of images whose ending is longer than theirs, such as seg.png: of a dotted stem, maybe."""

    def take(self, name: str, ending: str, archive: Tar, size: int) -> None:
        if f".{ending}" in SUFFIXES:
            if not self.images:
                self.name = name
                self.images.append(too_large(name, size) if size > LARGEST else archive.read())
            else:
                self.images.append(b"")
        elif ending in LABELS and size <= LARGEST_LABEL:
            self.name = self.name or name
            self.labels[ending] = archive.read()
        elif f".{ending.rpartition('.')[2]}" in SUFFIXES:
            self.others.append((name, ending))

    def result(self, split: str | None) -> Iterator[Example | Rejected]:
        """The example; nothing where the files are none of a sample."""
        if not self.images and not self.labels:
            for name, ending in self.others:
                detail = f"has the ending .{ending}, which begins at the first dot; its name may have no other dot"
                yield Rejected(name, "unsupported", detail)
            return
        if len(self.images) != 1:
            number = len(self.images) or "no"
            yield Rejected(self.name, "unsupported", f"belongs to a sample with {number} images; it must have one")
            return
        image = self.images[0]
        label, fault = _label(self.labels)
        if isinstance(image, Rejected):
            yield image
        elif fault:
            yield Rejected(self.name, "no label", fault, image)
        else:
            yield Example(self.name, label, image, split)


def _label(files: dict[str, bytes]) -> tuple[str, str]:
    """The name of a sample's class, or what is wrong with it."""
    ending = next((ending for ending in LABELS if ending in files), "")
    if not ending:
        return "", "has neither .cls nor .txt nor .json beside it"
    label: object = None
    try:
        text = files[ending].decode().strip()
        if ending == "cls":
            label = int(text) if re.fullmatch("-?[0-9]{1,18}", text) else None
        else:
            label = text if ending == "txt" else json.loads(text)["label"]
        str(label).encode()  # JSON may hold half of a letter, of which no UTF-8 can be made
    except (ValueError, RecursionError, KeyError, TypeError, IndexError):
        label = None
    if not isinstance(label, str | int) or isinstance(label, bool) or label == "":
        return "", f"has a .{ending} that tells no class"
    return str(label), ""
