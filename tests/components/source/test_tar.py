"""Tar archives, read without trust."""

import io
import tarfile
import time
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.source.tar import Damaged, NoEnd, Tar, Truncated, _pax
from tests.components.source.archives import special, tar, tar_of

FILES = {"a/1.jpg": b"x" * 1000, "a/1.cls": b"3", "empty": b""}
LONG = "/".join(["a folder with quite a name"] * 20) + "/é.jpg"


def read(content: bytes) -> list[tuple[str, bytes]]:
    archive = Tar(io.BytesIO(content))
    return [(member.name.decode("utf-8", "replace"), archive.read()) for member in archive]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_format_is_read(format: int) -> None:
    assert read(tar(FILES, format=format)) == list(FILES.items())


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_are_read(format: int) -> None:
    assert read(tar({LONG: b"1", "short": b"2"}, format=format)) == [(LONG, b"1"), ("short", b"2")]


def test_a_name_may_be_in_two_parts() -> None:
    name = "f" * 90 + "/" + "g" * 90
    assert read(tar({name: b"1"}, format=tarfile.USTAR_FORMAT)) == [(name, b"1")]


def test_what_is_not_asked_for_is_passed_over() -> None:
    assert [member.name for member in Tar(io.BytesIO(tar(FILES)))] == [name.encode() for name in FILES]


def test_members_that_are_no_files_are_called_what_they_are() -> None:
    members = (
        special("folder/", tarfile.DIRTYPE),
        special("link", tarfile.SYMTYPE, "/etc/passwd"),
        special("hard", tarfile.LNKTYPE, "x" * 200),
        special("device", tarfile.CHRTYPE),
        special("pipe", tarfile.FIFOTYPE),
    )
    assert [(member.kind, member.size) for member in Tar(io.BytesIO(tar_of(*members)))] == [
        ("folder", 0),
        ("symbolic link", 0),
        ("hard link", 0),
        ("device", 0),
        ("pipe", 0),
    ]


@pytest.mark.parametrize("length", [700, 512 + 1000, 2047, 2600])
def test_an_archive_that_ends_too_early_is_said_so(length: int) -> None:
    with pytest.raises(Truncated):
        read(tar(FILES)[:length])


def test_an_archive_without_an_end_mark_gives_all_of_its_members_first() -> None:
    members = iter(Tar(io.BytesIO(tar(FILES)[: 512 * 6])))
    assert [next(members).name.decode() for _ in FILES] == list(FILES)
    with pytest.raises(NoEnd):
        next(members)


@pytest.mark.parametrize("place", [0, 124, 148, 156, 300])
def test_a_damaged_header_is_noticed(place: int) -> None:
    content = bytearray(tar(FILES))
    content[place] ^= 0x15
    with pytest.raises(Damaged, match=r"checksum|number"):
        read(bytes(content))


def test_something_else_is_no_archive() -> None:
    with pytest.raises(Damaged):
        read(b"<html>please log in</html>" * 100)


def header(name: bytes = b"name", size: bytes = b"0" * 11, kind: bytes = b"0") -> bytes:
    """A header with these fields and the right checksum."""
    fields = name.ljust(100, b"\0") + bytes(24) + size.ljust(12, b"\0") + bytes(12) + b" " * 8 + kind
    block = fields.ljust(512, b"\0")
    return block[:148] + f"{sum(block):06o}\0 ".encode() + block[156:]


@pytest.mark.parametrize("size", [b"\xff" * 12, b"-0000000001", b"99999999999", b"12 34", b"1_000"])
def test_a_size_that_is_none_is_refused(size: bytes) -> None:
    with pytest.raises(Damaged, match="where a number should be"):
        read(header(size=size))


def test_a_size_that_no_archive_has_costs_no_memory() -> None:
    archive = Tar(io.BytesIO(header(size=b"\x80" + b"\x7f" * 11) + b"few bytes"))
    with pytest.raises(Truncated):
        list(archive)


@pytest.mark.parametrize("kind", [b"L", b"x"])
def test_a_header_of_a_gigabyte_is_refused(kind: bytes) -> None:
    with pytest.raises(Damaged, match="has a name of 1073741824 bytes"):
        read(header(size=b"10000000000", kind=kind))


@pytest.mark.parametrize("record", [b"9 path=a", b"99 path=a\n", b"x path=a\n", b"10 path:ab\n", b"0 path=a\n", b"\n"])
def test_a_damaged_extended_header_is_refused(record: bytes) -> None:
    with pytest.raises(Damaged):
        read(header(size=f"{len(record):011o}".encode(), kind=b"x") + record.ljust(512, b"\0") + tar(FILES))


def test_of_an_extended_header_nothing_is_kept_but_what_matters() -> None:
    records = b"5 a=\n" * 200_000 + b"11 path=abc\n"[:0]
    records += b"12 path=abc\n"
    block = records.ljust(-(-len(records) // 512) * 512, b"\0")
    start = time.process_time()
    assert _pax(records) == {"path": b"abc"}
    assert time.process_time() - start < 2  # half a minute where each record copies those behind it
    assert [name for name, _ in read(header(size=f"{len(records):011o}".encode(), kind=b"x") + block + tar(FILES))] == [
        "abc",
        *list(FILES)[1:],
    ]


@given(st.binary(max_size=3000))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    with suppress(Damaged):
        read(content)


@settings(max_examples=100)
@given(st.data())
def test_an_archive_with_any_bytes_changed_is_read_or_refused(data: st.DataObject) -> None:
    content = bytearray(tar(FILES | {LONG: b"1"}))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    start = len(content) // 512 and data.draw(st.integers(0, 6)) * 512
    # The right checksum, so that what is behind it is tried, too.
    block = bytes(content[start : start + 148]) + b" " * 8 + bytes(content[start + 156 : start + 512])
    content[start + 148 : start + 156] = f"{sum(block):06o}\0 ".encode()
    with suppress(Damaged):
        read(bytes(content))
