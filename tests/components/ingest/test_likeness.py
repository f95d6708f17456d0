"""Images that look alike."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from components.dataset import buckets
from components.ingest import likeness
from components.ingest.likeness import DISTANCE, PLACE, Likeness, Likenesses

TRAIN, VALIDATION, TEST = range(3)


def images(*pairs: tuple[int, int]) -> NDArray[Any]:
    """Images by perceptual hash and split; `row` is their number."""
    found = np.zeros(len(pairs), PLACE)
    for row, (phash, split) in enumerate(pairs):
        found[row] = (phash, split, 0, row)
    return found


def find(folder: Path, records: NDArray[Any]) -> Likeness:
    folder.mkdir(exist_ok=True)
    likenesses = Likenesses(folder, len(records))
    likenesses.add(records)
    return likenesses.find()


def compare_all(records: NDArray[Any]) -> tuple[int, int]:
    """Near duplicates and near leaks by comparing each with each."""
    phashes, splits = records["phash"], records["split"]
    near = np.bitwise_count(phashes[:, None] ^ phashes[None]) <= DISTANCE
    np.fill_diagonal(near, False)
    same = splits[:, None] == splits[None]
    return int((near & same).any(axis=1).sum()), int((near & ~same).any(axis=1)[splits != TRAIN].sum())


def test_images_with_the_same_hash_look_alike(tmp_path: Path) -> None:
    found = find(tmp_path, images((7, TRAIN), (7, TRAIN), (7, TEST), (2**60, TRAIN)))
    assert (found.near_duplicates, found.near_leaks) == (2, 1)


@pytest.mark.parametrize("bits", [[0], [63], [0, 1], [5, 10], [1, 30, 62], [61, 62, 63]])
def test_hashes_that_differ_in_few_bits_look_alike(tmp_path: Path, bits: list[int]) -> None:
    other = 0x0123456789ABCDEF ^ sum(1 << bit for bit in bits)
    found = find(tmp_path, images((0x0123456789ABCDEF, TRAIN), (other, VALIDATION)))
    assert (found.near_duplicates, found.near_leaks) == (0, 1)


def test_hashes_that_differ_in_more_bits_do_not(tmp_path: Path) -> None:
    found = find(tmp_path, images((0, TRAIN), (0b1111, TRAIN), (0b11110000, TEST)))
    assert (found.near_duplicates, found.near_leaks) == (0, 0)


def test_the_training_split_has_no_leaks_of_its_own(tmp_path: Path) -> None:
    found = find(tmp_path, images((1, TRAIN), (1, TRAIN), (3, TEST), (2, VALIDATION)))
    assert (found.near_duplicates, found.near_leaks) == (2, 2)


def test_without_images_nothing_looks_alike(tmp_path: Path) -> None:
    assert find(tmp_path, images()) == Likeness(examples={"near_duplicates": [], "near_leaks": []})


@pytest.mark.slow
@settings(max_examples=60)
@given(
    # Few bits of few bytes, so that there is much that is near.
    st.lists(st.tuples(st.integers(0, 2**10 - 1), st.integers(0, 2)), max_size=40),
    st.integers(1, 2**64 - 1),
)
def test_the_counts_are_those_of_comparing_each_with_each(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[int, int]], odd: int
) -> None:
    spread = [((value * (odd | 1)) % 2**64, split) for value, split in pairs]
    for records in (images(*pairs), images(*spread)):
        found = find(tmp_path_factory.mktemp("likeness"), records)
        assert (found.near_duplicates, found.near_leaks) == compare_all(records)


@pytest.mark.slow
def test_the_number_of_buckets_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    parents = random.integers(0, 2**64, 300, np.uint64)
    flips = np.bitwise_or.reduce(np.uint64(1) << random.integers(0, 64, (3, 2000), np.uint64))
    records = np.zeros(2000, PLACE)
    records["phash"] = parents[random.integers(0, 300, 2000)] ^ flips
    records["split"] = random.integers(0, 3, 2000)
    whole = find(tmp_path / "whole", records)
    monkeypatch.setattr(buckets, "RECORDS", 100)
    parts = find(tmp_path / "parts", records)
    assert len(list((tmp_path / "parts" / "phashes").iterdir())) > 10
    expected = compare_all(records)
    for found in (whole, parts):
        assert (found.near_duplicates, found.near_leaks) == expected


def test_the_examples_are_pairs_that_look_alike(tmp_path: Path) -> None:
    many = 2**40 - 1
    records = images((0, TRAIN), (1, TEST), (many, TRAIN), (many, TRAIN), (2**64 - 1, TEST), (2**20 - 1, VALIDATION))
    found = find(tmp_path, records)
    (leak,) = found.examples["near_leaks"]
    assert {int(image["row"]) for image in leak} == {0, 1}
    (duplicate,) = found.examples["near_duplicates"]
    assert {int(image["row"]) for image in duplicate} == {2, 3}


def test_the_examples_are_few(tmp_path: Path) -> None:
    found = find(tmp_path, images(*((value, value % 3) for value in range(500))))
    assert [len(pairs) for pairs in found.examples.values()] == [likeness.EXAMPLES] * 2


@pytest.mark.slow
@pytest.mark.parametrize("bits", [0, 8, 20])
def test_very_many_images_that_look_alike_are_not_compared_each_with_each(tmp_path: Path, bits: int) -> None:
    count = 300_000
    records = np.zeros(count, PLACE)
    records["phash"] = np.random.default_rng(0).integers(0, 2**bits, count, np.uint64)
    assert find(tmp_path, records).near_duplicates > 0.99 * count  # in hours, if they were


def test_of_images_with_one_hash_few_are_kept(tmp_path: Path) -> None:
    likenesses = Likenesses(tmp_path, 30_000)
    records = images(*((5, row % 3) for row in range(10_000)))
    for _ in range(3):
        likenesses.add(records)
    assert sum(map(len, likenesses.images)) == 3 * 3 * 2
    found = likenesses.find()
    assert (found.near_duplicates, found.near_leaks) == (30_000, 2 * 3 * 3333)
    assert all(one["row"] != other["row"] for one, other in found.examples["near_duplicates"])
