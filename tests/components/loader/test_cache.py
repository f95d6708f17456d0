"""The claims of the cache: whole shards, in no more bytes than it may take, for all processes of a machine."""

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from components.dataset.manifest import Shard
from components.dataset.shards import check
from components.loader import cache
from components.loader.cache import Cache
from components.step import StepError
from components.storage import DirectoryStore, S3Store, Store
from tests.components.loader.samples import size
from tests.servers.s3 import FaultyS3

SIZE = 1000


def write(store: Store, content: bytes) -> Shard:
    sha256 = hashlib.sha256(content).hexdigest()
    key = f"datasets/shards/{sha256}.parquet"
    store.write(key, content)
    return Shard(key=key, sha256=sha256, bytes=len(content), split="train", rows=1)


def some(store: Store, count: int) -> list[Shard]:
    return [write(store, os.urandom(SIZE)) for _ in range(count)]


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"lock"}


def names(*shards: Shard) -> set[str]:
    return {f"{shard.sha256}.parquet" for shard in shards}


def gets(faulty: FaultyS3) -> int:
    return sum(request.method == "GET" for request in faulty.log)


def test_a_shard_is_fetched_once(remote: S3Store, faulty: FaultyS3, tmp_path: Path) -> None:
    content = os.urandom(SIZE)
    shard = write(remote, content)
    faulty.log.clear()
    for _ in range(3):
        assert Cache(remote, tmp_path).map(shard)[:] == content
    assert gets(faulty) == 1
    assert files(tmp_path) == names(shard)


def test_a_shard_in_a_directory_is_used_where_it_lies(store: DirectoryStore, tmp_path: Path) -> None:
    shard = write(store, b"content")
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert Cache(store).map(shard)[:] == b"content"
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before


def test_what_was_used_longest_ago_makes_room(remote: S3Store, tmp_path: Path) -> None:
    first, second, third = some(remote, 3)
    room = Cache(remote, tmp_path, 2 * SIZE)
    for number, shard in enumerate((first, second, first)):
        room.map(shard)
        os.utime(tmp_path / f"{shard.sha256}.parquet", (number, number))
    room.map(third)
    assert files(tmp_path) == names(first, third)


def test_what_is_in_use_stays(remote: S3Store, tmp_path: Path) -> None:
    first, second, third = some(remote, 3)
    room = Cache(remote, tmp_path, 2 * SIZE)
    content = room.map(first)
    view = memoryview(content)[10:20]
    del content  # what was read from it counts as well
    for shard in (second, third, second):
        room.map(shard)
        assert names(first) < files(tmp_path)
    del view
    room.map(third)
    room.map(second)
    assert files(tmp_path) == names(second, third)


def test_whoever_finds_no_room_waits_until_there_is_some(remote: S3Store, tmp_path: Path) -> None:
    first, second = some(remote, 2)
    room = Cache(remote, tmp_path, SIZE)
    held = [room.map(first)]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(room.map, second)
        time.sleep(0.1)
        assert not waiting.done()
        held.clear()
        assert len(waiting.result(timeout=10)) == SIZE


def test_whoever_waits_too_long_is_told_where_room_is_wanted(
    remote: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "PATIENCE", 0.1)
    first, second = some(remote, 2)
    room = Cache(remote, tmp_path, SIZE)
    held = room.map(first)
    with pytest.raises(StepError, match=f"{second.key} found no room in the cache .* are in use; make room there"):
        room.map(second)
    assert len(held) == SIZE


def test_a_cache_too_small_for_a_shard_says_so(remote: S3Store, tmp_path: Path) -> None:
    (shard,) = some(remote, 1)
    room = Cache(remote, tmp_path, SIZE - 1)
    with pytest.raises(StepError, match=r"has room for 0\.00 GiB, and .* needed at once; make room there"):
        room.map(shard)
    with pytest.raises(StepError, match="needed at once"):
        room.require(SIZE)
    assert files(tmp_path) == set()


def test_by_default_the_cache_takes_no_more_than_the_disk_has(remote: S3Store, tmp_path: Path) -> None:
    usage = os.statvfs(tmp_path)
    assert Cache(remote, tmp_path).size <= min(cache.LARGEST, usage.f_bavail * usage.f_frsize * 1.01)


def test_a_disk_that_others_fill_makes_the_cache_smaller(
    remote: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = some(remote, 2)
    room = Cache(remote, tmp_path)
    room.map(first)
    allocate = os.posix_fallocate

    def full_beyond_one(descriptor: int, start: int, length: int) -> None:
        if names(first) <= files(tmp_path):
            raise OSError(28, "No space left on device")
        allocate(descriptor, start, length)

    monkeypatch.setattr(os, "posix_fallocate", full_beyond_one)
    room.map(second)
    assert files(tmp_path) == names(second)


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: content + b"x", lambda content: b""])
def test_a_shard_that_is_damaged_in_the_store_is_named(
    remote: S3Store, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    (shard,) = some(remote, 1)
    remote.write(shard.key, damage(remote.read(shard.key)))
    with pytest.raises(StepError, match=f"shard {shard.key} in store .* is damaged; remove it and run"):
        Cache(remote, tmp_path).map(shard)
    assert files(tmp_path) == set()


def test_a_shard_that_is_gone_is_named(any_store: Store, tmp_path: Path) -> None:
    shard = Shard(key="datasets/shards/x.parquet", sha256="x", bytes=9, split="train", rows=1)
    with pytest.raises(StepError, match=r"shard datasets/shards/x.parquet is gone from store .*; run the"):
        Cache(any_store, tmp_path / "cache").map(shard)


def test_a_damaged_shard_in_a_directory_is_named_each_time(store: DirectoryStore) -> None:
    for content in (b"other", b""):
        shard = write(store, b"content")
        (store.root / shard.key).write_bytes(content)
        room = Cache(store)
        for _ in range(2):
            with pytest.raises(StepError, match=f"shard {shard.key} in store .* is damaged"):
                room.map(shard)


def test_a_file_of_the_cache_that_was_damaged_is_fetched_anew(remote: S3Store, tmp_path: Path) -> None:
    (shard,) = some(remote, 1)
    content = Cache(remote, tmp_path).map(shard)[:]
    for damaged in (content[:-1] + b"x", b"", content[:10]):
        (tmp_path / f"{shard.sha256}.parquet").write_bytes(damaged)
        assert Cache(remote, tmp_path).map(shard)[:] == content


def test_a_file_that_another_has_mended_meanwhile_stays(
    remote: S3Store, faulty: FaultyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shard,) = some(remote, 1)
    (tmp_path / f"{shard.sha256}.parquet").write_bytes(b"damaged")
    faulty.log.clear()

    def overtaken(*arguments: Any) -> None:
        monkeypatch.setattr(cache, "check", check)
        Cache(remote, tmp_path).map(shard)
        check(*arguments)

    monkeypatch.setattr(cache, "check", overtaken)
    assert len(Cache(remote, tmp_path).map(shard)) == SIZE
    assert gets(faulty) == 1


def test_what_fails_in_passing_is_not_noticed(remote: S3Store, faulty: FaultyS3, tmp_path: Path) -> None:
    (shard,) = some(remote, 1)
    faulty.fail(500, "InternalError", times=2, method="GET")
    faulty.cut(SIZE // 2, times=1)
    assert len(Cache(remote, tmp_path).map(shard)) == SIZE


def test_a_store_that_vanishes_is_one_sentence_and_leaves_nothing(
    remote: S3Store, faulty: FaultyS3, tmp_path: Path
) -> None:
    (shard,) = some(remote, 1)
    faulty.cut(SIZE // 2, times=1)
    faulty.drop("before", times=1000, method="GET")
    with pytest.raises(StepError) as failed:
        Cache(remote, tmp_path).map(shard)
    assert "\n" not in str(failed.value)
    assert remote.uri in str(failed.value)
    assert files(tmp_path) == set()


def test_many_threads_fetch_a_shard_once(remote: S3Store, faulty: FaultyS3, tmp_path: Path) -> None:
    shards = some(remote, 3)
    faulty.log.clear()
    rooms = [Cache(remote, tmp_path) for _ in range(4)]
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda number: len(rooms[number % 4].map(shards[number % 3])), range(36)))
    assert found == [SIZE] * 36
    assert gets(faulty) == 3


MAP_AT_RANDOM = """
import json, random, sys
from pathlib import Path
from components.dataset.manifest import Shard
from components.loader.cache import Cache
from components.storage import open_store
shards = [Shard(**shard) for shard in json.loads(sys.argv[1])]
room = Cache(open_store(sys.argv[2]), Path(sys.argv[3]), 3500)
print("ready", flush=True)
for _ in range(int(sys.argv[4])):
    assert len(room.map(random.choice(shards))) == 1000
"""


@pytest.mark.slow
def test_processes_share_a_cache_that_is_never_larger_than_it_may_be(remote: S3Store, tmp_path: Path) -> None:
    processes = [start_mapping(some(remote, 6), remote, tmp_path, 200) for _ in range(3)]
    largest = 0
    while any(process.poll() is None for process in processes):
        largest = max(largest, sum(size(path) for path in tmp_path.iterdir()))
    assert [process.communicate()[0] for process in processes] == ["ready\n"] * 3
    assert [process.returncode for process in processes] == [0] * 3
    assert 2000 <= largest <= 3500
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.slow
def test_a_process_that_is_killed_holds_nothing_and_its_half_shards_go(remote: S3Store, tmp_path: Path) -> None:
    shards = some(remote, 6)
    for number in range(6):
        process = start_mapping(shards, remote, tmp_path, 10**9)
        assert process.stdout
        process.stdout.readline()
        time.sleep(0.01 * number)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    (tmp_path / ("0" * 64 + ".part")).write_bytes(bytes(2000))
    room = Cache(remote, tmp_path, 3500)
    assert not list(tmp_path.glob("*.part"))
    held = [room.map(shard) for shard in shards[:3]]
    assert files(tmp_path) == names(*shards[:3])
    assert len(held) == 3


def start_mapping(shards: list[Shard], store: Store, folder: Path, times: int) -> subprocess.Popen[str]:
    listed = json.dumps([dataclasses.asdict(shard) for shard in shards])
    command = [sys.executable, "-c", MAP_AT_RANDOM, listed, store.uri, str(folder), str(times)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_closing_ends_a_fetch_and_removes_it(
    remote: S3Store, faulty: FaultyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "PIECE", 100)
    (shard,) = some(remote, 1)
    room = Cache(remote, tmp_path)
    faulty.stall(0.5, 300, times=5, method="GET")
    ended = threading.Event()

    def fetch() -> None:
        with pytest.raises(cache.Interrupted):
            room.map(shard)
        ended.set()

    thread = threading.Thread(target=fetch)
    thread.start()
    while not list(tmp_path.glob("*.part")):
        time.sleep(0.01)
    room.close()
    assert files(tmp_path) == set()
    assert ended.wait(10)
    thread.join()
    assert files(tmp_path) == set()


@pytest.mark.slow
def test_whoever_is_closed_leaves_alone_what_another_has_begun_by_the_same_name(
    remote: S3Store, faulty: FaultyS3, tmp_path: Path
) -> None:
    (shard,) = some(remote, 1)
    closed, other = Cache(remote, tmp_path), Cache(remote, tmp_path)
    faulty.stall(0.4, 300, method="GET")
    with ThreadPoolExecutor(2) as pool:
        ended = pool.submit(closed.map, shard)
        while not gets(faulty):
            time.sleep(0.01)
        closed.close()
        assert files(tmp_path) == set()
        faulty.stall(3.0, 300, method="GET")
        fetched = pool.submit(other.map, shard)
        with pytest.raises(cache.Interrupted):
            ended.result()
        assert len(list(tmp_path.glob("*.part"))) == 1
        assert len(fetched.result()) == SIZE
    assert files(tmp_path) == names(shard)
