from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from components.ingest.idx import Images, Source
from components.ingest.splits import Split, cut, name_classes
from components.step import UserError

TEST = Images(np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1), np.array([0, 1, 2]))


def source(labels: list[int], images: NDArray[np.uint8] | None = None, test: Images = TEST) -> Source:
    """Training images 4x4 with these labels: random ones, unless they are given."""
    if images is None:
        images = np.random.default_rng(0).integers(0, 256, (len(labels), 4, 4, 1), np.uint8)
    return Source(Images(images, np.array(labels)), test, {})


def contents(split: Split) -> list[tuple[bytes, int]]:
    return [(image.tobytes(), int(label)) for image, label in zip(split.images, split.labels, strict=True)]


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_every_class_is_cut_by_the_same_fraction(fraction: float) -> None:
    splits = cut(source([0] * 20 + [1] * 40 + [2] * 80), fraction)
    share = Fraction(fraction)
    assert np.bincount(splits["validation"].labels).tolist() == [round(count * share) for count in (20, 40, 80)]


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_every_class_with_two_images_has_one_in_training_and_in_validation(fraction: float) -> None:
    splits = cut(source([0, 0, 1, 1, 2, 2]), fraction)
    assert sorted(splits["train"].labels.tolist()) == sorted(splits["validation"].labels.tolist()) == [0, 1, 2]


def test_no_image_is_lost_or_made_up() -> None:
    before = source([0] * 20 + [1] * 40 + [2] * 80)
    splits = cut(before, 0.3)
    after = contents(splits["train"]) + contents(splits["validation"])
    assert sorted(after) == sorted(
        (image.tobytes(), int(label)) for image, label in zip(before.train.images, before.train.labels, strict=True)
    )


def test_the_test_split_is_what_the_source_has_for_it() -> None:
    splits = cut(source([0, 0, 1, 1, 2, 2]), 0.5)
    assert sorted(contents(splits["test"])) == [(b"\0", 0), (b"\1", 1), (b"\2", 2)]


def test_the_order_of_the_source_does_not_matter() -> None:
    random = np.random.default_rng(1)
    labels = random.integers(0, 3, 100)
    images = random.integers(0, 3, (100, 2, 2, 1), np.uint8)  # few pixels: many images come more than once
    order = random.permutation(100)
    one, other = cut(source(labels.tolist(), images), 0.2), cut(source(labels[order].tolist(), images[order]), 0.2)
    for name in one:
        assert contents(one[name]) == contents(other[name])


def test_identical_images_are_never_on_both_sides_of_the_cut() -> None:
    random = np.random.default_rng(2)
    images = random.integers(0, 2, (200, 2, 2, 1), np.uint8)  # 16 different images under 3 labels
    splits = cut(source(random.integers(0, 3, 200).tolist(), images), 0.4)
    train, validation = ({image for image, _ in contents(splits[name])} for name in ("train", "validation"))
    assert train
    assert validation
    assert not train & validation


def test_classes_are_named_by_their_numbers() -> None:
    assert name_classes(cut(source([0, 1, 2] * 2), 0.5)) == ("0", "1", "2")


@pytest.mark.parametrize(
    ("labels", "test_labels", "missing"),
    [
        ([0, 0, 2, 2], [0, 2, 2], "class '1' has no image in the train split"),
        ([0, 0, 1, 1], [0, 1, 2], "class '2' has no image in the train split"),  # a label out of range
        ([0, 0, 1, 2, 2], [0, 1, 2], "class '1' has no image in the validation split"),
        ([0, 0, 1, 1, 2, 2], [0, 1, 1], "class '2' has no image in the test split"),
    ],
)
def test_an_empty_class_is_refused_by_name(labels: list[int], test_labels: list[int], missing: str) -> None:
    splits = cut(source(labels, test=Images(TEST.images, np.array(test_labels))), 0.5)
    with pytest.raises(UserError, match=missing):
        name_classes(splits)
