"""WebDataset: tar archives in which the files of a sample lie one after another and differ only in their endings.

`0017.jpg` with `0017.cls` (the number of its class), `0017.txt` or `0017.json` (its name, there as `{"label": …}`).
Source: the WebDataset format specification; an ending begins at the first dot of a name, its folders left aside.
"""

import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import BinaryIO, cast

from components.source.ahead import open_ahead
from components.source.example import Example, Piece, Rejected, Shape
from components.source.files import LARGEST, SUFFIXES, suffix, too_large
from components.source.split import split_of_path
from components.source.tar import FILE, FOLDER, Damaged, Member, NoEnd, Tar
from components.step import StepError
from components.storage import NotFound, Object, Store

LABELS = ("cls", "txt", "json")
"""The files that tell a sample's class; the first of them counts."""
LARGEST_LABEL = 2**20
"""Bytes."""


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

    def pieces(self) -> Iterator[Piece]:
        for found in [self.store.stat(self.only)] if self.only else self.store.objects("", self.passed_over):
            if not is_archive(found.key):
                self.passed_over[suffix(found.key)] += 1
                continue
            split = split_of_path(found.key)
            self.splits |= {"validation", "test"} & {split}
            place = {"key": found.key, "bytes": found.size, "version": found.version}
            yield place | {"images": None, "split": split}

    def examples(self, pieces: Sequence[Piece]) -> Iterator[Example | Rejected]:
        for piece in pieces:
            yield from self._archive(Object(piece["key"], piece["bytes"], piece["version"]), piece["split"])

    def _archive(self, found: Object, split: str | None) -> Iterator[Example | Rejected]:
        """What an archive holds, as far as it can be read."""
        before = "what comes before that is read"
        try:
            with open_ahead(self.store, found) as file:
                plain = found.key.lower().endswith(".tar")
                yield from _samples(found.key, file if plain else cast(BinaryIO, gzip.GzipFile(fileobj=file)), split)
        except NotFound:
            raise StepError(f"{found.key} in {self.uri} vanished while it was read; run the pipeline again") from None
        except Damaged as error:
            yield Rejected(found.key, error.reason, f"{error}; {before}")
        except EOFError:
            yield Rejected(found.key, "truncated", f"is a gzip file without an end; {before}")
        except (gzip.BadGzipFile, zlib.error) as error:
            yield Rejected(found.key, "undecodable", f"is a damaged gzip file ({error}); {before}")


def _samples(key: str, stream: BinaryIO, split: str | None) -> Iterator[Example | Rejected]:
    """The samples of an archive, and the members that are not safe."""
    archive = Tar(stream)
    sample = _Sample("")
    try:
        for member in archive:
            name = member.name.decode("utf-8", "backslashreplace")
            folders, _, base = name.rpartition("/")
            if fault := _fault(member):
                yield Rejected(f"{key}/{name}", "unsafe name", fault)
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

    def result(self, split: str | None) -> Iterator[Example | Rejected]:
        """The example; nothing where the files are none of a sample."""
        if not self.images and not self.labels:
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
    except (ValueError, RecursionError, KeyError, TypeError, IndexError):
        pass
    if not isinstance(label, str | int) or isinstance(label, bool) or label == "":
        return "", f"has a .{ending} that tells no class"
    return str(label), ""
