"""TensorBoard's event files, read back by TensorBoard itself."""

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c as tensorboards_crc

from components.step import UserError
from components.storage import DirectoryStore, Store
from components.train.events import Events, Scalars, masked_crc32c, record, records
from tests.components.train.trainjob.node import free_port

FOLDER = "training/4f2a/tensorboard"


def told(step: int, **values: float) -> Scalars:
    return Scalars(step, {f"train/{name}": value for name, value in values.items()}, 1_700_000_000.0 + step)


def read(location: str, tag: str = "train/loss") -> dict[int, Any]:
    """What TensorBoard makes of a folder: the values by step; a step that is there twice fails."""
    events = EventAccumulator(location)
    events.Reload()
    found = events.Scalars(tag)
    assert len(found) == len({one.step for one in found})
    return {one.step: pytest.approx(one.value) for one in found}


def test_tensorboard_reads_the_files_of_a_folder_as_one(store: DirectoryStore) -> None:
    events = Events(store, FOLDER)
    for step in (10, 20, 30, 40):
        events.add(told(step, loss=1 / step, learning_rate=0.1))
        if step in (20, 40):
            events.put()
    assert len(list(store.keys(FOLDER))) == 2
    assert read(f"{store.uri}/{FOLDER}") == {10: 0.1, 20: 0.05, 30: 1 / 30, 40: 0.025}
    assert read(f"{store.uri}/{FOLDER}", "train/learning_rate") == dict.fromkeys((10, 20, 30, 40), 0.1)


def test_times_are_kept(store: DirectoryStore) -> None:
    events = Events(store, FOLDER)
    events.add(told(10, loss=1))
    events.put()
    read_back = EventAccumulator(f"{store.uri}/{FOLDER}")
    read_back.Reload()
    assert read_back.Scalars("train/loss")[0].wall_time == 1_700_000_010.0


def test_files_of_others_are_left_alone(store: DirectoryStore) -> None:
    store.write(f"{FOLDER}/events.out.tfevents.1700000000.host.1.0", b"theirs")
    events = Events(store, FOLDER)
    assert events.resume(0, lambda told: True) == []
    events.put()
    assert store.read(f"{FOLDER}/events.out.tfevents.1700000000.host.1.0") == b"theirs"


def test_nothing_new_is_no_file(store: DirectoryStore) -> None:
    Events(store, FOLDER).put()
    assert list(store.keys(FOLDER)) == []


def test_who_goes_on_tells_what_is_done_again_only_once(any_store: Store) -> None:
    before = Events(any_store, FOLDER)
    for step in (10, 20, 30, 40):
        before.add(told(step, loss=step))
        before.put()
    after = Events(any_store, FOLDER)
    kept = after.resume(25, lambda told: told.step <= 25)
    assert kept == [told(10, loss=10), told(20, loss=20)]
    for step in (30, 40, 50):
        after.add(told(step, loss=100 + step))
    after.put()
    assert [key[-14:] for key in any_store.keys(FOLDER)] == [f"{number:06}.retrain" for number in range(1, 6)]
    again = Events(any_store, FOLDER).resume(50, lambda told: True)
    assert {one.step: one.values["train/loss"] for one in again} == {10: 10, 20: 20, 30: 130, 40: 140, 50: 150}


@pytest.mark.usefixtures("s3_environment")
def test_tensorboard_reads_them_from_s3(any_store: Store) -> None:
    events = Events(any_store, FOLDER)
    events.add(told(10, loss=0.5))
    events.put()
    assert read(f"{any_store.uri}/{FOLDER}") == {10: 0.5}


def test_a_store_that_failed_gets_everything_in_the_next_file(store: DirectoryStore) -> None:
    events = Events(store, FOLDER)
    events.add(told(10, loss=10))
    in_the_way = store.root / FOLDER
    in_the_way.parent.mkdir(parents=True)
    in_the_way.touch()
    with pytest.raises(UserError, match="cannot be written"):
        events.put()
    in_the_way.unlink()
    events.add(told(20, loss=20))
    events.put()
    assert read(f"{store.uri}/{FOLDER}") == {10: 10, 20: 20}


@pytest.mark.parametrize("where", [-1, -30, 5])
def test_a_damaged_file_counts_up_to_the_damage(store: DirectoryStore, where: int) -> None:
    events = Events(store, FOLDER)
    events.add(told(10, loss=10))
    events.add(told(20, loss=20))
    events.put()
    (key,) = store.keys(FOLDER)
    content = bytearray(store.read(key))
    content[where] ^= 1
    store.write(key, bytes(content))
    after = Events(store, FOLDER)
    assert [one.step for one in after.resume(20, lambda told: True)] == ([10] if where < 0 else [])
    after.add(told(30, loss=30))
    after.put()
    assert 30 in {one.step for one in Events(store, FOLDER).resume(30, lambda told: True)}


def test_a_file_that_ends_in_a_record_counts_up_to_there() -> None:
    whole = record(b"first") + record(b"second")
    for length in range(len(whole)):
        assert list(records(whole[:length])) == ([b"first"] if length >= len(record(b"first")) else [])
    assert list(records(whole)) == [b"first", b"second"]


@pytest.mark.parametrize("data", [b"", b"123456789", bytes(32), bytes(range(256)) * 3])
def test_the_checksum_is_tensorboards(data: bytes) -> None:
    assert masked_crc32c(data) == tensorboards_crc(data)


def test_importing_them_brings_neither_tensorboard_nor_torch() -> None:
    code = "import sys, components.train.events; print({'torch', 'tensorboard'} & {*sys.modules})"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout == "set()\n"


@pytest.mark.slow
@pytest.mark.parametrize("fast", ["true", "false"])
def test_a_tensorboard_that_runs_sees_new_files_and_forgets_what_is_done_again(
    store: DirectoryStore, fast: str
) -> None:
    before = Events(store, FOLDER)
    before.resume(0, lambda told: True)
    for step in (10, 20):
        before.add(told(step, loss=step))
    before.put()
    port = free_port()
    program = Path(sys.executable).with_name("tensorboard")
    flags = ["--logdir", store.uri, "--port", str(port), "--reload_interval", "1", "--load_fast", fast]
    with subprocess.Popen([program, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            assert shown(port, until=[10, 20]) == [10, 20]
            before.add(told(30, loss=30))
            before.put()
            assert shown(port, until=[10, 20, 30]) == [10, 20, 30]
            after = Events(store, FOLDER)
            after.resume(20, lambda told: told.step <= 20)
            after.add(told(25, loss=25))
            after.put()
            assert shown(port, until=[10, 20, 25]) == [10, 20, 25]
        finally:
            process.terminate()


def shown(port: int, until: list[int]) -> list[int]:
    """The steps that TensorBoard shows, as soon as they are these, or after two minutes."""
    url = f"http://127.0.0.1:{port}/data/plugin/scalars/scalars?run={FOLDER.replace('/', '%2F')}&tag=train%2Floss"
    steps: list[int] = []
    for _ in range(240):
        try:
            with urllib.request.urlopen(url) as answer:
                steps = [point[1] for point in json.load(answer)]
        except OSError:
            pass
        if steps == until:
            break
        time.sleep(0.5)
    return steps
