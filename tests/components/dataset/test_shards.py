import dataclasses
import hashlib
import json
import mmap
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest

from components.dataset.manifest import SPLITS, Manifest, Shard, read_manifest
from components.dataset.shards import (
    GROUP_BYTES,
    GROUP_ROWS,
    files,
    pixels,
    read_shard,
    read_split,
    write_shard,
)
from components.dataset.splits import Cuts
from components.step import StepError
from components.storage import DirectoryStore
from tests.components.dataset.pictures import jpeg

RANDOM = np.random.default_rng(0)
NAMES = ("cat", "dog", "owl")


def dataset(*shards: Shard, shape: tuple[int | None, int | None, int] = (None, None, 3)) -> Manifest:
    """A manifest of which only what reading needs is right."""
    return Manifest(
        classes=NAMES,
        encoding="encoded" if shape[0] is None else "raw",
        shape=shape,
        counts={},
        mean=(),
        std=(),
        split_digests={},
        digest="",
        shards=shards,
        facts=(),
        cuts=Cuts(0.1, 0.2, {}),
        parent=None,
        provenance={},
    )


def some_files(count: int) -> tuple[list[bytes], list[str]]:
    """Contents of every length, the empty one too, and labels."""
    return [RANDOM.bytes(number % 97 * 11) for number in range(count)], [NAMES[number % 3] for number in range(count)]


def first_shard(path: Path, split: str) -> Shard:
    return next(shard for shard in read_manifest(path).shards if shard.split == split)


# Raw


def test_a_split_is_read_as_it_was_written(store: DirectoryStore) -> None:
    images = RANDOM.integers(0, 256, (50, 5, 4, 3), np.uint8)
    labels = [NAMES[number % 3] for number in range(50)]
    contents = [image.tobytes() for image in images]
    shards = [
        write_shard(store, split, contents[part], labels[part], (5, 4, 3))
        for split, part in (("train", slice(0, 20)), ("test", slice(20, 30)), ("train", slice(30, 50)))
    ]
    read_images, read_labels = read_split(store, dataset(*shards, shape=(5, 4, 3)), "train")
    np.testing.assert_array_equal(read_images, np.concatenate([images[:20], images[30:]]))
    assert read_images.flags.c_contiguous
    assert read_images.dtype == np.uint8
    assert read_labels.dtype == np.int64
    assert [NAMES[label] for label in read_labels] == labels[:20] + labels[30:]


def test_a_dataset_without_images_in_a_split_gives_none(store: DirectoryStore) -> None:
    images, labels = read_split(store, dataset(shape=(5, 4, 3)), "train")
    assert (images.shape, labels.shape) == ((0, 5, 4, 3), (0,))


@pytest.mark.parametrize("count", [GROUP_ROWS, GROUP_ROWS + 1, 3 * GROUP_ROWS - 1])
def test_a_shard_of_many_small_images_is_read_as_it_was_written(store: DirectoryStore, count: int) -> None:
    images = RANDOM.integers(0, 256, (count, 2, 3, 1), np.uint8)
    labels = [NAMES[number % 2] for number in range(count)]
    shard = write_shard(store, "test", [image.tobytes() for image in images], labels, (2, 3, 1))
    found, numbers = pixels(read_shard(store, shard), shard, dataset(shard, shape=(2, 3, 1)))
    np.testing.assert_array_equal(found, images)
    assert numbers.tolist() == [number % 2 for number in range(count)]


def test_excluded_rows_do_not_come(store: DirectoryStore) -> None:
    images = RANDOM.integers(0, 256, (9, 2, 3, 1), np.uint8)
    shard = write_shard(store, "test", [image.tobytes() for image in images], ["cat"] * 8 + ["owl"], (2, 3, 1))
    shard = dataclasses.replace(shard, excluded=(0, 3, 7))
    assert shard.images == 6
    found, numbers = read_split(store, dataset(shard, shape=(2, 3, 1)), "test")
    np.testing.assert_array_equal(found, images[[1, 2, 4, 5, 6, 8]])
    assert numbers.tolist() == [0, 0, 0, 0, 0, 2]


def test_labels_are_numbered_by_the_classes_of_the_manifest(store: DirectoryStore) -> None:
    shard = write_shard(store, "test", [b"1", b"2", b"3"], ["owl", "cat", "owl"], (1, 1, 1))
    more = dataclasses.replace(dataset(shard, shape=(1, 1, 1)), classes=("ant", "cat", "dog", "owl"))
    assert read_split(store, more, "test")[1].tolist() == [3, 1, 3]


# Encoded


@pytest.mark.parametrize("count", [1, 500, GROUP_ROWS + 5])
def test_files_are_read_as_they_were_written(store: DirectoryStore, count: int) -> None:
    contents, labels = some_files(count)
    shard = write_shard(store, "train", contents, labels, None)
    found, numbers = files(read_shard(store, shard), shard, dataset(shard))
    assert list(map(bytes, found)) == contents
    assert [NAMES[number] for number in numbers] == labels
    assert numbers.dtype == np.int64


@pytest.mark.slow
def test_large_files_are_read_as_they_were_written(store: DirectoryStore) -> None:
    contents = [RANDOM.bytes(size) for size in (10, GROUP_BYTES + 1, 20, GROUP_BYTES - 5, 3 * GROUP_BYTES, 30)]
    shard = write_shard(store, "train", contents, ["cat"] * 6, None)
    found, _ = files(read_shard(store, shard), shard, dataset(shard))
    assert list(map(bytes, found)) == contents
    groups = parquet.ParquetFile(store.root / shard.key).metadata
    assert max(groups.row_group(number).total_byte_size for number in range(groups.num_row_groups)) < 3.1 * GROUP_BYTES


def test_files_are_read_from_a_mapped_shard_without_a_copy(store: DirectoryStore) -> None:
    contents, labels = some_files(300)
    shard = dataclasses.replace(write_shard(store, "train", contents, labels, None), excluded=(1, 299))
    with (store.root / shard.key).open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    found, numbers = files(mapped, shard, dataset(shard))
    assert all(view.obj is mapped for view in found)
    assert list(map(bytes, found)) == [contents[0], *contents[2:-1]]
    assert [NAMES[number] for number in numbers] == [labels[0], *labels[2:-1]]


def test_copies_of_a_shard_are_other_files_of_the_same_rows(store: DirectoryStore) -> None:
    contents, labels = some_files(30)
    shards = [write_shard(store, "train", contents, labels, None, copy) for copy in range(3)]
    assert len({shard.sha256 for shard in shards}) == 3
    for shard in shards:
        assert list(map(bytes, files(store.read(shard.key), shard, dataset(shard))[0])) == contents


# What others see


def test_a_shard_lies_under_its_hash(store: DirectoryStore) -> None:
    contents, labels = some_files(30)
    shard = write_shard(store, "validation", contents, labels, None)
    content = store.read(shard.key)
    assert shard.sha256 == hashlib.sha256(content).hexdigest()
    assert shard.key == f"datasets/shards/{shard.sha256}.parquet"
    assert (shard.bytes, shard.rows, shard.split) == (len(content), 30, "validation")
    assert list(store.keys("")) == [shard.key]


def test_other_tools_can_read_a_shard_of_files(store: DirectoryStore) -> None:
    shard = write_shard(store, "test", [jpeg(), b""], ["owl", "cat"], None)
    table = parquet.read_table(store.root / shard.key)
    assert str(table.schema.field("image").type) == "struct<bytes: binary, path: string>"
    assert str(table.schema.field("label").type) == "string"
    assert table.to_pylist()[0] == {"image": {"bytes": jpeg(), "path": None}, "label": "owl"}
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features == {"image": {"_type": "Image"}, "label": {"dtype": "string", "_type": "Value"}}
    # Otherwise `datasets` does not take the column for images.
    assert all(table.schema.field(name).nullable for name in ("image", "label"))


def test_other_tools_can_read_a_shard_of_pixels(store: DirectoryStore, tiny_dataset: Path) -> None:
    table = parquet.read_table(store.root / first_shard(tiny_dataset, "test").key)
    assert str(table.schema.field("image").type) == "fixed_size_binary[784]"
    assert json.loads(table.schema.metadata[b"shape"]) == [28, 28, 1]
    images, labels = read_split(store, read_manifest(tiny_dataset), "test")
    assert table["image"][7].as_py() == images[7].tobytes()
    assert table["label"][7].as_py() == str(labels[7])


def test_the_rows_of_a_shard_are_in_the_order_of_their_hashes(store: DirectoryStore, tiny_dataset: Path) -> None:
    for split in SPLITS:
        images, _ = read_split(store, read_manifest(tiny_dataset), split)
        hashes = [hashlib.sha256(image.tobytes()).digest() for image in images]
        assert hashes == sorted(hashes)


def test_the_same_rows_give_the_same_bytes_in_another_process(store: DirectoryStore) -> None:
    contents, labels = some_files(20)
    program = f"""
from components.dataset.shards import write_shard
from components.storage import open_store
import sys
print(write_shard(open_store(sys.argv[1]), "train", *{(contents, labels)!r}, None).sha256)
"""
    again = subprocess.run([sys.executable, "-c", program, store.uri], capture_output=True, text=True, check=True)
    assert again.stdout.strip() == write_shard(store, "train", contents, labels, None).sha256


# Damage


@pytest.mark.parametrize("offset", [0, 5000, -1])
def test_a_damaged_shard_is_found_and_named(store: DirectoryStore, tiny_dataset: Path, offset: int) -> None:
    shard = first_shard(tiny_dataset, "train")
    content = bytearray(store.read(shard.key))
    content[offset] ^= 1
    store.write(shard.key, bytes(content))
    with pytest.raises(StepError, match=f"{shard.key} .* is damaged; remove it and run the pipeline again"):
        read_split(store, read_manifest(tiny_dataset), "train")


def test_a_shard_that_is_gone_is_named(store: DirectoryStore, tiny_dataset: Path) -> None:
    shard = first_shard(tiny_dataset, "validation")
    (store.root / shard.key).unlink()
    with pytest.raises(StepError, match=f"{shard.key} is gone from store {store.uri}; run the pipeline again"):
        read_split(store, read_manifest(tiny_dataset), "validation")


def test_a_damaged_shard_of_another_split_does_no_harm(store: DirectoryStore, tiny_dataset: Path) -> None:
    store.write(first_shard(tiny_dataset, "train").key, b"")
    images, _ = read_split(store, read_manifest(tiny_dataset), "test")
    assert len(images) == 200
