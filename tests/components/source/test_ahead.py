"""Reading ahead."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from components.source import ahead
from components.storage import DirectoryStore, Store


def test_results_come_in_the_order_of_the_items() -> None:
    def work(item: int) -> int:
        time.sleep(0.001 * (item % 3))
        return item * item

    assert list(ahead.ahead(work, range(200), lambda _: 1)) == [(item, item * item) for item in range(200)]


def test_what_takes_no_waiting_is_done_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "PATIENCE", 0.5)
    threads = [thread for _, thread in ahead.ahead(lambda _: threading.get_ident(), range(1000), lambda _: 1)]
    assert set(threads) == {threading.get_ident()}


@pytest.mark.slow
def test_threads_begin_where_an_item_must_be_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "PATIENCE", 0.5)

    def work(item: int) -> int:
        time.sleep(1 if item == 3 else 0.0)
        return threading.get_ident()

    threads = [thread for _, thread in ahead.ahead(work, range(50), lambda _: 1)]
    assert set(threads[:4]) == {threading.get_ident()}
    assert threading.get_ident() not in threads[4:]


# A process of its own: the threads of other tests would make it wait.
ON_A_BUSY_MACHINE = """
import threading, time
from components.source.ahead import ahead
def work(_):
    until = time.thread_time() + 0.03
    while time.thread_time() < until:
        pass
    return threading.get_ident()
start = time.perf_counter()
threads = {thread for _, thread in ahead(work, range(10), lambda _: 1)}
print(threads == {threading.get_ident()}, time.perf_counter() - start > 0.4)
"""


@pytest.mark.slow
def test_a_busy_machine_is_not_taken_for_a_slow_source() -> None:
    rivals = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        child = subprocess.run([sys.executable, "-c", ON_A_BUSY_MACHINE], capture_output=True, text=True, check=True)
    finally:
        for rival in rivals:
            rival.kill()
            rival.wait()
    assert child.stdout.split() == ["True", "True"]  # alone, and slowed down by the others


def test_no_more_bytes_lie_ready_than_were_allowed() -> None:
    started: list[int] = []

    def work(item: int) -> None:
        started.append(item)
        time.sleep(0.03)

    items = ahead.ahead(work, range(100), lambda _: 10 * 2**20)
    for _ in range(2):  # from the second one on by threads
        next(items)
    time.sleep(0.1)
    assert 3 <= len(started) <= 5  # three of them, and those that were fetched
    items.close()  # type: ignore[attr-defined]


def test_batches_grow_until_they_are_as_long_as_they_may_be() -> None:
    assert list(islice(ahead.growing(12), 7)) == [1, 2, 4, 8, 12, 12, 12]


def test_an_item_that_is_larger_than_allowed_is_worked_on_alone() -> None:
    running, most = 0, 0
    lock = threading.Lock()

    def work(_: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002)
        with lock:
            running -= 1

    assert len(list(ahead.ahead(work, range(10), lambda _: 2**30))) == 10
    assert most == 1


def test_an_endless_stream_of_items_is_only_begun() -> None:
    def forever() -> Iterator[int]:
        number = 0
        while True:
            yield number
            number += 1

    items = ahead.ahead(str, forever(), lambda _: 0)
    assert [next(items) for _ in range(3)] == [(0, "0"), (1, "1"), (2, "2")]


def test_an_error_is_raised_when_it_is_its_turn() -> None:
    def work(item: int) -> float:
        return 1 / (item - 2)

    items = ahead.ahead(work, range(5), lambda _: 1)
    assert [next(items)[0], next(items)[0]] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(items)


def test_a_large_object_is_read_as_it_is(any_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "BLOCK", 1000)
    content = bytes(number * number % 251 for number in range(12_345))
    any_store.write("object", content)
    with ahead.open_ahead(any_store, any_store.stat("object")) as file:
        assert file.read() == content
        file.seek(-345, 2)
        assert file.read(100) == content[-345:-245]
        file.seek(990)
        assert file.read(20) == content[990:1010]
        assert file.tell() == 1010


class Counting(DirectoryStore):
    """Notes what is read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked: list[int] = []

    def read(self, key: str, start: int = 0, length: int | None = None, version: str | None = None) -> bytes:
        self.asked.append(start)
        return super().read(key, start, length, version)


def test_no_block_is_read_twice_on_the_way_forward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "BLOCK", 1000)
    store = Counting(tmp_path)
    store.write("object", bytes(10_000))
    with ahead.open_ahead(store, store.stat("object")) as file:
        while file.read(7):
            pass
    assert sorted(store.asked) == list(range(0, 10_000, 1000))


def test_an_empty_object_is_an_empty_file(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.write("object", b"")
    with ahead.open_ahead(store, store.stat("object")) as file:
        assert file.read() == b""
