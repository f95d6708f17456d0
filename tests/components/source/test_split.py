"""The names of splits."""

import pytest

from components.source.split import read_split, split_of_path
from components.step import UserError


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("val", "validation"),
        ("VALID", "validation"),
        ("dev", "validation"),
        ("validation", "validation"),
        ("test", "test"),
        ("testing", "test"),
        ("", None),
        (None, None),
    ],
)
def test_a_split_has_many_names(name: str | None, split: str | None) -> None:
    assert read_split(name, "row 1") == split


@pytest.mark.parametrize("name", ["holdout", "train ", 1, True])
def test_an_unknown_split_is_refused_with_its_place(name: object) -> None:
    with pytest.raises(UserError, match=r"^row 1 has the split .*; it must be one of train, .*, or empty$"):
        read_split(name, "row 1")


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("data/train-00000-of-00002.parquet", "train"),
        ("plain_text/test/0000.parquet", "test"),
        ("imagenet-val-000017.tar", "validation"),
        ("Valid.parquet", "validation"),
        ("train/dev-0.tar", "validation"),
        ("train1.tar", "train"),
        ("data/0000.parquet", None),
        ("latest.tar", None),
        ("training_set2/contest.tar", "train"),
        ("traintest.tar", None),
    ],
)
def test_a_path_tells_a_split_by_a_word_of_its_own(path: str, split: str | None) -> None:
    assert split_of_path(path) == split
