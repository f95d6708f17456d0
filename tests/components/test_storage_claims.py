"""Claims among many writers, in every order that chance gives, and with writers who die on the way."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import pytest

from components.step import StepError
from components.storage import claims
from components.storage.claims import Room, latest, swap


class Killed(BaseException):
    """What a writer dies of."""


class Memory:
    """A strongly consistent store in which writers take turns at random, and die after so many requests."""

    def __init__(self, seed: int, writers: int) -> None:
        self.random = random.Random(seed)
        self.objects: dict[str, bytes] = {}
        self.turn = threading.Condition()
        self.waiting: set[int] = set()
        self.alive = set(range(writers))

    def room(self, writer: int, requests: float) -> Room:
        """The store as one writer sees it."""
        left = requests

        def wait() -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            self.take_turn(writer)

        def put(name: str, content: bytes) -> None:
            wait()
            self.objects[name] = content

        def get(name: str) -> bytes:
            wait()
            return self.objects[name]

        def names(start: str) -> list[str]:
            wait()
            return [name for name in self.objects if name.startswith(start)]

        return Room(put, get, names)

    def take_turn(self, writer: int) -> None:
        """Waits until all who live wait, and this one is drawn."""
        with self.turn:
            self.waiting.add(writer)
            self.draw()
            self.turn.wait_for(lambda: writer not in self.waiting)

    def leave(self, writer: int) -> None:
        with self.turn:
            self.alive.discard(writer)
            self.draw()

    def draw(self) -> None:
        if self.waiting and self.waiting == self.alive:
            self.waiting.discard(self.random.choice(sorted(self.waiting)))
            self.turn.notify_all()


def race(seed: int, requests: list[float]) -> tuple[list[int], bytes]:
    """Who won of as many writers, each of whom dies after so many requests, and what the key became."""
    memory = Memory(seed, len(requests))
    won: list[int] = []

    def write(writer: int) -> None:
        try:
            if swap(memory.room(writer, requests[writer]), None, None, b"%d" % writer):
                won.append(writer)
        except (Killed, StepError):
            pass
        finally:
            memory.leave(writer)

    with ThreadPoolExecutor(len(requests)) as writers:
        list(writers.map(write, range(len(requests))))
    memory.alive = {0}
    swap(memory.room(0, float("inf")), None, None, b"late")
    return won, latest(memory.room(0, float("inf")))[1] or b""


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "FIRST_PAUSE", 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("writers", [2, 3, 4])
def test_of_all_writers_at_most_one_wins_in_any_order(writers: int) -> None:
    for seed in range(60):
        won, content = race(seed, [float("inf")] * writers)
        assert len(won) <= 1
        assert not won or content == b"%d" % won[0]


def test_a_writer_that_dies_at_any_moment_blocks_nobody_and_undoes_nothing() -> None:
    for seed in range(120):
        won, content = race(seed, [seed % 11, float("inf"), 20])
        assert len(won) <= 1
        assert not won or content == b"%d" % won[0]
        assert content in (b"0", b"1", b"2", b"late")


def test_a_writer_that_is_alone_wins_with_ten_requests() -> None:
    won, content = race(0, [10])
    assert (won, content) == ([0], b"0")


def test_generations_follow_each_other() -> None:
    memory = Memory(0, 1)
    room = memory.room(0, float("inf"))
    assert not swap(room, b"first", None, b"other")
    assert swap(room, b"first", b"first", b"second")
    assert not swap(room, b"first", b"first", b"other")
    assert swap(room, b"first", b"second", b"first")
    assert latest(room) == (2, b"first")


def test_a_store_that_does_not_show_what_was_written_gives_up() -> None:
    def lose(name: str, content: bytes) -> None:
        pass

    def missing(name: str) -> NoReturn:
        raise KeyError(name)

    with pytest.raises(StepError, match="too many runs write to the store at once"):
        swap(Room(lose, missing, lambda start: []), None, None, b"new")
