"""What became of one dataset in another."""

from pathlib import Path

import pytest

from components.dataset.comparison import EXAMPLES, compare
from components.storage import DirectoryStore
from tests.components.ingest.trees import classes, make, noise, plant, split_classes


def test_a_dataset_does_not_differ_from_itself(store: DirectoryStore, tmp_path: Path) -> None:
    manifest = make(plant(tmp_path / "source", classes()), store, tmp_path / "made")
    found = compare(store, manifest, manifest)
    assert (found.same, found.relabelled, found.moved) == (24, 0, 0)
    assert not found.added
    assert not found.removed
    assert not any(found.examples.values())


@pytest.mark.slow
@pytest.mark.parametrize("records", [2**18, 3])
def test_what_was_added_removed_relabelled_and_moved_is_counted_and_named(
    store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records: int
) -> None:
    monkeypatch.setattr("components.dataset.buckets.RECORDS", records)
    files = split_classes(count=6)
    old = make(plant(tmp_path / "old", files), store, tmp_path / "made old")
    files["train/dog/was a cat.png"] = files.pop("train/cat/0.png")
    files["test/cat/moved.png"] = files.pop("train/cat/1.png")
    del files["validation/dog/2.png"], files["validation/dog/3.png"]
    files["train/wolf/new.png"] = noise(123_456)
    new = make(plant(tmp_path / "new", files), store, tmp_path / "made new", "min_images=0")
    found = compare(store, old, new)
    assert (found.added, found.removed) == ({"wolf": 1}, {"dog": 2})
    assert (found.relabelled, found.moved, found.same) == (1, 1, 32)
    assert found.examples["added"] == ["train/wolf/new.png"]
    assert sorted(found.examples["removed"]) == ["validation/dog/2.png", "validation/dog/3.png"]
    assert found.examples["relabelled"] == ["train/dog/was a cat.png: cat → dog"]
    assert found.examples["moved"] == ["test/cat/moved.png: train → test"]
    back = compare(store, new, old)
    assert (back.added, back.removed, back.relabelled) == (found.removed, found.added, 1)


def test_copies_are_counted_one_by_one(store: DirectoryStore, tmp_path: Path) -> None:
    files = split_classes()
    old = make(plant(tmp_path / "old", files), store, tmp_path / "made old")
    files |= {f"train/cat/copy {n}.png": files["train/cat/0.png"] for n in range(3)}
    new = make(plant(tmp_path / "new", files), store, tmp_path / "made new")
    found = compare(store, old, new)
    assert (found.added, found.same) == ({"cat": 3}, 24)
    assert compare(store, new, old).removed == {"cat": 3}


def test_appending_moves_no_image(store: DirectoryStore, tmp_path: Path) -> None:
    parent = make(plant(tmp_path / "old", classes(40)), store, tmp_path / "parent")
    source = plant(tmp_path / "new", classes(40, ("dog", "wolf"), seed=90_000))
    new = make(source, store, tmp_path / "new made", parent=parent.digest)
    found = compare(store, parent, new)
    assert (found.moved, found.relabelled, found.same) == (0, 0, 80)
    assert found.added == {"dog": 40, "wolf": 40}
    assert not found.removed
    assert len(found.examples["added"]) == EXAMPLES
