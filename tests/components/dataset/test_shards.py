import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest

from components.dataset.manifest import SPLITS, Shard, read_manifest
from components.dataset.shards import SHARD_PIXELS, canonical_order, image_hashes, read_split, split_digest, write_split
from components.step import StepError
from components.storage import DirectoryStore

RANDOM = np.random.default_rng(0)


def first_shard(dataset: Path, split: str) -> Shard:
    return next(shard for shard in read_manifest(dataset).shards if shard.split == split)


def test_a_split_is_read_as_it_was_written(store: DirectoryStore, tiny_dataset: Path) -> None:
    manifest = read_manifest(tiny_dataset)
    for split in SPLITS:
        images, labels = read_split(store, manifest, split)
        assert images.shape == (manifest.images(split), 28, 28, 1)
        assert images.dtype == np.uint8
        assert labels.dtype == np.int64
        assert images.flags.c_contiguous
        assert split_digest(image_hashes(images), labels) == manifest.split_digests[split]


def test_a_large_split_is_written_as_several_shards(store: DirectoryStore, tiny_dataset: Path) -> None:
    images = np.zeros((3, 2000, 2500, 3), np.uint8)
    labels = np.arange(3)
    images[:, 0, 0, 0] = labels
    shards = tuple(write_split(store, "train", images, labels, ("0",)))
    assert [shard.images for shard in shards] == [2, 1]
    assert 2 * images[0].size <= SHARD_PIXELS < 3 * images[0].size

    manifest = dataclasses.replace(read_manifest(tiny_dataset), shape=(2000, 2500, 3), shards=shards)
    read_images, read_labels = read_split(store, manifest, "train")
    np.testing.assert_array_equal(read_images, images)
    np.testing.assert_array_equal(read_labels, labels)


def test_a_shard_lies_under_its_hash(store: DirectoryStore, tiny_dataset: Path) -> None:
    for shard in read_manifest(tiny_dataset).shards:
        content = store.read(shard.key)
        assert shard.sha256 == hashlib.sha256(content).hexdigest()
        assert shard.key == f"datasets/shards/{shard.sha256}.parquet"
        assert shard.bytes == len(content)


def test_other_tools_can_read_a_shard(store: DirectoryStore, tiny_dataset: Path) -> None:
    table = parquet.read_table(store.root / first_shard(tiny_dataset, "test").key)
    assert str(table.schema.field("image").type) == "fixed_size_binary[784]"
    assert str(table.schema.field("label").type) == "int64"
    assert json.loads(table.schema.metadata[b"shape"]) == [28, 28, 1]
    assert json.loads(table.schema.metadata[b"classes"]) == list("0123456789")
    images, labels = read_split(store, read_manifest(tiny_dataset), "test")
    assert table["image"][7].as_py() == images[7].tobytes()
    assert table["label"][7].as_py() == labels[7]


@pytest.mark.parametrize("offset", [0, 5000, -1])
def test_a_damaged_shard_is_found_and_named(store: DirectoryStore, tiny_dataset: Path, offset: int) -> None:
    shard = first_shard(tiny_dataset, "train")
    content = bytearray(store.read(shard.key))
    content[offset] ^= 1
    store.write(shard.key, bytes(content))
    with pytest.raises(StepError, match=f"{shard.key} .* is damaged"):
        read_split(store, read_manifest(tiny_dataset), "train")


def test_a_shard_that_is_gone_is_named(store: DirectoryStore, tiny_dataset: Path) -> None:
    shard = first_shard(tiny_dataset, "validation")
    (store.root / shard.key).unlink()
    with pytest.raises(StepError, match=f"{shard.key} is gone from store {store.uri}"):
        read_split(store, read_manifest(tiny_dataset), "validation")


def test_a_damaged_shard_of_another_split_does_no_harm(store: DirectoryStore, tiny_dataset: Path) -> None:
    store.write(first_shard(tiny_dataset, "train").key, b"")
    images, _ = read_split(store, read_manifest(tiny_dataset), "test")
    assert len(images) == 200


def test_the_canonical_order_is_that_of_hash_and_label() -> None:
    images = RANDOM.integers(0, 256, (50, 4, 4, 1), np.uint8)
    images[10:15] = images[0]  # the same image under several labels
    labels = RANDOM.integers(0, 9, 50)
    hashes = image_hashes(images)
    order = canonical_order(hashes, labels)
    expected = sorted(range(50), key=lambda index: (hashlib.sha256(images[index].tobytes()).digest(), labels[index]))
    assert [(hashes[i].tobytes(), labels[i]) for i in order] == [(hashes[i].tobytes(), labels[i]) for i in expected]


def test_the_digest_of_a_split_hangs_on_every_label_and_pixel() -> None:
    images = RANDOM.integers(0, 256, (5, 4, 4, 1), np.uint8)
    labels = np.arange(5)
    other_images, other_labels = images.copy(), labels.copy()
    other_images[3, 1, 2, 0] ^= 1
    other_labels[4] = 0
    digests = {
        split_digest(image_hashes(pixels), numbers)
        for pixels in (images, other_images)
        for numbers in (labels, other_labels)
    }
    assert len(digests) == 4
