import hashlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.dataset.manifest import SPLITS, Manifest, read_manifest
from components.dataset.shards import image_hashes, read_split, split_digest
from components.ingest.ingest import ingest
from components.ingest.interface import Ingest
from components.step import UserError
from components.storage import DirectoryStore
from tests.conftest import Ingested
from tests.samples import drawn_images, write_folder, write_idx

MNIST_DIGEST = "2a1ca8beb2f0dc95a2ba0e755dcb5cdee87b57fe28d91bfdcca2e695860563c8"


def run(source: Path, store: Path, dataset: Path) -> dict[str, Any]:
    decision = dataset.with_name("decision")
    return dict(ingest(Ingest(source=str(source), store=str(store), dataset=dataset, decision=decision))["dataset"])


def start(source: Path | str, store: Path | str, dataset: Path, **options: Any) -> "subprocess.Popen[str]":
    """The step as a process of its own, as the pipeline runs it."""
    command = [sys.executable, "-m", "components.ingest"]
    arguments = ["--source", str(source), "--store", str(store), "--dataset", str(dataset)]
    arguments += ["--decision", str(dataset.with_name("decision"))]
    return subprocess.Popen(
        command + arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def check_whole(store: DirectoryStore) -> list[Manifest]:
    """Every dataset that can be found in the store is whole and right."""
    keys = [key for key in store.keys("datasets/") if key.endswith(".json")]
    manifests = [read_manifest(store.root / key) for key in keys]
    for manifest in manifests:
        for split in SPLITS:
            images, labels = read_split(store, manifest, split)
            assert split_digest(image_hashes(images), labels) == manifest.split_digests[split]
    return manifests


def junk(folder: Path) -> list[Path]:
    """Files that were written aside and are still there."""
    return [path for path in folder.rglob(".aside-*/**/*") if path.is_file()]


@pytest.fixture(scope="module")
def large_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise that takes long enough to write to be interrupted after the first shard: 5,000 and 30,000 images."""
    folder = tmp_path_factory.mktemp("large")
    for part, count in (("train", 5_000), ("t10k", 30_000)):
        random = np.random.default_rng(count)
        write_idx(folder / f"{part}-images-idx3-ubyte", random.integers(0, 256, (count, 28, 28), np.uint8))
        write_idx(folder / f"{part}-labels-idx1-ubyte", (np.arange(count) % 10).astype(np.uint8))
    return folder


# What it makes


def test_a_dataset_is_made_once_and_then_reused(
    idx_folder: Path, store: DirectoryStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(idx_folder, store.root, tmp_path / "first")
    assert capsys.readouterr().out == (
        f"dataset {first['digest'][:12]}: 540 train, 60 validation, 200 test images of 10 classes\n"
    )
    before = {path: path.stat().st_mtime_ns for path in store.root.rglob("*") if path.is_file()}
    second = run(idx_folder, store.root, tmp_path / "second")
    assert capsys.readouterr().out == f"dataset {first['digest'][:12]} is already in the store; reused\n"
    assert {path: path.stat().st_mtime_ns for path in store.root.rglob("*") if path.is_file()} == before
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert (first["reused"], second["reused"]) == (False, True)


def test_the_metadata_says_what_the_dataset_holds(idx_folder: Path, store: DirectoryStore, tmp_path: Path) -> None:
    metadata = run(idx_folder, store.root, tmp_path / "dataset")
    assert metadata.pop("seconds") >= 0
    digest = read_manifest(tmp_path / "dataset").digest
    counts = {"train": 540, "validation": 60, "test": 200}
    assert metadata.pop("reason") == "Retraining, because the condition is 'always'."
    assert metadata == {"digest": digest, "classes": 10, "reused": False} | counts


def test_the_manifest_says_where_the_images_came_from(tiny_dataset: Path, idx_folder: Path) -> None:
    provenance = read_manifest(tiny_dataset).provenance
    assert provenance["source"] == str(idx_folder)
    assert set(provenance["files"]) == {path.name for path in idx_folder.iterdir()}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", provenance["created"])


def test_mean_and_deviation_are_those_of_the_training_split(store: DirectoryStore, tiny_dataset: Path) -> None:
    manifest = read_manifest(tiny_dataset)
    images, _ = read_split(store, manifest, "train")
    np.testing.assert_allclose(manifest.mean, (images / 255).mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(manifest.std, (images / 255).std(axis=(0, 1, 2)))


def test_the_digest_is_what_its_definition_says(tiny_dataset: Path) -> None:
    manifest = read_manifest(tiny_dataset)
    images, labels = drawn_images(20, seed=2)
    pairs = sorted(
        (hashlib.sha256(image.tobytes()).digest(), int(label)) for image, label in zip(images, labels, strict=True)
    )
    content = b"".join(image + label.to_bytes(8, "little") for image, label in pairs)
    assert manifest.split_digests["test"] == hashlib.sha256(content).hexdigest()
    whole = {
        "schema": 1,
        "dtype": "uint8",
        "classes": list("0123456789"),
        "shape": [28, 28, 1],
        "splits": manifest.split_digests,
    }
    assert manifest.digest == hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def test_gzipped_files_give_the_same_digest(store: DirectoryStore, tiny_dataset: Path, tmp_path: Path) -> None:
    again = run(write_folder(tmp_path / "gzipped", ".gz"), store.root, tmp_path / "again")
    assert again["digest"] == read_manifest(tiny_dataset).digest
    assert again["reused"]


def test_another_order_of_the_images_gives_the_same_digest(
    idx_folder: Path, store: DirectoryStore, tiny_dataset: Path, tmp_path: Path
) -> None:
    images, labels = drawn_images(60, seed=1)
    order = np.random.default_rng(3).permutation(len(labels))
    write_idx(idx_folder / "train-images-idx3-ubyte", images[order])
    write_idx(idx_folder / "train-labels-idx1-ubyte", labels[order])
    assert run(idx_folder, store.root, tmp_path / "again")["digest"] == read_manifest(tiny_dataset).digest


def test_one_other_pixel_gives_another_digest(
    idx_folder: Path, store: DirectoryStore, tiny_dataset: Path, tmp_path: Path
) -> None:
    path = idx_folder / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7b")
    assert run(idx_folder, store.root, tmp_path / "again")["digest"] != read_manifest(tiny_dataset).digest


@pytest.mark.parametrize("number", range(4))
def test_a_dataset_that_lost_a_file_is_written_again(
    idx_folder: Path, store: DirectoryStore, tiny_dataset: Path, tmp_path: Path, number: int
) -> None:
    lost = sorted(store.keys("datasets/"))[number]
    (store.root / lost).unlink()
    assert not run(idx_folder, store.root, tmp_path / "again")["reused"]
    assert len(check_whole(store)) == 1


@pytest.mark.slow
def test_the_real_mnist_is_what_it_is_everywhere(mnist: Ingested) -> None:
    manifest = read_manifest(mnist.manifest)
    assert manifest.digest == MNIST_DIGEST
    assert {split: manifest.images(split) for split in SPLITS} == {"train": 54_001, "validation": 5_999, "test": 10_000}
    # The counts of LeCun's test set, as they are published.
    assert list(manifest.counts["test"].values()) == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert manifest.mean == pytest.approx((0.1307,), abs=1e-4)
    assert manifest.std == pytest.approx((0.3081,), abs=1e-4)
    assert check_whole(mnist.store) == [manifest]


# What it refuses


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, float("nan")])
def test_an_impossible_validation_fraction_is_refused(tmp_path: Path, fraction: float) -> None:
    with pytest.raises(UserError, match="validation_fraction must be between 0 and 1, not"):
        Ingest(source="mnist", store="store", dataset=tmp_path, decision=tmp_path, validation_fraction=fraction)


def test_images_that_are_all_the_same_are_refused(idx_folder: Path, store: DirectoryStore, tmp_path: Path) -> None:
    write_idx(idx_folder / "train-images-idx3-ubyte", np.full((600, 28, 28), 9, np.uint8))
    with pytest.raises(UserError, match="class '0' has no image in the train split"):
        run(idx_folder, store.root, tmp_path / "dataset")


def test_a_channel_that_never_varies_is_refused(idx_folder: Path, store: DirectoryStore, tmp_path: Path) -> None:
    for part, per_class, seed in (("train", 60, 1), ("t10k", 20, 2)):
        images = np.stack([drawn_images(per_class, seed)[0]] * 3, axis=-1)
        images[..., 2] = 9
        write_idx(idx_folder / f"{part}-images-idx3-ubyte", images)
    with pytest.raises(UserError, match="channel 2 has the same value in every pixel"):
        run(idx_folder, store.root, tmp_path / "dataset")


@pytest.mark.parametrize(
    ("name", "damage", "sentence"),
    [
        ("train-images-idx3-ubyte", lambda content: content[:-1], "is truncated: it has 470415 bytes"),
        ("train-images-idx3-ubyte", lambda content: b"\0\0\x0d\x03" + content[4:], "has the magic number 00000d03"),
        ("t10k-labels-idx1-ubyte", lambda _: bytes.fromhex("00000801 00000001 00"), "has 1 labels"),
        ("t10k-labels-idx1-ubyte", lambda content: content.replace(b"\7", b"\6"), "class '7' has no image in the test"),
    ],
    ids=["truncated", "wrong magic", "different counts", "empty class"],
)
def test_bad_files_end_the_step_with_one_sentence(
    idx_folder: Path, tmp_path: Path, name: str, damage: Callable[[bytes], bytes], sentence: str
) -> None:
    path = idx_folder / name
    path.write_bytes(damage(path.read_bytes()))
    code, out, err = finish(start(idx_folder, tmp_path / "store", tmp_path / "dataset"))
    assert (code, out) == (2, "")
    assert re.fullmatch(r"error: [^\n]+\n", err)
    assert sentence in err
    assert not (tmp_path / "dataset").exists()
    assert list(DirectoryStore(tmp_path / "store").keys("")) == []


def test_a_store_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    code, _, err = finish(start(tmp_path / "no source", "/dev/null/store", tmp_path / "dataset"))
    assert code == 2
    assert err.startswith("error: store '/dev/null/store' cannot be written (Not a directory)")


def test_a_disk_that_is_full_leaves_nothing_half_written(idx_folder: Path, tmp_path: Path) -> None:
    def limit() -> None:  # no file of this process can grow beyond it, as if the disk were full there
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    store = DirectoryStore(tmp_path / "store")
    code, out, err = finish(start(idx_folder, store.root, tmp_path / "dataset", preexec_fn=limit))
    assert (code, out) == (1, "")
    assert re.fullmatch(r"error: store '[^\n]*' cannot be written \(File too large\); make room[^\n]*\n", err)
    assert list(store.keys("")) == []
    assert not (tmp_path / "dataset").exists()
    assert junk(tmp_path) == []


# What becomes of it when it is interrupted, or not alone


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_while_it_reads_leaves_nothing(
    idx_folder: Path, tmp_path: Path, number: signal.Signals
) -> None:
    pipe = idx_folder / "t10k-images-idx3-ubyte"
    pipe.unlink()
    os.mkfifo(pipe)
    store = DirectoryStore(tmp_path / "store")
    process = start(idx_folder, store.root, tmp_path / "dataset")
    with pipe.open("wb"):  # opens as soon as the process opens its other end
        time.sleep(0.5)  # and reads: a signal just before the call that does would leave that call waiting
        process.send_signal(number)
        code, _, err = finish(process)
    assert code in (130, 143, -signal.SIGKILL)
    assert "Traceback" not in err
    assert list(store.keys("")) == []
    assert not (tmp_path / "dataset").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_between_two_shards_leaves_no_dataset(
    large_folder: Path, tmp_path: Path, number: signal.Signals
) -> None:
    store = DirectoryStore(tmp_path / "store")
    process = start(large_folder, store.root, tmp_path / "dataset")
    while not list(store.keys("datasets/shards/")):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(number)
    code, _, err = finish(process)
    assert code in (130, 143, -signal.SIGKILL)
    assert err in ("error: interrupted; nothing half-written was left behind\n", "")
    assert check_whole(store) == []
    assert not (tmp_path / "dataset").exists()
    if number != signal.SIGKILL:  # which nobody can tidy up after
        assert junk(tmp_path) == []
    assert not run(large_folder, store.root, tmp_path / "dataset")["reused"]
    assert len(check_whole(store)) == 1


@pytest.mark.slow
def test_a_run_that_is_killed_at_any_moment_leaves_a_whole_dataset_or_none(idx_folder: Path, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    begin = time.monotonic()
    assert finish(start(idx_folder, store.root, tmp_path / "dataset"))[0] == 0
    duration = time.monotonic() - begin
    digest = read_manifest(tmp_path / "dataset").digest
    found = []
    for step in range(10):
        store = DirectoryStore(tmp_path / f"store {step}")
        dataset = tmp_path / f"dataset {step}"
        process = start(idx_folder, store.root, dataset)
        time.sleep(duration * (0.5 + step / 20))
        process.kill()
        finish(process)
        found.append(len(check_whole(store)))
        if dataset.exists():
            assert read_manifest(dataset).digest == digest
        assert run(idx_folder, store.root, dataset)["digest"] == digest
    assert 0 in found


def test_two_runs_at_once_make_one_dataset(idx_folder: Path, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    processes = [start(idx_folder, store.root, tmp_path / f"dataset {number}") for number in range(2)]
    assert [finish(process)[0] for process in processes] == [0, 0]
    manifest, other = (read_manifest(tmp_path / f"dataset {number}") for number in range(2))
    assert manifest.digest == other.digest
    assert manifest.shards == other.shards
    assert check_whole(store) in ([manifest], [other])
    assert junk(tmp_path) == []
