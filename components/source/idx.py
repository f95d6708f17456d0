"""The IDX format of MNIST: a magic number, the sizes of the dimensions, then the values.

The magic number is two zero bytes, the type of the values (0x08: unsigned bytes) and the number of dimensions; each
size is a big-endian 32-bit number. Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits".
"""

import gzip
import math
import re
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast

from components.source.example import Example, Piece, Shape
from components.step import StepError, UserError
from components.storage import NotFound, Object, Store

UNSIGNED_BYTES = 0x08

DIMENSIONS = {"train-images": (3, 4), "train-labels": (1,), "t10k-images": (3, 4), "t10k-labels": (1,)}
"""The four files of a folder, and how many dimensions they may have: an image is [H, W] or [H, W, C]."""

NAME = re.compile(r"(train|t10k)-(images|labels)[-.]idx\d-ubyte(\.gz)?")
"""`train-images-idx3-ubyte`, also as `train-images.idx3-ubyte`, also with `.gz`."""

SPLITS = {"train": "train", "t10k": "test"}
"""By the first word of the files' names."""

PIECE_BYTES = 8 * 2**20
"""Of a piece, about, and what is read at once."""

LARGEST = 256 * 2**20
"""Bytes of an image; a header that claims more is not believed."""


@dataclass(frozen=True)
class File:
    """An IDX file, of which nothing but the header has been read."""

    object: Object
    name: str
    """For people."""
    shape: tuple[int, ...]

    @property
    def key(self) -> str:
        return self.object.key

    @property
    def gzipped(self) -> bool:
        return self.key.endswith(".gz")

    @property
    def start(self) -> int:
        """Where the values begin, in bytes of the uncompressed file."""
        return 4 + 4 * len(self.shape)

    @property
    def value_bytes(self) -> int:
        """Of one image, or one label."""
        return math.prod(self.shape[1:])


class Idx:
    """A folder of four IDX files that are named like MNIST's, plain or gzipped; the source gives its own test split."""

    kind = "idx"
    by_file = False
    splits: frozenset[str] = frozenset({"test"})

    def __init__(self, store: Store, hashes: Mapping[str, str] | None = None, uri: str = "") -> None:
        """`hashes` are the SHA-256 of the files by name where they are known: then nothing else tells a version.

        `uri` is the source's, unless that is the store's.

        Raises UserError, which names the file, what it holds and what it should, when one is missing, damaged or unfit.
        """
        self.store, self.hashes = store, hashes
        self.uri = uri or store.uri
        self.passed_over: Counter[str] = Counter()
        found = find(store)
        self.files = {stem: self._file(found, stem) for stem in DIMENSIONS}
        shapes = [check_pair(self.files[f"{part}-images"], self.files[f"{part}-labels"]) for part in SPLITS]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"{self.uri} has training and test images of different shapes, {by(shapes[0])} and {by(shapes[1])}; "
                "they must be the same"
            )
        self.shape: Shape | None = shapes[0]

    def _file(self, found: Mapping[str, Object], stem: str) -> File:
        if stem not in found:
            name = f"{stem}-idx{DIMENSIONS[stem][0]}-ubyte"
            raise UserError(
                f"source {self.uri!r} lacks {name} (plain or .gz); a folder of IDX files has four, named like MNIST's"
            )
        name = f"{self.store.uri}/{found[stem].key}"
        with self._open(found[stem], name) as stream:
            shape = read_shape(name, stream.read(4 + 4 * 4), DIMENSIONS[stem])
        file = File(found[stem], name, shape)
        if not file.gzipped:
            check_length(name, file.object.size, file)
        return file

    def _version(self, file: Object) -> str:
        return self.hashes[file.key] if self.hashes else file.version

    @contextmanager
    def _open(self, file: Object, name: str) -> Iterator[BinaryIO]:
        """The bytes of a file, uncompressed where its name ends in .gz."""
        try:
            with self.store.open(file.key, None if self.hashes else file.version) as stream:
                yield cast(BinaryIO, gzip.GzipFile(fileobj=stream)) if file.key.endswith(".gz") else stream
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise UserError(f"{name} is a damaged gzip file ({error}); get it anew") from None
        except NotFound:
            raise StepError(f"{name} vanished while it was read; run again when nobody writes there") from None

    def pieces(self) -> Iterator[Piece]:
        """Runs of images; a gzipped file is one, since it can only be read from its beginning."""
        for part in SPLITS:
            images = self.files[f"{part}-images"]
            count = images.shape[0]
            size = count if images.gzipped else max(1, PIECE_BYTES // images.value_bytes)
            for start in range(0, count, size):
                held = min(size, count - start)
                version = f"{self._version(images.object)} {self._version(self.files[f'{part}-labels'].object)}"
                yield {
                    "part": part,
                    "start": start,
                    "images": held,
                    "bytes": held * (images.value_bytes + 1),
                    "version": version,
                }

    def examples(self, pieces: Sequence[Piece]) -> Iterator[Example]:
        """The images of these pieces. Raises StepError where a file changed, UserError where it is damaged."""
        for piece in pieces:
            images, labels = (self.files[f"{piece['part']}-{what}"] for what in ("images", "labels"))
            if piece["version"] != f"{self._version(images.object)} {self._version(labels.object)}":
                raise StepError(f"{images.name} or its labels changed after they were listed; run the pipeline again")
            pairs = zip(self._values(images, piece), self._values(labels, piece), strict=True)
            for number, (content, label) in enumerate(pairs, start=piece["start"]):
                yield Example(f"{images.key}#{number}", str(label[0]), content, SPLITS[piece["part"]])

    def _values(self, file: File, piece: Piece) -> Iterator[bytes]:
        """A run of images or labels; a gzipped file is checked to its end."""
        at_once = max(1, PIECE_BYTES // file.value_bytes)
        with self._open(file.object, file.name) as stream:
            stream.seek(file.start + piece["start"] * file.value_bytes)
            for done in range(0, piece["images"], at_once):
                size = min(at_once, piece["images"] - done) * file.value_bytes
                block = stream.read(size)
                if len(block) < size:
                    check_length(file.name, stream.tell(), file)
                yield from (block[start : start + file.value_bytes] for start in range(0, size, file.value_bytes))
            if file.gzipped and stream.read(1):
                check_length(file.name, stream.tell() + len(stream.read(PIECE_BYTES)), file)


def find(store: Store) -> dict[str, Object]:
    """The IDX files at the top of the store by stem, such as `train-images`; the plain one where both are there."""
    found: dict[str, Object] = {}
    for file in store.objects("t"):
        if match := NAME.fullmatch(file.key):
            found.setdefault(f"{match[1]}-{match[2]}", file)
    return found


def check_pair(images: File, labels: File) -> Shape:
    """Height, width and channels of the images; raises UserError when they do not fit their labels."""
    count, height, width, *channels = images.shape
    if count != labels.shape[0]:
        raise UserError(f"{images.name} has {count} images, but {labels.name} has {labels.shape[0]} labels")
    if channels and channels[0] not in (1, 3):
        raise UserError(f"{images.name} has images with {channels[0]} channels; they must have 1 or 3")
    if images.value_bytes > LARGEST:
        raise UserError(f"{images.name} claims images of {by(images.shape[1:])} bytes; up to {LARGEST} are read")
    return height, width, channels[0] if channels else 1


def check_length(name: str, length: int, file: File) -> None:
    """Raises UserError unless a file has exactly the bytes that its header says."""
    expected = file.start + math.prod(file.shape)
    if length != expected:
        state = "truncated" if length < expected else "too long"
        raise UserError(f"{name} is {state}: it has {length} bytes, not the {expected} of {by(file.shape)} values")


def read_shape(name: str, content: bytes, dimensions: tuple[int, ...]) -> tuple[int, ...]:
    """The sizes in the header of an IDX file."""
    magics = [bytes((0, 0, UNSIGNED_BYTES, count)) for count in dimensions]
    if content[:4] not in magics:
        wanted = " or ".join(magic.hex() for magic in magics)
        raise UserError(f"{name} has the magic number {content[:4].hex() or 'nothing'}, not {wanted}")
    count = content[3]
    if len(content) < 4 + 4 * count:
        raise UserError(f"{name} is truncated: it has {len(content)} bytes, its header alone {4 + 4 * count}")
    shape = struct.unpack_from(f">{count}I", content, 4)
    if 0 in shape:
        raise UserError(f"{name} is empty: it has {by(shape)} values")
    return shape


def by(shape: Sequence[int]) -> str:
    """A shape as people write it: 28x28x1."""
    return "x".join(map(str, shape))
