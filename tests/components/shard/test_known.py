import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa

from components.dataset import facts
from components.dataset.manifest import Shard
from components.shard.known import Known
from components.storage import DirectoryStore
from tests.components.dataset.test_shards import dataset


def hashed(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def known(store: DirectoryStore, folder: Path, *images: tuple[str, str], excluded: tuple[int, ...] = ()) -> Known:
    """A data set of images by content and label, a hundred a shard; of each shard these rows are excluded."""
    files, shards = [], []
    for start in range(0, len(images), 100):
        some = images[start : start + 100]
        columns = {
            "sha256": [hashed(content) for content, _ in some],
            "label": [label for _, label in some],
            "split": ["train"] * len(some),
            "group": [None] * len(some),
            "name": [content for content, _ in some],
            **dict.fromkeys(("width", "height", "channels", "bytes", "phash"), [1] * len(some)),
            "shard": [str(start)] * len(some),
            "row": np.arange(len(some)),
        }
        writer = facts.Writer(folder / str(start))
        writer.add(pa.table(columns, schema=facts.SCHEMA))
        file = writer.close(store)
        assert file is not None
        files.append(file)
        shards.append(Shard("", str(start), 0, "train", len(some), excluded))
    return Known(folder / "known", store, dataclasses.replace(dataset(*shards), facts=tuple(files)))


def test_what_a_data_set_has_is_known_and_nothing_else(store: DirectoryStore, tmp_path: Path) -> None:
    images = [(str(number), f"class {number % 3}") for number in range(1000)]
    index = known(store, tmp_path, *images)
    assert index.among([hashed(content) for content, _ in images], [label for _, label in images]).all()
    others = [str(number) for number in range(1000, 3000)]
    assert not index.among([hashed(content) for content in others], ["class 0"] * 2000).any()


def test_an_image_under_another_label_is_not_known(store: DirectoryStore, tmp_path: Path) -> None:
    index = known(store, tmp_path, ("a", "cat"), ("a", "dog"), ("b", "cat"), ("b", "cat"))
    asked = [("a", "cat"), ("a", "dog"), ("a", "owl"), ("b", "cat"), ("b", "dog"), ("c", "cat")]
    found = index.among([hashed(content) for content, _ in asked], [label for _, label in asked])
    assert found.tolist() == [True, True, False, True, False, False]


def test_an_image_that_the_data_set_excludes_is_not_known(store: DirectoryStore, tmp_path: Path) -> None:
    index = known(store, tmp_path, ("a", "cat"), ("b", "cat"), ("c", "cat"), excluded=(1,))
    assert index.among([hashed(content) for content in "abc"], ["cat"] * 3).tolist() == [True, False, True]


def test_without_a_data_set_nothing_is_known(store: DirectoryStore, tmp_path: Path) -> None:
    index = Known(tmp_path / "known", store, None)
    assert index.among([hashed("a")], ["cat"]).tolist() == [False]
    assert index.among([], []).tolist() == []


def test_nothing_is_asked_of_a_data_set(store: DirectoryStore, tmp_path: Path) -> None:
    assert known(store, tmp_path, ("a", "cat")).among([], []).tolist() == []
