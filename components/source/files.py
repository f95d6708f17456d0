"""Image files that lie in a store one by one."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from components.source.ahead import ahead, growing
from components.source.example import Example, Piece, Rejected
from components.step import StepError
from components.storage import LeadsOut, NotFound, Store

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
"""Of the images that are read, in small letters."""

LARGEST = 128 * 2**20
"""Bytes of an image file; a larger one is not read."""

BATCH_FILES = 16
"""Read one after another by a thread: a thread for each would cost more than to read them."""
BATCH_BYTES = 2**20


class Wanted(NamedTuple):
    """An image file, or what is known of it to be none."""

    store: Store
    key: str
    name: str
    piece: Piece
    """Has `label`, and where they are given `split` and `group`; or `reason` and `detail` of its rejection."""


def is_image(key: str) -> bool:
    """Whether a file is an image by its name."""
    return key.lower().endswith(SUFFIXES)


def suffix(key: str) -> str:
    """What kinds of files are counted by: `.jpg`; `(none)` where a name has no suffix."""
    _, dot, end = key.rpartition("/")[2].rpartition(".")
    return f".{end.lower()}" if dot else "(none)"


def rejected(reason: str, detail: str) -> dict[str, object]:
    """What a piece says, beside its place, that is known not to be read when it is planned."""
    return {"reason": reason, "detail": detail, "bytes": 0, "version": ""}


def too_large(name: str, size: int) -> Rejected:
    """What becomes of a file that is larger than `LARGEST`."""
    return Rejected(name, "unsupported", f"has {size / 2**20:,.0f} MiB; files up to {LARGEST // 2**20} MiB are read")


def read_files(wanted: Iterable[Wanted]) -> Iterator[Example | Rejected]:
    """The files, in their order, read many at a time."""
    for _, batch in ahead(_read_batch, _batches(wanted), lambda batch: sum(map(_bytes, batch))):
        yield from batch


def _bytes(wanted: Wanted) -> int:
    size: int = wanted.piece["bytes"]
    return size if size <= LARGEST else 0


def _batches(wanted: Iterable[Wanted]) -> Iterator[list[Wanted]]:
    batch: list[Wanted] = []
    size = 0
    lengths = growing(BATCH_FILES)
    most = next(lengths)
    for file in wanted:
        if batch and (size + _bytes(file) > BATCH_BYTES or len(batch) == most):
            yield batch
            batch, size, most = [], 0, next(lengths)
        batch.append(file)
        size += _bytes(file)
    if batch:
        yield batch


def _read_batch(batch: list[Wanted]) -> list[Example | Rejected]:
    return [_read(file) for file in batch]


def _read(file: Wanted) -> Example | Rejected:
    piece = file.piece
    if "reason" in piece:
        return Rejected(file.name, piece["reason"], piece["detail"])
    if piece["bytes"] > LARGEST:
        return too_large(file.name, piece["bytes"])
    try:
        content = file.store.read(file.key, version=piece["version"])
    except NotFound:
        return Rejected(file.name, "changed", "vanished after it was listed")
    except LeadsOut:
        return Rejected(file.name, "changed", "became a link after it was listed")
    except StepError:
        if _is_unchanged(file):
            raise
        return Rejected(file.name, "changed", "was replaced after it was listed")
    return Example(file.name, piece["label"], content, piece.get("split"), piece.get("group"))


def _is_unchanged(file: Wanted) -> bool:
    try:
        return bool(file.store.stat(file.key).version == file.piece["version"])
    except NotFound:
        return False
