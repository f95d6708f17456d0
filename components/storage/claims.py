"""Compare and swap on a store whose conditional PUT cannot be trusted; plain PUT, GET and LIST are enough.

The values that a key has had are numbered: its generations. Which writer's value becomes a generation is settled by
single-disk Paxos (Gafni and Lamport, "Disk Paxos", 2003): every writer announces a ballot, looks whether anybody has
announced a higher one, then accepts a value - the one that was accepted in the highest ballot it saw, or its own - and
looks again. Whoever saw no higher ballot has decided; whoever comes later cannot overlook what was accepted, and adopts
it. What was decided never changes, no matter who dies, sleeps or is delayed, and everybody can finish it.

It needs a store that is strongly consistent: what a PUT has stored, every later GET and LIST shows. AWS, MinIO, Ceph
and SeaweedFS are; a cache between is not. A swap takes about ten requests, and what it writes is never removed.

    00000001/content/<writer>                  what each writer wants the key to be
    00000001/ballots/000001-<writer>           a ballot is announced
    00000001/ballots/000001-<writer>-<winner>  a value is accepted in it
    00000001/decided/<winner>                  the content that won
"""

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from uuid import uuid4

from components.step import StepError

ROUNDS = 14
"""Of one writer for one generation. Many writers at once make each other start again."""

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0
"""Seconds before another round, at most; until one is long enough for some writer to be alone."""


@dataclass(frozen=True)
class Room:
    """Where the generations of one key are kept."""

    put: Callable[[str, bytes], None]
    get: Callable[[str], bytes]
    names: Callable[[str], Iterable[str]]
    """Every name that starts with a prefix."""


@dataclass(frozen=True)
class Ballots:
    """What a writer sees of a generation."""

    highest: tuple[int, str]
    """The highest ballot that is announced: a number and the writer."""
    accepted: str
    """The writer whose value was accepted in the highest ballot that has any."""
    decided: str
    """The winner."""


def latest(room: Room) -> tuple[int, bytes | None]:
    """The number of the last generation, and what the key is since then; 0 and None before the first."""
    last = max((name for name in room.names("") if "/decided/" in name), default=None)
    return (int(last.split("/")[0]), room.get(last)) if last else (0, None)


def swap(room: Room, first: bytes | None, old: bytes | None, new: bytes) -> bool:
    """Makes `new` the next generation if the last is `old`. Before the first generation the key is `first`.

    Raises StepError where other writers were faster all the time.
    """
    generation, current = latest(room)
    if (current if generation else first) != old:
        return False
    folder, writer = f"{generation + 1:08}/", uuid4().hex
    room.put(f"{folder}content/{writer}", new)
    winner = _decide(room, folder, writer)
    room.put(f"{folder}decided/{winner}", room.get(f"{folder}content/{winner}"))
    return winner == writer


def _decide(room: Room, folder: str, writer: str) -> str:
    """The winner of a generation."""
    number = 1
    for failures in range(ROUNDS):
        room.put(f"{folder}ballots/{number:06}-{writer}", b"")
        seen = _look(room, folder)
        if seen.highest == (number, writer) and not seen.decided:
            winner = seen.accepted or writer
            room.put(f"{folder}ballots/{number:06}-{writer}-{winner}", b"")
            seen = _look(room, folder)
            if seen.highest == (number, writer):
                return winner
        if seen.decided:
            return seen.decided
        number = seen.highest[0] + 1
        time.sleep(random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**failures)))
    raise StepError("too many runs write to the store at once; run again")


def _look(room: Room, folder: str) -> Ballots:
    highest, accepted, winner, decided = (0, ""), (0, ""), "", ""
    for name in room.names(folder):
        kind, _, rest = name.removeprefix(folder).partition("/")
        if kind == "decided":
            decided = rest
        elif kind == "ballots":
            number, writer, *value = rest.split("-")
            highest = max(highest, (int(number), writer))
            if value and (int(number), writer) > accepted:
                accepted, winner = (int(number), writer), value[0]
    return Ballots(highest, winner, decided)
