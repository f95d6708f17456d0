"""The commit: one dataset, whoever did what in which order, whole or not at all."""

import hashlib
import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest

from components.dataset import facts
from components.dataset.manifest import SPLITS, Manifest, content_digest, manifest_key, read_manifest
from components.dataset.plan import part_key, read_part
from components.dataset.shards import read_split
from components.ingest.findings import ordered
from components.ingest.interface import Ingest
from components.ingest.limits import LIMITS
from components.step import StepError, UserError
from components.storage import DirectoryStore, Store
from tests.components.ingest.trees import classes, commit, make, noise, plant, prepare, split_classes
from tests.conftest import Ingested
from tests.samples import drawn_images, write_folder, write_idx

MNIST_DIGEST = "6aeb3cbd09be0c9289a4d0c2d9637ee77d7f21890d619cf231c9e2d55a97a390"


def start(plan: str, store: DirectoryStore, folder: Path) -> "subprocess.Popen[str]":
    """The step as a process of its own, as the pipeline runs it."""
    outputs = [argument for name in ("dataset", "report", "decision") for argument in (f"--{name}", str(folder / name))]
    return subprocess.Popen(
        [sys.executable, "-m", "components.ingest", "--store", store.uri, "--plan", plan, *outputs],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def manifests(store: DirectoryStore) -> list[Manifest]:
    """Every dataset that can be found in the store; each is whole and right."""
    found = [read_manifest(store.root / key) for key in store.keys("datasets/") if key.endswith(".json")]
    for manifest in found:
        check(store, manifest)
    return found


def check(store: DirectoryStore, manifest: Manifest) -> None:
    """Counts every image of a dataset's shards again."""
    counts = {split: Counter[str]() for split in SPLITS}
    for shard in manifest.shards:
        content = store.read(shard.key)
        assert hashlib.sha256(content).hexdigest() == shard.sha256
        labels = parquet.read_table(store.root / shard.key, columns=["label"])["label"].to_pylist()
        assert len(labels) == shard.rows
        counts[shard.split].update(label for row, label in enumerate(labels) if row not in set(shard.excluded))
    assert {split: dict(+count) for split, count in counts.items()} == {
        split: {name: count for name, count in manifest.counts[split].items() if count} for split in SPLITS
    }


def hashes(store: DirectoryStore, manifest: Manifest) -> dict[str, list[tuple[bytes, str]]]:
    """The SHA-256 and the label of every image by split, by the facts."""
    found: dict[str, list[tuple[bytes, str]]] = {split: [] for split in SPLITS}
    excluded = {(shard.sha256, row) for shard in manifest.shards for row in shard.excluded}
    there = {shard.sha256 for shard in manifest.shards}
    for file in manifest.facts:
        for table in facts.read(store, file):
            for row in table.to_pylist():
                if row["shard"] in there and (row["shard"], row["row"]) not in excluded:
                    found[row["split"]].append((row["sha256"], row["label"]))
    return {split: sorted(pairs) for split, pairs in found.items()}


def times(store: DirectoryStore) -> dict[Path, int]:
    files = (path for path in (store.root / "datasets").rglob("*") if path.is_file())
    return {path: path.stat().st_mtime_ns for path in files}


# What it makes


def test_a_dataset_is_made_once_and_then_reused(
    idx_folder: Path, store: DirectoryStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = prepare(idx_folder, store, tmp_path)
    capsys.readouterr()
    first = commit(plan, store, tmp_path)
    assert capsys.readouterr().out == (
        f"dataset {first['digest'][:12]}: 540 train, 60 validation, 200 test images of 10 classes\n"
    )
    manifest = (tmp_path / "dataset").read_bytes()
    before = times(store)
    second = commit(plan, store, tmp_path)
    assert capsys.readouterr().out == f"dataset {first['digest'][:12]} is already in the store; reused\n"
    assert times(store) == before
    assert (tmp_path / "dataset").read_bytes() == manifest == store.read(manifest_key(first["digest"]))
    assert (first["reused"], second["reused"]) == (False, True)


def test_the_metadata_says_what_the_dataset_holds(idx_folder: Path, store: DirectoryStore, tmp_path: Path) -> None:
    metadata = commit(prepare(idx_folder, store, tmp_path), store, tmp_path)
    assert metadata.pop("seconds") >= 0
    digest = read_manifest(tmp_path / "dataset").digest
    counts = {"train": 540, "validation": 60, "test": 200}
    assert metadata.pop("reason") == "Retraining, because the condition is 'always'."
    assert metadata == {"digest": digest, "classes": 10, "reused": False} | counts


def test_the_manifest_says_where_the_images_came_from(idx_folder: Path, store: DirectoryStore, tmp_path: Path) -> None:
    plan = prepare(idx_folder, store, tmp_path)
    commit(plan, store, tmp_path)
    provenance = read_manifest(tmp_path / "dataset").provenance
    assert (provenance["kind"], provenance["plan"]) == ("idx", plan)
    assert str(idx_folder) in provenance["source"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", provenance["created"])
    assert [check["passed"] for check in provenance["checks"]] == [True] * len(LIMITS)


def test_mean_and_deviation_are_those_of_the_training_split(
    idx_folder: Path, store: DirectoryStore, tmp_path: Path
) -> None:
    manifest = make(idx_folder, store, tmp_path)
    images, _ = read_split(store, manifest, "train")
    np.testing.assert_allclose(manifest.mean, (images / 255).mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(manifest.std, (images / 255).std(axis=(0, 1, 2)))


def test_the_digest_is_what_its_definition_says(idx_folder: Path, store: DirectoryStore, tmp_path: Path) -> None:
    manifest = make(idx_folder, store, tmp_path)
    images, labels = drawn_images(20, seed=2)
    pairs = sorted(
        (hashlib.sha256(image.tobytes()).digest(), hashlib.sha256(str(label).encode()).digest())
        for image, label in zip(images, labels, strict=True)
    )
    content = b"".join(image + label for image, label in pairs)
    assert manifest.split_digests["test"] == hashlib.sha256(content).hexdigest()
    assert manifest.digest == content_digest(tuple("0123456789"), "raw", manifest.shape, manifest.split_digests)


def test_sizes_and_channels_are_those_of_the_images(store: DirectoryStore, tmp_path: Path) -> None:
    source = plant(tmp_path / "source", classes())
    assert make(source, store, tmp_path / "same").shape == (16, 16, 3)
    (source / "cat" / "large.png").write_bytes(noise(7, 24))
    manifest = make(source, store, tmp_path / "different")
    assert (manifest.shape, manifest.encoding) == ((None, None, 3), "encoded")


def test_classes_are_sorted_as_numbers_where_they_are_numbers() -> None:
    assert ordered({"10", "9", "1"}) == ("1", "9", "10")
    assert ordered({"b", "10", "a", "9"}) == ("9", "10", "a", "b")
    assert ordered({"01", "1", "0", "00"}) == ("0", "00", "01", "1")
    assert ordered({"9" * 5000, "1"}) == ("1", "9" * 5000)
    assert ordered({"²", "\u0661", "1"}) == ("1", "²", "\u0661")  # which Python takes for digits, too


@pytest.mark.slow
def test_the_real_mnist_is_what_it_is_everywhere(mnist: Ingested) -> None:
    manifest = read_manifest(mnist.manifest)
    assert manifest.digest == MNIST_DIGEST
    assert {split: manifest.images(split) for split in SPLITS} == {"train": 54_001, "validation": 5_999, "test": 10_000}
    # The counts of LeCun's test set, as they are published.
    assert list(manifest.counts["test"].values()) == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert manifest.mean == pytest.approx((0.1307,), abs=1e-4)
    assert manifest.std == pytest.approx((0.3081,), abs=1e-4)
    assert manifests(mnist.store) == [manifest]


# The same for everybody


@pytest.mark.slow
def test_one_worker_and_eight_make_the_same_dataset(
    tmp_path: Path, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.plan.plan.CHUNK_BYTES", 4000)
    source = plant(tmp_path / "source", classes(30))
    one = make(source, store, tmp_path / "one")
    other = DirectoryStore(tmp_path / "other")
    eight = make(source, other, tmp_path / "eight", workers=8)
    assert len(eight.shards) > 8
    assert (one.digest, one.shards, one.facts) == (eight.digest, eight.shards, eight.facts)
    assert manifests(other) == [eight]


def test_every_shard_has_images_of_every_class_though_the_source_lists_one_after_another(
    tmp_path: Path, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.plan.plan.CHUNK_BYTES", 20_000)
    manifest = make(plant(tmp_path / "source", classes(100)), store, tmp_path / "made")
    shards = [shard for shard in manifest.shards if shard.split == "train"]
    assert len(shards) > 2
    for shard in shards:
        labels = parquet.read_table(store.root / shard.key, columns=["label"])["label"].to_pylist()
        shares = {label: labels.count(label) / len(labels) for label in manifest.classes}
        assert min(shares.values()) > 0.5 / len(shares)


def test_another_order_of_the_source_gives_the_same_digest(
    idx_folder: Path, store: DirectoryStore, tmp_path: Path
) -> None:
    first = make(idx_folder, store, tmp_path / "first")
    images, labels = drawn_images(60, seed=1)
    order = np.random.default_rng(3).permutation(len(labels))
    write_idx(idx_folder / "train-images-idx3-ubyte", images[order])
    write_idx(idx_folder / "train-labels-idx1-ubyte", labels[order])
    assert make(idx_folder, store, tmp_path / "again").digest == first.digest


@pytest.mark.slow
def test_other_names_and_other_chunks_give_the_same_digest(
    tmp_path: Path, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = split_classes(count=10)
    files["train/dog/0.png"] = files["train/cat/0.png"]  # a conflict
    files["train/cat/1.png"] = files["test/cat/1.png"]  # a leak
    files["test/cat/2.png"] = files["test/cat/3.png"]  # a copy
    limits = "conflicts=1 leaks=1"
    one = make(plant(tmp_path / "one", files), store, tmp_path / "made one", limits)
    renamed = {re.sub(r"\d+(?=\.)", lambda n: f"{97 * int(n[0]) % 1000:03}", name): files[name] for name in files}
    monkeypatch.setattr("components.plan.plan.CHUNK_BYTES", 4000)
    other = DirectoryStore(tmp_path / "other store")
    two = make(plant(tmp_path / "two", renamed), other, tmp_path / "made two", limits)
    assert one.digest == two.digest
    assert one.shards != two.shards
    assert hashes(store, one) == hashes(other, two)
    assert manifests(other) == [two]


def test_gzipped_files_give_the_same_digest(idx_folder: Path, store: DirectoryStore, tmp_path: Path) -> None:
    first = make(idx_folder, store, tmp_path / "first")
    assert make(write_folder(tmp_path / "gzipped", ".gz"), store, tmp_path / "second").digest == first.digest


def test_one_other_pixel_gives_another_digest(idx_folder: Path, store: DirectoryStore, tmp_path: Path) -> None:
    first = make(idx_folder, store, tmp_path / "first")
    path = idx_folder / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7b")
    assert make(idx_folder, store, tmp_path / "again").digest != first.digest


def test_two_chunks_with_the_same_images_are_counted_twice(
    tmp_path: Path, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.plan.plan.CHUNK_BYTES", 2500)
    files = {f"cat/{copy}/{n}.png": noise(n) for copy in "ab" for n in range(3)}
    files |= {f"dog/{n}.png": noise(100 + n) for n in range(9)}
    manifest = make(plant(tmp_path / "source", files), store, tmp_path / "made", "min_images=0")
    assert sum(manifest.counts[split]["cat"] for split in SPLITS) == 6
    assert manifests(store) == [manifest]
    assert max(Counter(shard.key for shard in manifest.shards).values()) == 2
    assert sum(map(len, hashes(store, manifest).values())) == 15


def test_a_chunk_with_nothing_but_copies_of_an_image_makes_shards_that_are_told_apart(
    tmp_path: Path, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.shard.shard.BATCH_IMAGES", 4)
    monkeypatch.setattr("components.shard.shard.BLOCK_IMAGES", 4)
    files = {f"cat/{n:02}.png": noise(1) for n in range(14)} | {f"dog/{n}.png": noise(100 + n) for n in range(9)}
    manifest = make(plant(tmp_path / "source", files), store, tmp_path / "made", "min_images=0")
    assert sum(manifest.counts[split]["cat"] for split in SPLITS) == 14
    assert manifests(store) == [manifest]
    assert len({shard.key for shard in manifest.shards}) == len(manifest.shards) > 4
    assert sum(map(len, hashes(store, manifest).values())) == 23


def test_copies_of_an_image_under_another_label_are_excluded_in_all_of_their_shards(
    tmp_path: Path, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.shard.shard.BATCH_IMAGES", 4)
    monkeypatch.setattr("components.shard.shard.BLOCK_IMAGES", 4)
    files = {f"cat/{n:02}.png": noise(1) for n in range(12)} | {f"dog/{n}.png": noise(100 + n) for n in range(9)}
    source = plant(tmp_path / "source", files | {"dog/9.png": noise(1)})
    manifest = make(source, store, tmp_path / "made", "min_images=0 conflicts=1")
    assert sum(sum(counts.values()) for counts in manifest.counts.values()) == 9
    assert manifests(store) == [manifest]


@pytest.mark.slow
def test_in_s3_it_is_the_same_dataset(any_store: Store, store: DirectoryStore, tmp_path: Path) -> None:
    source = plant(tmp_path / "source", split_classes() | {"train/cat/bad.png": b""})
    here = make(source, store, tmp_path / "here", "damaged=1")
    there = make(source, any_store, tmp_path / "there", "damaged=1")
    assert (there.digest, there.shards, there.facts) == (here.digest, here.shards, here.facts)
    assert any_store.read(manifest_key(there.digest)) == (tmp_path / "there" / "dataset").read_bytes()
    assert b"train/cat/bad.png" in any_store.read(f"ingest/{there.provenance['plan']}/report.html")


# Appending


def test_what_is_appended_adds_shards_and_keeps_those_of_the_parent(store: DirectoryStore, tmp_path: Path) -> None:
    parent = make(plant(tmp_path / "old", classes(12)), store, tmp_path / "parent")
    new = plant(tmp_path / "new", classes(12, ("cat", "wolf"), seed=50_000))
    before = times(store)
    manifest = make(new, store, tmp_path / "appended", parent=parent.digest)
    assert manifest.parent == parent.digest
    assert manifest.classes == ("cat", "dog", "wolf")
    assert manifest.shards[: len(parent.shards)] == parent.shards
    assert manifest.facts[: len(parent.facts)] == parent.facts
    assert {path: time for path, time in times(store).items() if path in before} == before
    assert sum(map(manifest.images, SPLITS)) == 48
    for split in SPLITS:
        assert set(hashes(store, parent)[split]) <= set(hashes(store, manifest)[split])
    assert {found.digest for found in manifests(store)} == {parent.digest, manifest.digest}


def test_appending_what_the_parent_has_already_gives_the_parent(store: DirectoryStore, tmp_path: Path) -> None:
    source = plant(tmp_path / "source", classes(12))
    parent = make(source, store, tmp_path / "parent")
    assert make(source, store, tmp_path / "again", parent=parent.digest) == parent


def test_what_is_appended_and_what_is_made_at_once_have_the_same_statistics(
    store: DirectoryStore, tmp_path: Path
) -> None:
    old = split_classes(count=6)
    new = {f"{split}/cat/new{n}.png": noise(777 + n + 50 * len(split)) for split in SPLITS for n in range(5)}
    whole = make(plant(tmp_path / "whole", old | new), store, tmp_path / "at once")
    parent = make(plant(tmp_path / "old", old), store, tmp_path / "parent")
    other = DirectoryStore(tmp_path / "other")
    make(tmp_path / "old", other, tmp_path / "other parent")
    appended = make(plant(tmp_path / "new", new), other, tmp_path / "appended", parent=parent.digest)
    assert (appended.digest, appended.mean, appended.std) == (whole.digest, whole.mean, whole.std)
    assert (whole.parent, appended.parent) == (None, parent.digest)


def test_an_image_that_the_parent_has_under_another_label_is_excluded_there_too(
    store: DirectoryStore, tmp_path: Path
) -> None:
    files = split_classes()
    parent = make(plant(tmp_path / "old", files), store, tmp_path / "parent")
    new = {"train/dog/relabelled.png": files["train/cat/0.png"], "train/dog/new.png": noise(5)}
    source = plant(tmp_path / "new", new)
    manifest = make(source, store, tmp_path / "appended", "conflicts=1", parent=parent.digest)
    assert manifest.counts["train"] == {"cat": 3, "dog": 5}
    assert [shard.key for shard in manifest.shards[:3]] == [shard.key for shard in parent.shards]
    assert [len(shard.excluded) for shard in manifest.shards] == [1, 0, 0, 1]
    assert parent in manifests(store)


def test_a_shard_of_which_nothing_is_left_is_dropped(store: DirectoryStore, tmp_path: Path) -> None:
    files = split_classes()
    parent = make(plant(tmp_path / "old", files), store, tmp_path / "parent")
    source = plant(tmp_path / "new", {"train/dog/relabelled.png": files["train/cat/0.png"]})
    manifest = make(source, store, tmp_path / "appended", "conflicts=1", parent=parent.digest)
    assert len(manifest.shards) == len(parent.shards)
    assert manifest.facts == parent.facts
    third = plant(tmp_path / "third", {"train/dog/more.png": noise(6)})
    last = make(third, store, tmp_path / "last", "conflicts=1", parent=manifest.digest)
    assert last.counts["train"] == {"cat": 3, "dog": 5}
    check(store, last)


def test_image_files_cannot_be_appended_to_raw_images(idx_folder: Path, store: DirectoryStore, tmp_path: Path) -> None:
    parent = make(idx_folder, store, tmp_path / "parent")
    with pytest.raises(UserError, match="raw"):
        make(plant(tmp_path / "source", classes()), store, tmp_path / "appended", parent=parent.digest)


# What it refuses


def test_limits_and_names_are_checked_before_anything_is_read(tmp_path: Path) -> None:
    outputs: dict[str, Any] = {name: tmp_path / name for name in ("dataset", "report", "decision")}
    with pytest.raises(UserError, match="did you mean 'damaged'"):
        Ingest(store="store", plan="0" * 64, limits="damagd=1", **outputs)
    with pytest.raises(UserError, match="model_name must be"):
        Ingest(store="store", plan="0" * 64, model_name="A B", **outputs)


def test_a_chunk_that_is_not_done_is_named(store: DirectoryStore, tmp_path: Path) -> None:
    plan = prepare(plant(tmp_path / "source", classes()), store, tmp_path)
    (store.root / part_key(plan, 0)).unlink()
    with pytest.raises(StepError, match=r"chunk 0 of 1 is not done: .*/parts/000000\.json; run the pipeline again"):
        commit(plan, store, tmp_path)


def test_a_plan_that_is_gone_is_named(store: DirectoryStore, tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"ingest/a+/plan\.json is gone from store"):
        commit("a" * 64, store, tmp_path)


@pytest.mark.parametrize("kind", ["shards", "facts", "quarantine"])
@pytest.mark.parametrize("few", [0, 1000])
def test_a_file_that_is_gone_from_the_store_is_named(
    store: DirectoryStore, tmp_path: Path, kind: str, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.ingest.intake.FEW", few)
    plan = prepare(plant(tmp_path / "source", classes() | {"cat/bad.png": b""}), store, tmp_path)
    part = read_part(store, plan, 0)
    assert part is not None
    file = {"shards": part.shards[0], "facts": part.facts, "quarantine": part.quarantine}[kind]
    assert file is not None
    (store.root / file.key).unlink()
    with pytest.raises(StepError, match=f"{file.key} is gone from store .*; run the pipeline again"):
        commit(plan, store, tmp_path, limits="damaged=1")
    assert manifests(store) == []


def test_facts_that_are_damaged_are_named(store: DirectoryStore, tmp_path: Path) -> None:
    plan = prepare(plant(tmp_path / "source", classes()), store, tmp_path)
    part = read_part(store, plan, 0)
    assert part is not None
    assert part.facts is not None
    path = store.root / part.facts.key
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(StepError, match=f"{part.facts.key} in store .* is damaged"):
        commit(plan, store, tmp_path)


def test_a_parent_that_lost_a_file_is_named(store: DirectoryStore, tmp_path: Path) -> None:
    parent = make(plant(tmp_path / "old", classes()), store, tmp_path / "parent")
    plan = prepare(plant(tmp_path / "new", classes(seed=9000)), store, tmp_path / "new", parent=parent.digest)
    (store.root / parent.shards[0].key).unlink()
    with pytest.raises(
        StepError, match=f"{parent.shards[0].key} of parent {parent.digest[:12]} is gone .*; ingest its"
    ):
        commit(plan, store, tmp_path / "new")
    (store.root / manifest_key(parent.digest)).unlink()
    with pytest.raises(StepError, match=f"the parent, datasets/{parent.digest}.json, is gone from store"):
        commit(plan, store, tmp_path / "new")


@pytest.mark.slow
def test_an_error_ends_the_process_with_one_sentence(store: DirectoryStore, tmp_path: Path) -> None:
    code, out, err = finish(start("a" * 64, store, tmp_path))
    assert (code, out) == (1, "")
    assert re.fullmatch(r"error: ingest/a+/plan\.json is gone [^\n]+\n", err)


def test_a_store_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    code, _, err = finish(start("a" * 64, DirectoryStore(Path("/dev/null/store")), tmp_path))
    assert code == 2
    assert err.startswith("error: store '/dev/null/store' cannot be written (Not a directory)")


# What becomes of it when files are lost, when it is interrupted, or not alone


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["shards", "facts", "manifest"])
def test_a_dataset_that_lost_a_file_is_made_whole_again(
    idx_folder: Path, store: DirectoryStore, tmp_path: Path, kind: str
) -> None:
    manifest = make(idx_folder, store, tmp_path / "first")
    lost = {"shards": manifest.shards[0].key, "facts": manifest.facts[0].key, "manifest": manifest_key(manifest.digest)}
    (store.root / lost[kind]).unlink()
    plan = prepare(idx_folder, store, tmp_path / "again")
    assert commit(plan, store, tmp_path / "again")["reused"] == (kind != "manifest")
    assert [found.digest for found in manifests(store)] == [manifest.digest]


def test_a_manifest_that_is_damaged_is_written_anew(idx_folder: Path, store: DirectoryStore, tmp_path: Path) -> None:
    plan = prepare(idx_folder, store, tmp_path)
    digest = commit(plan, store, tmp_path)["digest"]
    (store.root / manifest_key(digest)).write_text("{")
    assert not commit(plan, store, tmp_path)["reused"]
    assert [manifest.digest for manifest in manifests(store)] == [digest]


@pytest.mark.slow
def test_a_commit_that_is_killed_at_any_moment_leaves_a_whole_dataset_or_none(tmp_path: Path) -> None:
    source = plant(tmp_path / "source", classes(40))
    store = DirectoryStore(tmp_path / "store")
    plan = prepare(source, store, tmp_path)
    begin = time.monotonic()
    assert finish(start(plan, store, tmp_path))[0] == 0
    duration = time.monotonic() - begin
    key = manifest_key(read_manifest(tmp_path / "dataset").digest)
    found, moment, code = list[int](), 0.3 * duration, 1
    while code != 0:  # until one is done before it is killed
        (store.root / key).unlink(missing_ok=True)
        folder = tmp_path / f"run {len(found)}"
        folder.mkdir()
        process = start(plan, store, folder)
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        moment, code = moment + duration / 20, finish(process)[0]
        found.append(len(manifests(store)))
        if (folder / "dataset").exists():
            assert manifest_key(read_manifest(folder / "dataset").digest) == key
        assert commit(plan, store, folder)["reused"] == bool(found[-1])
    assert {0, 1} == set(found)


@pytest.mark.slow
def test_two_commits_at_once_make_one_dataset(tmp_path: Path, store: DirectoryStore) -> None:
    plan = prepare(plant(tmp_path / "source", classes()), store, tmp_path)
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    processes = [start(plan, store, folder) for folder in folders]
    assert [finish(process)[0] for process in processes] == [0, 0]
    one, two = (read_manifest(folder / "dataset") for folder in folders)
    assert (one.digest, one.shards) == (two.digest, two.shards)
    assert manifests(store) in ([one], [two])
    assert [path for path in tmp_path.rglob(".aside-*/**/*") if path.is_file()] == []


def test_the_temporary_files_are_gone_afterwards(
    tmp_path: Path, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = tmp_path / "temporary"
    room.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(room))
    make(plant(tmp_path / "source", classes()), store, tmp_path / "made")
    assert list(room.iterdir()) == []
    assert json.loads((tmp_path / "made" / "dataset").read_text())["schema"] == 2
