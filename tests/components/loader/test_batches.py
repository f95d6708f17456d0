"""The claims of the batches: each image once with its label, in an order that the machine does not change."""

import dataclasses
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from components.dataset.manifest import Manifest, content_digest, encode
from components.dataset.shards import write_shard
from components.loader import batches as module
from components.loader import cache, order, stream
from components.loader.batches import UNCHANGED, Augment, OrderedBatches, TrainingBatches, batches
from components.loader.cache import Cache
from components.loader.stream import FEW, SMALL, Content, Stream, decoding_threads
from components.step import StepError
from components.storage import DirectoryStore, S3Store
from tests.components.loader import samples
from tests.components.loader.samples import RAW, label_of, number_of, size, write
from tests.servers.s3 import FaultyS3

SIZES = (7, 1, 20, 12)
SHAPE = (20, 24, 3)
CROPPED = (8, 8, 3)


def noise(images: Tensor, drawn: Tensor) -> Tensor:
    return images + (drawn.view(-1, 1, 1, 1) < 0.5)


def numbers(found: Iterator[tuple[Tensor, Tensor]]) -> list[list[int]]:
    """Which images are in each batch; their labels are right."""
    listed = []
    for images, labels in found:
        assert images.dtype == torch.uint8
        assert labels.dtype == torch.int64
        here = [number_of(image) for image in images.numpy()]
        assert labels.tolist() == [label_of(number) for number in here]
        listed.append(here)
    return listed


def flat(listed: list[list[int]]) -> list[int]:
    return [number for batch in listed for number in batch]


@pytest.fixture(params=["raw", "encoded", "cropped"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["kept", "streamed"])
def memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether there is memory to keep images in."""
    if request.param == "streamed":
        monkeypatch.setattr(module, "memory", lambda: 0)
    return str(request.param)


def make(store: DirectoryStore, kind: str) -> tuple[Manifest, tuple[int, int, int]]:
    return write(store, SIZES, kind != "raw"), {"raw": RAW, "encoded": SHAPE, "cropped": CROPPED}[kind]


def training(store: DirectoryStore, kind: str, batch_size: int = 8, seed: int = 0) -> TrainingBatches:
    manifest, shape = make(store, kind)
    return TrainingBatches(store, manifest, shape, batch_size, seed, UNCHANGED)


def test_an_epoch_has_each_image_once_with_its_label(store: DirectoryStore, kind: str, memory: str) -> None:
    found = training(store, kind)
    assert (len(found), found.images) == (5, 40)
    for epoch in range(3):
        listed = numbers(found.epoch(epoch))
        assert [len(batch) for batch in listed] == [8] * 5
        assert sorted(flat(listed)) == list(range(40))


def test_memory_changes_nothing(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, shape = make(store, "encoded")
    kept = [images for images, _ in TrainingBatches(store, manifest, shape, 6, 1, Augment(1, noise)).epoch(2)]
    monkeypatch.setattr(module, "memory", lambda: 0)
    streamed = [images for images, _ in TrainingBatches(store, manifest, shape, 6, 1, Augment(1, noise)).epoch(2)]
    assert all(torch.equal(one, other) for one, other in zip(kept, streamed, strict=True))


def test_workers_change_neither_order_nor_crops(store: DirectoryStore) -> None:
    found = training(store, "cropped", 20)
    epochs = []
    for workers in (1, 2, 7):
        found.stream.workers = workers
        epochs.append(list(found.epoch(0)))
    for same in zip(*epochs, strict=True):
        assert all(torch.equal(images, same[0][0]) for images, _ in same)
        assert all(torch.equal(labels, same[0][1]) for _, labels in same)


@pytest.mark.parametrize(("bytes", "cores", "threads"), [(SMALL - 1, 16, FEW), (SMALL - 1, 2, 2), (SMALL, 16, 16)])
def test_small_images_are_decoded_by_few_threads(
    bytes: int, cores: int, threads: int, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, _ = make(store, "cropped")
    shards = [dataclasses.replace(shard, bytes=bytes * shard.images) for shard in manifest.shards]
    monkeypatch.setattr(stream, "cores", lambda: cores)
    assert decoding_threads(dataclasses.replace(manifest, shards=tuple(shards))) == threads


@pytest.mark.slow
@pytest.mark.parametrize("start", range(6))
def test_an_epoch_goes_on_where_it_was_broken_off(store: DirectoryStore, kind: str, memory: str, start: int) -> None:
    manifest, shape = make(store, kind)
    found = TrainingBatches(store, manifest, shape, 8, 3, Augment(1, noise))
    rest, whole = list(found.epoch(1, start)), list(found.epoch(1))[start:]
    assert len(rest) == 5 - start
    for (images, labels), (expected, expected_labels) in zip(rest, whole, strict=True):
        assert torch.equal(images, expected)
        assert torch.equal(labels, expected_labels)


def test_threads_that_decode_divide_nothing_among_others_and_their_caller_keeps_its_own(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = training(store, "cropped")
    threads: set[int] = set()
    crop = found._crops.crop

    def note(content: memoryview, out: NDArray[np.uint8], drawn: list[float], number: int) -> None:
        threads.add(torch.get_num_threads())
        crop(content, out, drawn, number)

    monkeypatch.setattr(found._crops, "crop", note)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        list(found.epoch(0))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert threads == {1}


def test_what_is_passed_over_is_not_decoded(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    found = training(store, "cropped")
    decoded: list[int] = []
    crop = found._crops.crop

    def note(content: memoryview, out: NDArray[np.uint8], drawn: list[float], number: int) -> None:
        decoded.append(number)
        crop(content, out, drawn, number)

    monkeypatch.setattr(found._crops, "crop", note)
    listed = numbers(found.epoch(0, 3))
    assert sorted(decoded) == sorted(flat(listed))


@pytest.mark.slow
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    ranks=st.integers(1, 6),
    batch_size=st.integers(1, 5),
    kept=st.booleans(),
)
def test_ranks_share_an_epoch_whatever_the_shards(
    store: DirectoryStore, sizes: list[int], ranks: int, batch_size: int, kept: bool
) -> None:
    manifest = write(store, sizes, encoded=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "memory", lambda: 2**40 if kept else 0)
        found = [
            TrainingBatches(store, manifest, RAW, batch_size * ranks, 0, UNCHANGED, rank=rank, ranks=ranks)
            for rank in range(ranks)
        ]
        epochs = [numbers(each.epoch(4)) for each in found]
    assert len({len(epoch) for epoch in epochs}) == 1
    assert sorted(number for epoch in epochs for batch in epoch for number in batch) == list(range(sum(sizes)))


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_ranks_together_have_the_batches_of_one_where_images_are_kept(store: DirectoryStore, ranks: int) -> None:
    manifest, shape = make(store, "encoded")

    def epoch(rank: int, ranks: int) -> list[tuple[Tensor, Tensor]]:
        found = TrainingBatches(store, manifest, shape, 12, 3, Augment(1, noise), rank=rank, ranks=ranks)
        return list(found.epoch(1))

    parts = [epoch(rank, ranks) for rank in range(ranks)]
    for number, (images, labels) in enumerate(epoch(0, 1)):
        assert torch.equal(torch.cat([part[number][0] for part in parts]), images)
        assert torch.equal(torch.cat([part[number][1] for part in parts]), labels)


def test_ranks_share_an_ordered_split_and_nothing_comes_twice(store: DirectoryStore, memory: str) -> None:
    manifest, shape = make(store, "encoded")
    found = [OrderedBatches(store, manifest, "train", shape, 8, rank=rank, ranks=3) for rank in range(3)]
    assert [number for each in found for number in flat(numbers(iter(each)))] == list(range(40))
    assert [each.images for each in found] == [13, 13, 14]


def test_the_last_batch_has_half_as_many_images_at_least(store: DirectoryStore, memory: str) -> None:
    manifest, shape = make(store, "encoded")
    found = TrainingBatches(store, manifest, shape, 13, 0, UNCHANGED)
    assert [len(labels) for _, labels in found.epoch(0)] == [13, 13, 8, 6]
    assert [found.count(number) for number in range(4)] == [13, 13, 8, 6]


def test_excluded_rows_are_never_seen(store: DirectoryStore, kind: str, memory: str) -> None:
    manifest, shape = make(store, kind)
    shards = [dataclasses.replace(shard, excluded=(0,)) for shard in manifest.shards]
    manifest = dataclasses.replace(manifest, shards=tuple(shards))
    found = TrainingBatches(store, manifest, shape, 8, 0, UNCHANGED)
    assert found.images == 36
    assert sorted(flat(numbers(found.epoch(0)))) == sorted({*range(40)} - {0, 7, 8, 28})


@pytest.mark.slow
def test_epochs_and_seeds_differ(store: DirectoryStore, kind: str, memory: str) -> None:
    listed = [numbers(training(store, kind, seed=seed).epoch(epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert len({str(each) for each in listed}) == 4
    assert numbers(training(store, kind, seed=0).epoch(0)) == listed[0]


def test_crops_differ_from_epoch_to_epoch_and_from_image_to_image(store: DirectoryStore) -> None:
    found = training(store, "cropped", 40)
    draws: list[Any] = []
    found._crops.crop = lambda content, out, drawn, number: draws.append(drawn)  # type: ignore[method-assign]
    for epoch in (0, 1):
        list(found.epoch(epoch))
    assert len(np.unique(draws)) == 2 * 40 * len(draws[0])


def test_what_augments_gets_each_image_and_numbers_of_its_own(store: DirectoryStore, memory: str) -> None:
    manifest, shape = make(store, "encoded")
    seen: list[Tensor] = []

    def note(images: Tensor, drawn: Tensor) -> Tensor:
        assert len(images) == len(drawn)
        seen.append(drawn)
        return images.flip(0)

    found = list(TrainingBatches(store, manifest, shape, 8, 0, Augment(3, note)).epoch(0))
    assert len(found) == len(seen) == 5
    assert len(np.unique(torch.cat(seen))) == 40 * 3


def test_a_policy_changes_what_was_cropped(store: DirectoryStore) -> None:
    manifest, shape = make(store, "cropped")
    found = TrainingBatches(store, manifest, shape, 8, 0, UNCHANGED, lambda image, number: image * 0)
    assert not any(images.any() for images, _ in found.epoch(0))


def test_a_policy_works_in_the_threads_that_decode_before_images_go_to_a_device(store: DirectoryStore) -> None:
    manifest, shape = make(store, "cropped")
    seen: list[tuple[str, threading.Thread, float]] = []

    def note(image: Tensor, number: float) -> Tensor:
        seen.append((image.device.type, threading.current_thread(), number))
        return image

    device = torch.device("meta")  # stands for a GPU, which the tests do without
    found = TrainingBatches(store, manifest, shape, 8, 0, UNCHANGED, note, device=device)
    assert {images.device for images, _ in found.epoch(0)} == {device}
    assert {device for device, _, _ in seen} == {"cpu"}
    assert threading.current_thread() not in {thread for _, thread, _ in seen}
    assert len({number for _, _, number in seen}) == 40


def test_windows_smaller_than_the_data_change_the_order_alone(
    store: DirectoryStore, kind: str, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WINDOW", 1)
    monkeypatch.setattr(module, "RAW_WINDOW", 1)
    monkeypatch.setattr(module, "IN_ORDER", 1)
    listed = numbers(training(store, kind).epoch(0))
    assert sorted(flat(listed)) == list(range(40))


def test_a_split_comes_in_its_order_as_often_as_one_likes(store: DirectoryStore, kind: str, memory: str) -> None:
    manifest, shape = make(store, kind)
    for _ in range(2):
        found = list(batches(store, manifest, "train", shape, 16))
        assert [number_of(image) for images, _ in found for image in images] == list(range(40))
        assert [len(labels) for _, labels in found] == [16, 16, 8]
        assert np.concatenate([labels for _, labels in found]).tolist() == [label_of(number) for number in range(40)]
    ordered = OrderedBatches(store, manifest, "train", shape, 16)
    assert (len(ordered), ordered.images) == (3, 40)
    for _ in range(2):
        assert flat(numbers(iter(ordered))) == list(range(40))
    assert list(batches(store, manifest, "test", shape)) == []


def test_only_what_is_kept_is_read_once(store: DirectoryStore, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, shape = make(store, kind)
    kept = OrderedBatches(store, manifest, "train", shape)
    monkeypatch.setattr(module, "memory", lambda: 0)
    streamed = OrderedBatches(store, manifest, "train", shape)
    for key in list(store.keys("")):
        (store.root / key).unlink()
    assert flat(numbers(iter(kept))) == list(range(40))
    with pytest.raises(StepError, match="is gone from store"):
        list(streamed)


def test_a_damaged_shard_ends_an_epoch_before_anything_of_it_is_seen(
    store: DirectoryStore, kind: str, memory: str
) -> None:
    manifest, shape = make(store, kind)
    damaged = store.root / manifest.shards[2].key
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    seen = []
    with pytest.raises(StepError, match=f"shard {manifest.shards[2].key} in store .* is damaged"):
        seen += list(TrainingBatches(store, manifest, shape, 8, 0, UNCHANGED).epoch(0))
    assert not seen


def test_an_image_that_cannot_be_decoded_names_its_shard(store: DirectoryStore) -> None:
    shard = write_shard(store, "train", [b"\x89PNG\r\n\x1a\n and no more"], ["ant"], None)
    for shape in (SHAPE, CROPPED):
        with pytest.raises(StepError, match=f"an image in shard {shard.key} cannot be decoded"):
            list(TrainingBatches(store, samples.manifest([shard], SHAPE), shape, 8, 0, UNCHANGED).epoch(0))


@pytest.mark.slow
def test_waiting_is_measured(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    found = training(store, "cropped")
    read = Stream._read

    def slowly(stream: Stream, room: Cache, number: int) -> Content:
        time.sleep(0.2)
        return read(stream, room, number)

    monkeypatch.setattr(Stream, "_read", slowly)
    for _ in found.epoch(0):
        time.sleep(0.01)
    assert 0.2 <= found.waited_seconds < 2
    before = found.waited_seconds
    epoch = found.epoch(1)
    next(epoch)
    time.sleep(2)
    epoch.close()  # type: ignore[attr-defined]
    assert found.waited_seconds - before < 2


@pytest.mark.slow
def test_an_epoch_that_is_left_leaves_no_thread(store: DirectoryStore, kind: str, memory: str) -> None:
    before = set(threading.enumerate())
    for _ in training(store, kind).epoch(0):
        break
    gc.collect()
    end = time.monotonic() + 5
    while set(threading.enumerate()) - before and time.monotonic() < end:
        time.sleep(0.01)
    assert not set(threading.enumerate()) - before


def test_an_epoch_from_s3_is_that_from_a_directory(
    remote: S3Store,
    faulty: FaultyS3,
    store: DirectoryStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    manifest = write(remote, SIZES)
    write(store, SIZES)
    faulty.fail(503, "SlowDown", times=2, method="GET")
    faulty.cut(100, times=2)
    here, there = (TrainingBatches(each, manifest, CROPPED, 8, 0, UNCHANGED).epoch(0) for each in (store, remote))
    for one, other in zip(here, there, strict=True):
        assert torch.equal(one[0], other[0])
    faulty.log.clear()
    list(TrainingBatches(remote, manifest, CROPPED, 8, 0, UNCHANGED).epoch(1))
    assert not faulty.log
    assert len(list((tmp_path / "retrain" / "shards").glob("*.parquet"))) == len(SIZES)


@pytest.mark.slow
def test_a_cache_with_room_for_two_windows_suffices(
    remote: S3Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(module, "WINDOW", 1)
    manifest = write(remote, [10] * 20)
    room = 2 * max(shard.bytes for shard in manifest.shards)
    monkeypatch.setattr(cache, "LARGEST", room)
    found = TrainingBatches(remote, manifest, CROPPED, 7, 0, UNCHANGED)
    for epoch in range(2):
        count = 0
        for _ in found.epoch(epoch):
            assert sum(size(path) for path in (tmp_path / "retrain" / "shards").iterdir()) <= room
            count += 1
        assert count == 29
    monkeypatch.setattr(cache, "LARGEST", room - 1)
    with pytest.raises(StepError, match="are needed at once; make room there"):
        next(found.epoch(0))


def test_a_store_that_vanishes_midway_is_one_sentence(
    remote: S3Store,
    faulty: FaultyS3,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(module, "WINDOW", 1)
    manifest = write(remote, [10] * 20)
    epoch = TrainingBatches(remote, manifest, CROPPED, 2, 0, UNCHANGED).epoch(0)
    next(epoch)
    faulty.drop("before", times=10**6)
    with pytest.raises(StepError) as failed:
        list(epoch)
    assert remote.uri in str(failed.value)
    assert "\n" not in str(failed.value)
    assert not list(tmp_path.rglob("*.part"))


INTERRUPTED = """
import sys, time
from pathlib import Path
from typing import Any
from components.dataset.manifest import decode
from components.loader.batches import UNCHANGED, TrainingBatches
from components.storage import open_store
manifest = decode(Path(sys.argv[1]).read_bytes(), "")
epochs = TrainingBatches(open_store(sys.argv[2]), manifest, (8, 8, 3), 4, 0, UNCHANGED)
print("ready", flush=True)
number = 0
def consume(epoch):
    for batch in epoch:
        time.sleep(0.01)
while True:
    consume(epochs.epoch(number))
    number += 1
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_epoch_ends_at_once_and_leaves_nothing(
    remote: S3Store,
    faulty: FaultyS3,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    manifest = write(remote, [10] * 20)
    digest = content_digest(manifest.classes, manifest.encoding, manifest.shape, {})
    manifest = dataclasses.replace(manifest, digest=digest)
    (tmp_path / "manifest").write_bytes(encode(manifest))
    faulty.stall(30, 500, times=1, method="GET", path=manifest.shards[9].key)
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path / "manifest"), remote.uri]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as run:
        assert run.stdout is not None
        run.stdout.readline()
        time.sleep(1)
        start = time.monotonic()
        run.send_signal(number)
        run.communicate(timeout=60)
        assert time.monotonic() - start < 5
    assert not list(tmp_path.rglob("*.part")) or number == signal.SIGTERM


def test_seeds_of_what_is_drawn_are_apart() -> None:
    drawn = {order.random(*five).integers(2**63) for five in np.ndindex(3, 3, 3, 3, 3)}
    assert len(drawn) == 3**5


def test_the_window_of_raw_data_counts_its_pixels(store: DirectoryStore) -> None:
    found = training(store, "raw")
    assert found.order.weights.tolist() == [size * 18 for size in SIZES]
