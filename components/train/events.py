"""TensorBoard's event files in a store, whose objects cannot be appended to.

What was gathered since the last file becomes a file of its own and never changes: TensorBoard reads the files of a
folder as one. Its fast loader holds open what it has read, and does not see a longer file that takes the place of
another (tried with tensorboard 2.21).
"""

import re
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import NamedTuple

from components.storage import Store

NAME = "events.out.tfevents"


class Scalars(NamedTuple):
    """Values by tag, such as `train/loss`, after `step` batches."""

    step: int
    values: Mapping[str, float]
    time: float
    """In seconds since 1970."""


class Events:
    """The event files in one folder of a store; `folder/events.out.tfevents.000001.retrain` is the first."""

    def __init__(self, store: Store, folder: str) -> None:
        self.store, self.folder, self.files = store, folder, 0
        self._waiting: list[bytes] = []

    def resume(self, step: int, kept: Callable[[Scalars], bool]) -> list[Scalars]:
        """Takes up what earlier processes have left: returns what is `kept` of it, and removes the rest from the files.

        `step` is the last that counts. A file that is damaged counts up to where it is.
        """
        found: list[Scalars] = []
        ours = re.compile(rf"{re.escape(self.folder)}/{re.escape(NAME)}\.(\d+)\.retrain")
        for match in filter(None, map(ours.fullmatch, list(self.store.keys(self.folder)))):
            key, self.files = match[0], int(match[1])
            before = list(scalars(self.store.read(key)))
            after = list(filter(kept, before))
            if after != before:
                self.store.write(key, file(map(_event, after)))
            found += after
        # By which a TensorBoard that has read the rest already forgets it. Of the first such event it only takes note.
        self._waiting.append(_start(step + 1))
        return found

    def add(self, new: Scalars) -> None:
        """Keeps values for the next file."""
        self._waiting.append(_event(new))

    def put(self) -> None:
        """Writes what was added since the last file to the store as a file; where that fails, the next has it."""
        if count := len(self._waiting):
            self.store.write(f"{self.folder}/{NAME}.{self.files + 1:06}.retrain", file(self._waiting[:count]))
            self.files += 1
            del self._waiting[:count]


def file(events: Iterable[bytes]) -> bytes:
    """An event file of serialized events."""
    from tensorboard.compat.proto.event_pb2 import Event

    version = Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString()
    return b"".join(map(record, [version, *events]))


def scalars(content: bytes) -> Iterator[Scalars]:
    """The values in an event file, up to where it ends or is damaged."""
    from tensorboard.compat.proto.event_pb2 import Event

    for data in records(content):
        event = Event.FromString(data)
        if event.HasField("summary"):
            yield Scalars(event.step, {one.tag: one.simple_value for one in event.summary.value}, event.wall_time)


def _event(found: Scalars) -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event

    event = Event(step=found.step, wall_time=found.time)
    for tag, value in found.values.items():
        event.summary.value.add(tag=tag, simple_value=value)
    return bytes(event.SerializeToString())


def _start(step: int) -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    log = SessionLog(status=SessionLog.START)
    return bytes(Event(step=step, wall_time=time.time(), session_log=log).SerializeToString())


def record(data: bytes) -> bytes:
    """A record of the TFRecord format: length, its checksum, data, its checksum.

    Written here, because tensorboard's own writer brings 350 modules, and takes a third of a second to import.
    Source: tensorflow.org/tutorials/load_data/tfrecord, 'TFRecords format details'.
    """
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))


def records(content: bytes) -> Iterator[bytes]:
    """The data of the records in a file, up to where it ends or is damaged."""
    start = 0
    while start + 12 <= len(content):
        length, checksum = struct.unpack_from("<QI", content, start)
        end = start + 12 + length
        if checksum != masked_crc32c(content[start : start + 8]) or end + 4 > len(content):
            return
        data = content[start + 12 : end]
        if struct.unpack_from("<I", content, end)[0] != masked_crc32c(data):
            return
        yield data
        start = end + 4


def masked_crc32c(data: bytes) -> int:
    """The checksum of the TFRecord format: CRC-32C (RFC 3720, B.4), rotated and shifted."""
    table, crc = _table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@cache
def _table() -> list[int]:
    """CRC-32C of every byte; the polynomial is Castagnoli's, its bits reversed."""
    table = []
    for crc in range(256):
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table
