"""What is checked before a dataset is published, each fault with real images."""

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.dataset.manifest import Manifest, read_manifest
from components.ingest.checks import Balance
from components.step import StepError
from components.storage import DirectoryStore
from tests.components.ingest.trees import classes, commit, make, noise, plant, png, prepare, split_classes
from tests.components.source.archives import tar


def refusal(source: Path, store: DirectoryStore, folder: Path, limits: str = "", **options: Any) -> str:
    """Why a source is refused; nothing is published, and the report is where the sentence says."""
    before = list(store.keys("datasets/"))
    plan = prepare(source, store, folder, **options)
    with pytest.raises(StepError) as refused:
        commit(plan, store, folder, limits=limits)
    sentence = str(refused.value)
    assert f"mend the source or set limits, see ingest/{plan}/report.html in store {store.uri}" in sentence
    assert b"Refused" in store.read(f"ingest/{plan}/report.html")
    assert (folder / "report").read_bytes() == store.read(f"ingest/{plan}/report.html")
    assert not (folder / "dataset").exists()
    assert not (folder / "decision").exists()
    assert [key for key in store.keys("datasets/") if key.endswith(".json") and key not in before] == []
    return sentence


def measured(manifest: Manifest) -> dict[str, float]:
    return {check["name"]: check["measured"] for check in manifest.provenance["checks"]}


def excluded(manifest: Manifest) -> int:
    return sum(len(shard.excluded) for shard in manifest.shards)


# Damaged entries


def test_damaged_images_are_counted_and_pass_the_limit(store: DirectoryStore, tmp_path: Path) -> None:
    source = plant(tmp_path / "source", classes() | {"cat/bad.png": noise(1)[:100], "dog/empty.png": b""})
    sentence = refusal(source, store, tmp_path / "first")
    assert sentence.startswith(f"source {str(source)!r} is refused: ")
    assert "2 of 26 entries were quarantined (7.69 %), and damaged allows 1 %" in sentence
    manifest = make(source, store, tmp_path / "second", "damaged=0.1")
    assert measured(manifest)["damaged"] == pytest.approx(2 / 26)
    assert sum(manifest.provenance["quarantined"].values()) == 2


def test_what_an_archive_held_counts_where_it_was_cut_off(store: DirectoryStore, tmp_path: Path) -> None:
    archives = [
        tar(
            [
                (f"{n:03}.{end}", noise(100 * a + n) if end == "png" else b"%d" % (n % 2))
                for n in range(60)
                for end in ("png", "cls")
            ]
        )
        for a in range(2)
    ]
    source = plant(tmp_path / "source", {"0.tar": archives[0], "1.tar": archives[1][: len(archives[1]) // 12]})
    sentence = refusal(source, store, tmp_path / "made")
    quarantined, entries = map(int, re.search(r"refused: (\d+) of (\d+) entries were quarantined", sentence).groups())  # type: ignore[union-attr]
    assert 40 <= quarantined <= 70
    assert entries == pytest.approx(120, abs=10)


# Exact copies


def test_copies_within_a_split_stay_and_are_counted(store: DirectoryStore, tmp_path: Path) -> None:
    files = split_classes()
    files["train/cat/again.png"] = files["train/cat/0.png"]
    source = plant(tmp_path / "source", files)
    manifest = make(source, store, tmp_path / "made")
    assert manifest.counts["train"]["cat"] == 5
    assert measured(manifest)["duplicates"] == pytest.approx(1 / 25)
    assert excluded(manifest) == 0
    assert "1 of 25 images are copies of others of their split (4 %), and duplicates allows 1 %" in refusal(
        source, store, tmp_path / "limited", "duplicates=0.01"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("original", "copy", "stays"),
    [("test", "train", "test"), ("validation", "train", "validation"), ("test", "validation", "test")],
)
def test_a_copy_in_another_split_is_excluded_where_it_is_not_judged(
    store: DirectoryStore, tmp_path: Path, original: str, copy: str, stays: str
) -> None:
    files = split_classes()
    files[f"{copy}/cat/leak.png"] = files[f"{original}/cat/1.png"]
    source = plant(tmp_path / "source", files)
    assert "1 of 16 validation and test images were in another split, too (6.25 %), and leaks allows 1 %" in refusal(
        source, store, tmp_path / "strict"
    )
    manifest = make(source, store, tmp_path / "made", "leaks=0.1")
    assert all(count == 4 for counts in manifest.counts.values() for count in counts.values())
    (shard,) = (shard for shard in manifest.shards if shard.excluded)
    assert (shard.split, shard.rows, shard.images) == (copy, 9, 8)
    assert stays != copy
    assert manifest.provenance["excluded"]["leaked"] == 1


def test_an_image_under_two_labels_is_excluded_with_all_of_its_copies(store: DirectoryStore, tmp_path: Path) -> None:
    files = split_classes()
    files["test/dog/conflict.png"] = files["train/dog/conflict.png"] = files["train/cat/0.png"]
    source = plant(tmp_path / "source", files)
    assert "3 of 26 images have two labels and were excluded (11.5 %), and conflicts allows 1 %" in refusal(
        source, store, tmp_path / "strict"
    )
    manifest = make(source, store, tmp_path / "made", "conflicts=0.2")
    assert manifest.counts["train"] == {"cat": 3, "dog": 4}
    assert manifest.counts["test"] == {"cat": 4, "dog": 4}
    assert manifest.provenance["excluded"] == {"two labels": 3, "leaked": 0, "in the parent": 0}
    assert measured(manifest)["leaks"] == 0


def test_a_class_of_which_every_image_is_excluded_is_a_class_without_images(
    store: DirectoryStore, tmp_path: Path
) -> None:
    files = split_classes()
    for split in ("train", "validation", "test"):
        files[f"{split}/wolf/0.png"] = files[f"{split}/dog/0.png"]
    source = plant(tmp_path / "source", files)
    assert "class 'wolf' has 0 in train, class 'wolf' has 0 in validation" in refusal(
        source, store, tmp_path / "strict", "conflicts=1"
    )
    manifest = make(source, store, tmp_path / "made", "conflicts=1 min_images=0")
    assert manifest.classes == ("cat", "dog", "wolf")
    assert manifest.counts["train"] == {"cat": 4, "dog": 3, "wolf": 0}


# Likenesses


def similar(seed: int, brighter: int) -> bytes:
    """A picture of few large patches, all of which are a little brighter or darker."""
    patches = np.random.default_rng(seed).integers(40, 200, (9, 9, 3), np.uint8)
    return png(np.kron(patches + np.uint8(brighter), np.ones((8, 8, 1), np.uint8)))


def test_images_that_look_alike_are_counted_within_and_across_the_splits(store: DirectoryStore, tmp_path: Path) -> None:
    files = split_classes()
    files |= {"train/cat/a.png": similar(1, 0), "train/dog/b.png": similar(1, 9), "test/cat/c.png": similar(1, 20)}
    source = plant(tmp_path / "source", files)
    manifest = make(source, store, tmp_path / "made")
    assert measured(manifest)["near_duplicates"] == pytest.approx(2 / 27)
    assert measured(manifest)["near_leaks"] == pytest.approx(1 / 17)
    assert excluded(manifest) == 0  # nobody knows whether they are the same
    sentence = refusal(source, store, tmp_path / "strict", "near_leaks=0 near_duplicates=0.05")
    assert "1 of 17 validation and test images look like one of another split (5.88 %)" in sentence
    assert "; 2 of 27 images look like others of their split (7.41 %), and near_duplicates allows 5 %" in sentence


# Balance


def test_every_class_needs_an_image_in_every_split(store: DirectoryStore, tmp_path: Path) -> None:
    files = {name: content for name, content in split_classes().items() if not name.startswith("test/dog")}
    source = plant(tmp_path / "source", files)
    sentence = refusal(source, store, tmp_path / "strict")
    assert "images of a class in a split: class 'dog' has 0 in test, and min_images asks for 1" in sentence
    assert make(source, store, tmp_path / "made", "min_images=0").counts["test"] == {"cat": 4, "dog": 0}


def test_min_images_names_the_classes_that_are_short_of_it(store: DirectoryStore, tmp_path: Path) -> None:
    source = plant(tmp_path / "source", split_classes())
    sentence = refusal(source, store, tmp_path / "strict", "min_images=5")
    assert (
        "class 'cat' has 4 in train, class 'dog' has 4 in train, class 'cat' has 4 in validation and 3 more" in sentence
    )


def test_drift_is_how_far_what_was_appended_is_from_the_parent(store: DirectoryStore, tmp_path: Path) -> None:
    parent = make(plant(tmp_path / "old", classes(12)), store, tmp_path / "parent")
    source = plant(tmp_path / "new", classes(12, ("cat",), seed=50_000) | classes(4, ("dog",), seed=60_000))
    sentence = refusal(source, store, tmp_path / "strict", "drift=0.2", parent=parent.digest)
    assert "the class shares of what was appended are 0.25 from the parent's; most moved " in sentence
    assert "'cat' by +25 points" in sentence
    assert "and drift allows 20 %" in sentence
    manifest = make(source, store, tmp_path / "made", parent=parent.digest)
    assert measured(manifest)["drift"] == pytest.approx(0.25)


def test_the_distance_of_shares_is_half_of_what_they_differ_by() -> None:
    balance = Balance({}, appended={"a": 1, "b": 0, "c": 1}, parent={"a": 5, "b": 5, "c": 0})
    assert balance.drift == pytest.approx(0.5)
    assert Balance({}, appended={"a": 1}, parent={}).drift == 0
    assert Balance({}, appended={"a": 0}, parent={"a": 1}).drift == 0


# What no limit allows


def test_a_source_of_which_nothing_is_usable_is_refused_whatever_the_limits(
    store: DirectoryStore, tmp_path: Path
) -> None:
    source = plant(tmp_path / "source", {"cat/a.png": b"no image", "dog/b.png": b""})
    assert "no image is left to train on" in refusal(source, store, tmp_path / "made", "damaged=1 min_images=0")


@pytest.mark.parametrize(("images", "use"), [(1, "validate with"), (2, "test with")])
def test_a_split_without_any_image_is_refused_whatever_the_limits(
    images: int, use: str, store: DirectoryStore, tmp_path: Path
) -> None:
    files = {f"{name}/{n}.png": noise(n + 9 * len(name)) for name in ("cat", "horse") for n in range(images)}
    source = plant(tmp_path / "source", files)
    assert f"no image is left to {use}" in refusal(source, store, tmp_path / "made", "min_images=0")


def test_a_channel_that_never_varies_is_refused(store: DirectoryStore, tmp_path: Path) -> None:
    def blueless(seed: int) -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
        pixels[..., 2] = 9
        return png(pixels)

    source = plant(
        tmp_path / "source",
        {f"{name}/{n}.png": blueless(n + 99 * len(name)) for name in ("cat", "horse") for n in range(9)},
    )
    assert "channel 2 has the same value in every pixel of every training image" in refusal(
        source, store, tmp_path / "made"
    )


def test_groups_that_share_an_image_are_not_torn_but_the_copy_is_excluded(
    store: DirectoryStore, tmp_path: Path
) -> None:
    pictures = plant(tmp_path / "pictures", {f"{n}.png": noise(n) for n in range(60)})
    rows = [(f"{n}.png", "cat" if n % 2 else "dog", f"patient {n // 2 % 15}") for n in range(60)]
    with (pictures / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("uri", "label", "group"), *rows])
    manifest = make(pictures / "table.csv", store, tmp_path / "made", "min_images=0 leaks=1")
    assert sum(map(manifest.images, ("train", "validation", "test"))) == 60
    assert read_manifest(tmp_path / "made" / "dataset") == manifest


def test_groups_that_the_splits_of_the_source_tear_apart_are_counted(store: DirectoryStore, tmp_path: Path) -> None:
    pictures = plant(tmp_path / "pictures", {f"{n}.png": noise(n) for n in range(60)})
    # Of ten patients three have all of their images in the test split, and two some of them.
    tested = {n for n in range(60) if n % 10 < 3} | {3, 14, 24}
    rows = [
        (f"{n}.png", "cat" if n // 10 % 2 else "dog", "test" if n in tested else "", f"patient {n % 10}")
        for n in range(60)
    ]
    with (pictures / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("uri", "label", "split", "group"), *rows])
    said = refusal(pictures / "table.csv", store, tmp_path / "made", "min_images=0")
    assert "2 of 10 groups have images in more than one split (20 %), and torn_groups allows 0 %" in said
    assert make(pictures / "table.csv", store, tmp_path / "made", "min_images=0 torn_groups=0.2").images("test") == 21
