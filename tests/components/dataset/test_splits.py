"""Which split an image belongs to."""

import hashlib
import random

import pytest

from components.dataset.splits import Cuts, position
from components.source.example import Example

CUTS = Cuts(test=0.1, validation=0.3, by_class={"cat": (0.5, 0.8)})


def example(label: str = "dog", split: str | None = None, group: str | None = None) -> Example:
    return Example("name", label, b"", split, group)


@pytest.mark.parametrize(
    ("label", "place", "split"),
    [
        ("dog", 0.0, "test"),
        ("dog", 0.0999, "test"),
        ("dog", 0.1, "validation"),
        ("dog", 0.3, "train"),
        ("dog", 1.0, "train"),
        ("cat", 0.49, "test"),
        ("cat", 0.5, "validation"),
        ("cat", 0.8, "train"),
    ],
)
def test_the_line_is_cut_into_test_validation_and_training(label: str, place: float, split: str) -> None:
    assert CUTS.split(example(label), place) == split


def test_what_the_source_puts_into_a_split_stays_there() -> None:
    assert CUTS.split(example(split="validation"), 0.0) == "validation"
    assert CUTS.split(example(split="test"), 0.9) == "test"


def test_what_the_source_calls_training_is_cut() -> None:
    assert CUTS.split(example(split="train"), 0.0) == "test"


def test_a_group_is_cut_the_same_in_every_class() -> None:
    assert CUTS.split(example("cat", group="patient 7"), 0.2) == CUTS.split(example("dog", group="patient 7"), 0.2)


def test_positions_are_the_same_on_every_machine_and_for_ever() -> None:
    sha256 = hashlib.sha256(b"image").digest()
    assert position(example(), sha256) == 0.3789953469446887
    assert position(example(group="patient 7"), sha256) == position(example("cat", group="patient 7"), bytes(32))


def test_positions_are_spread_evenly() -> None:
    places = [position(example(), random.Random(number).randbytes(32)) for number in range(10_000)]
    assert all(abs(sum(place < cut for place in places) / 10_000 - cut) < 0.02 for cut in (0.1, 0.2, 0.5, 0.9))
