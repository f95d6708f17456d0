"""Tar archives, read from front to back without trust: little memory, no seeking, and nothing is ever written.

The standard library's tarfile keeps every member that it saw, believes every size that a header claims, and before
Python 3.11.14 never ended on some (CVE-2025-8194). Source of the format: POSIX.1-2017, pax, "ustar Interchange Format"
and "pax Extended Header"; GNU tar's manual, "Basic Tar Format".
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

RECORD = 512
LARGEST_HEADER = 2**20
"""Bytes of what stands before a member to tell its name."""
LARGEST_NAME = 4096
"""Bytes of a name that is of use; on Linux no path is longer."""

DIGITS = 20
"""Of a number, at most."""
SPARSE = "GNU.sparse."
"""How the keywords of an extended header begin where the member is a sparse file."""

FILE, FOLDER = "file", "folder"
KINDS = {
    b"\0": FILE,
    b"0": FILE,
    b"7": FILE,
    b"1": "hard link",
    b"2": "symbolic link",
    b"3": "device",
    b"4": "device",
    b"5": FOLDER,
    b"6": "pipe",
    b"S": "sparse file",
}


class Damaged(Exception):
    """The archive cannot be read further; says why, after "it"."""

    reason = "undecodable"


class Truncated(Damaged):
    """Its end is missing."""

    reason = "truncated"


class NoEnd(Truncated):
    """Its end mark alone is missing: every member is whole."""


@dataclass(frozen=True)
class Member:
    """A member of an archive; its content is the stream's next bytes."""

    name: bytes
    kind: str
    """A value of KINDS, or "unknown"."""
    size: int


class Tar:
    """An uncompressed archive. Iterating gives its members; `read` the content of the one that came last.

    Both raise Damaged, Truncated or NoEnd.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.left = 0
        """Bytes of the last member's content that were not read."""

    def __iter__(self) -> Iterator[Member]:
        facts: dict[str, bytes] = {}
        while header := self._header():
            kind, size = header[156:157], _number(header[124:136])
            if kind == b"L":
                facts["path"] = self._fact(size).rstrip(b"\0")
            elif kind == b"x":
                facts |= _pax(self._fact(size))
            elif kind in (b"K", b"g"):  # the target of a link; what all members have in common
                self._skip(size + -size % RECORD)
            else:
                member = _member(header, size, facts)
                facts = {}
                self.left = member.size
                yield member
                self._skip(self.left + -member.size % RECORD)

    def read(self) -> bytes:
        """The content of the member that came last."""
        content = self.stream.read(self.left)
        self._require(len(content) == self.left)
        self.left = 0
        return content

    def _header(self) -> bytes | None:
        """The next header; None at the end mark."""
        header = self.stream.read(RECORD)
        if not header:
            raise NoEnd("ends without an end mark")
        if len(header) < RECORD:
            raise Truncated("ends in the middle of a header")
        if header == bytes(RECORD):
            return None
        field = header[148:156]
        if _number(field) != sum(header) - sum(field) + 8 * ord(" "):
            raise Damaged("has a header with a wrong checksum")
        return header

    def _fact(self, size: int) -> bytes:
        if size > LARGEST_HEADER:
            raise Damaged(f"has a name of {size} bytes")
        content = self.stream.read(size)
        self._require(len(content) == size)
        self._skip(-size % RECORD)
        return content

    def _skip(self, size: int) -> None:
        while size:
            skipped = len(self.stream.read(min(size, 2**20)))
            self._require(skipped > 0)
            size -= skipped

    def _require(self, whole: bool) -> None:
        if not whole:
            raise Truncated("ends in the middle of a file")


def _member(header: bytes, size: int, facts: dict[str, bytes]) -> Member:
    name, kind = facts.get("path") or _name(header), KINDS.get(header[156:157], "unknown")
    if "size" in facts:
        size = _decimal(facts["size"])
    if SPARSE in facts:
        kind = "sparse file"
    if header[156:157] == b"\0" and name.endswith(b"/"):  # as archives before POSIX wrote folders
        kind = FOLDER
    # Links and their like have no content, whatever size their headers claim.
    return Member(name, kind, size if kind in (FILE, "sparse file", "unknown") else 0)


def _name(header: bytes) -> bytes:
    name, prefix = (field.partition(b"\0")[0] for field in (header[:100], header[345:500]))
    return prefix + b"/" + name if prefix and header[257:263] == b"ustar\0" else name


def _number(field: bytes) -> int:
    """A number in octal digits, or, as GNU tar writes large ones, in base 256 after a byte 0x80."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    return _decimal(field.strip(b" \0") or b"0", base=8)


def _decimal(digits: bytes, base: int = 10) -> int:
    if len(digits) > DIGITS or not digits.isdigit():
        raise Damaged(f"has {digits[:20]!r} where a number should be")
    try:
        return int(digits, base)
    except ValueError:
        raise Damaged(f"has {digits!r} where a number should be") from None


def _pax(content: bytes) -> dict[str, bytes]:
    """Of the records `length keyword=value` of an extended header those that matter here, and whether any is `SPARSE`.

    The length counts all of a record and a newline.
    """
    facts: dict[str, bytes] = {}
    start = 0
    while start < len(content):
        digits, _, _ = content[start : start + DIGITS + 1].partition(b" ")
        end = start + _decimal(digits)
        keyword, equals, value = content[start + len(digits) + 1 : end].partition(b"=")
        if not equals or end > len(content) or not value.endswith(b"\n"):
            raise Damaged("has an extended header that is damaged")
        if keyword in (b"path", b"size"):
            facts[keyword.decode()] = value[:-1]
        elif keyword.startswith(SPARSE.encode()):
            facts[SPARSE] = b""
        start = end
    return facts
