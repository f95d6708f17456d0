"""Folders of images by class."""

import threading
import time
from pathlib import Path

import pytest

from components.source import open_source
from components.source.example import Rejected
from components.source.tree import Tree
from components.step import StepError, UserError
from components.storage import DirectoryStore, Store, open_store
from tests.components.source.reading import examples, fill, read_all, rejections

ANIMALS = {f"{name}/{number}.jpg": f"{name} {number}".encode() for name in ("cat", "dog") for number in range(3)}


def test_the_folder_names_the_class(any_store: Store) -> None:
    source = open_source(fill(any_store, ANIMALS))
    assert source.kind == "tree"
    assert source.shape is None
    assert [(e.name, e.label, e.content, e.split) for e in examples(source)] == [
        (key, key[:3], content, None) for key, content in ANIMALS.items()
    ]
    assert source.splits == frozenset()


def test_folders_above_the_classes_name_the_splits(any_store: Store) -> None:
    source = open_source(fill(any_store, {"Train/cat/1.png": b"1", "val/cat/2.png": b"2", "testing/dog/3.png": b"3"}))
    assert [(e.label, e.split) for e in examples(source)] == [("cat", "train"), ("dog", "test"), ("cat", "validation")]
    assert source.splits == {"validation", "test"}


def test_training_images_alone_leave_both_splits_to_be_cut(tmp_path: Path) -> None:
    source = open_source(fill(open_store(str(tmp_path)), {"train/cat/1.png": b"1"}))
    assert [e.split for e in examples(source)] == ["train"]
    assert source.splits == frozenset()


def test_a_class_may_be_called_like_a_split(tmp_path: Path) -> None:
    source = open_source(fill(open_store(str(tmp_path)), {"plane/1.png": b"1", "train/2.png": b"2"}))
    assert [(e.label, e.split) for e in examples(source)] == [("plane", None), ("train", None)]


@pytest.mark.parametrize("other", ["extra", "zebra"])
def test_splits_beside_classes_are_refused(tmp_path: Path, other: str) -> None:
    source = open_source(fill(open_store(str(tmp_path)), {"train/cat/1.png": b"1", f"{other}/2.png": b"2"}))
    with pytest.raises(UserError, match=f"at its top 'train', which is a split .* beside '{other}', which is a class"):
        list(source.pieces())


def test_an_image_may_lie_at_any_depth_below_its_class(tmp_path: Path) -> None:
    assert [e.label for e in examples(open_source(fill(open_store(str(tmp_path)), {"cat/a/b/c/1.png": b"1"})))] == [
        "cat"
    ]


def test_an_image_outside_of_the_classes_has_no_label(any_store: Store) -> None:
    source = open_source(fill(any_store, ANIMALS | {"stray.png": b"!"}))
    assert rejections(source) == {"stray.png": ("no label", "lies in no folder that names its class")}
    assert len(read_all(source)) == 7


def test_an_image_beside_the_classes_of_a_split_has_no_label(tmp_path: Path) -> None:
    source = open_source(fill(open_store(str(tmp_path)), {"train/cat/1.png": b"1", "train/stray.png": b"!"}))
    assert list(rejections(source)) == ["train/stray.png"]


def test_images_are_known_by_their_suffix_in_any_case_and_other_files_are_counted(any_store: Store) -> None:
    images = {f"cat/1.{suffix}": b"x" for suffix in ("jpg", "JPEG", "Png", "webp", "bmp", "tif", "TIFF", "gif")}
    source = open_source(
        fill(any_store, images | {"cat/Thumbs.db": b"", "README": b"", "cat/1.txt": b"", "x.txt": b""})
    )
    assert len(examples(source)) == len(images)
    assert source.passed_over == {".db": 1, "(none)": 1, ".txt": 2}


def test_names_may_hold_any_letters(any_store: Store) -> None:
    files = {"Ärger & Co/日本 #1 100%.jpg": b"x", "a b/c'\"+.jpg": b"y"}
    assert {e.name: e.content for e in examples(open_source(fill(any_store, files)))} == files


def test_the_order_is_that_of_the_names_wherever_they_lie(any_store: Store) -> None:
    files = {f"{folder}/{name}.png": b"x" for folder in ("b", "a", "a b", "a.b", "Z", "é") for name in ("2", "10", "1")}
    names = [e.name for e in examples(open_source(fill(any_store, files)))]
    assert names == sorted(files, key=str.encode)


def test_links_are_counted_and_not_followed_out_of_the_tree(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    fill(open_store(str(tmp_path / "tree")), ANIMALS)
    (tmp_path / "tree" / "cat" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (tmp_path / "tree" / "all").symlink_to(tmp_path)
    (tmp_path / "tree" / "cat" / "again.jpg").symlink_to("0.jpg")
    source = open_source(str(tmp_path / "tree"))
    assert len(examples(source)) == 7
    assert source.passed_over == {"(symbolic link)": 2}


def test_a_file_that_becomes_a_link_after_it_was_listed_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    source = open_source(fill(open_store(str(tmp_path / "tree")), ANIMALS))
    pieces = list(source.pieces())
    (tmp_path / "tree" / "cat" / "1.jpg").unlink()
    (tmp_path / "tree" / "cat" / "1.jpg").symlink_to(tmp_path / "secret.jpg")
    found = {entry.name: entry for entry in source.examples(pieces)}
    assert found["cat/1.jpg"] == Rejected("cat/1.jpg", "changed", "became a link after it was listed")
    assert len(found) == 6


def test_a_file_that_changes_after_it_was_listed_is_rejected(any_store: Store) -> None:
    source = open_source(fill(any_store, ANIMALS))
    pieces = list(source.pieces())
    any_store.write("cat/1.jpg", b"another")
    found = {entry.name: entry for entry in source.examples(pieces)}
    assert len(found) == 6
    assert getattr(found["cat/1.jpg"], "reason", "") == "changed"


def test_a_file_that_vanishes_after_it_was_listed_is_rejected(tmp_path: Path) -> None:
    source = open_source(fill(open_store(str(tmp_path)), ANIMALS))
    pieces = list(source.pieces())
    (tmp_path / "dog" / "2.jpg").unlink()
    assert [e.name for e in source.examples(pieces) if getattr(e, "reason", "") == "changed"] == ["dog/2.jpg"]


class Failing(DirectoryStore):
    """A store of which one file cannot be read."""

    def __init__(self, root: Path, error: Exception) -> None:
        super().__init__(root)
        self.error = error

    def read(self, key: str, start: int = 0, length: int | None = None, version: str | None = None) -> bytes:
        if key == "cat/2.jpg":
            raise self.error
        return super().read(key, start, length, version)


@pytest.mark.parametrize("error", [StepError("the store is gone"), UserError("give yourself the permission")])
def test_what_another_try_may_mend_ends_the_step(tmp_path: Path, error: Exception) -> None:
    fill(open_store(str(tmp_path)), ANIMALS)
    with pytest.raises(type(error), match=str(error)):
        read_all(Tree(Failing(tmp_path, error)))


def test_a_file_that_is_no_image_by_its_size_is_not_read(tmp_path: Path) -> None:
    fill(open_store(str(tmp_path)), ANIMALS)
    with (tmp_path / "cat" / "huge.jpg").open("wb") as file:
        file.truncate(2**30)
    assert rejections(open_source(str(tmp_path))) == {
        "cat/huge.jpg": ("unsupported", "has 1,024 MiB; files up to 128 MiB are read")
    }


class Slow(DirectoryStore):
    """The first file takes its time; of the others eight must be read at once."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.together = threading.Barrier(8)

    def read(self, key: str, start: int = 0, length: int | None = None, version: str | None = None) -> bytes:
        if key == "cat/00.png":
            time.sleep(0.1)
        else:
            self.together.wait(timeout=10)
        return super().read(key, start, length, version)


def test_many_files_are_read_at_the_same_time_and_come_in_order(tmp_path: Path) -> None:
    files = {f"cat/{number:02}.png": bytes([number]) * 2**20 for number in range(17)}  # each a batch by itself
    fill(open_store(str(tmp_path)), files)
    source = Tree(Slow(tmp_path))
    assert [e.content for e in examples(source)] == list(files.values())
