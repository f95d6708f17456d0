"""What is known of a dataset's images, as records."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest

from components.dataset.ledger import Ledger, Volume
from components.dataset.manifest import SPLITS, Manifest
from components.step import StepError
from components.storage import DirectoryStore
from tests.components.ingest.trees import classes, make, plant


@pytest.fixture
def manifest(store: DirectoryStore, tmp_path: Path) -> Manifest:
    return make(plant(tmp_path / "source", classes(12)), store, tmp_path / "made")


def ledger(store: DirectoryStore, *manifests: Manifest) -> Ledger:
    return Ledger(store, [Volume(manifest.shards, manifest.facts) for manifest in manifests])


def test_every_image_comes_once_with_its_label_split_and_place(store: DirectoryStore, manifest: Manifest) -> None:
    found = ledger(store, manifest)
    (records,) = found.batches()
    assert len(records) == found.rows == 24
    for record in records:
        shard = found.shards[record["shard"]]
        assert SPLITS[record["split"]] == shard.split
        label = parquet.read_table(store.root / shard.key)["label"][int(record["row"])].as_py()
        assert found.labels[record["label"]] == label


def test_an_image_can_be_named(store: DirectoryStore, manifest: Manifest) -> None:
    found = ledger(store, manifest)
    (records,) = found.batches()
    entries = [found.entry(record) for record in records]
    assert {entry.name for entry in entries} == set(classes(12))
    assert all(entry.name.startswith(f"{entry.label}/") for entry in entries)
    assert all(entry.split == entry.shard.split for entry in entries)


def test_excluded_rows_and_dropped_shards_do_not_come(store: DirectoryStore, manifest: Manifest) -> None:
    first, *others = manifest.shards
    without = dataclasses.replace(first, excluded=(0, 2))
    found = ledger(store, dataclasses.replace(manifest, shards=(without, *others)))
    (records,) = found.batches()
    assert len(records) == 22
    of_first = records[records["shard"] == 0]
    assert sorted(of_first["row"].tolist()) == [row for row in range(first.rows) if row not in (0, 2)]
    (records,) = ledger(store, dataclasses.replace(manifest, shards=tuple(others))).batches()
    assert len(records) == 24 - first.rows


def test_two_volumes_are_told_apart_by_their_shards(store: DirectoryStore, manifest: Manifest) -> None:
    found = ledger(store, manifest, manifest)
    records = np.concatenate(list(found.batches()))
    assert len(records) == 48
    old = records["shard"] < len(manifest.shards)
    assert old.sum() == 24
    assert sorted(map(bytes, records["hash"][old])) == sorted(map(bytes, records["hash"][~old]))


def test_batches_are_large_whatever_the_files(
    store: DirectoryStore, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.dataset.ledger.BATCH", 60)
    assert [len(batch) for batch in ledger(store, *[manifest] * 5).batches()] == [72, 48]


def test_without_images_there_is_nothing(store: DirectoryStore) -> None:
    assert list(Ledger(store, []).batches()) == []


def test_facts_that_are_gone_are_named(store: DirectoryStore, manifest: Manifest) -> None:
    (store.root / manifest.facts[0].key).unlink()
    with pytest.raises(StepError, match=f"{manifest.facts[0].key} is gone from store"):
        list(ledger(store, manifest).batches())
