"""Where the splits are cut."""

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.dataset.splits import Cuts, position
from components.plan.cuts import Survey, cut, cut_exactly
from components.source.example import Example, Rejected


def drawn(classes: dict[str, int], seed: int = 0) -> list[Example]:
    """So many different images of each class."""
    return [
        Example(f"{label}/{number}", label, random.Random(f"{seed} {label} {number}").randbytes(20))
        for label, count in classes.items()
        for number in range(count)
    ]


def survey(found: Iterable[Example | Rejected]) -> Survey:
    result = Survey()
    result.add(found)
    return result


def cut_all(found: Iterable[Example], test: float = 0.1, validation: float = 0.2) -> Cuts:
    seen = survey(found)
    return cut_exactly(seen, seen.by_class, test, validation)


def split_of(cuts: Cuts, example: Example) -> str:
    return cuts.split(example, position(example, hashlib.sha256(example.content).digest()))


def counts(
    cuts: Cuts, found: Iterable[Example], by: Callable[[Example], str | None]
) -> Counter[tuple[str | None, str]]:
    return Counter((by(example), split_of(cuts, example)) for example in found)


@pytest.mark.parametrize(("test", "validation"), [(0.1, 0.1), (0.25, 0.5), (0.01, 0.3), (0.0, 0.1), (0.2, 0.0)])
def test_every_class_is_cut_by_the_same_fractions_to_one_image(test: float, validation: float) -> None:
    sizes = {"a": 20, "b": 57, "c": 400}
    found = drawn(sizes)
    result = counts(cut_all(found, test, validation), found, lambda example: example.label)
    for label, size in sizes.items():
        assert result[label, "test"] == (max(1, round(size * test)) if test else 0)
        assert result[label, "validation"] == (max(1, round(size * validation)) if validation else 0)


@pytest.mark.parametrize("fraction", [0.001, 0.4, 0.999])
@pytest.mark.parametrize(
    ("size", "expected"), [(1, {"train"}), (2, {"train", "validation"}), (3, {"train", "validation", "test"})]
)
def test_a_small_class_is_for_training_first_and_then_for_validation(
    fraction: float, size: int, expected: set[str]
) -> None:
    found = drawn({"a": size})
    assert {split_of(cut_all(found, fraction, fraction), example) for example in found} == expected


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_two_images_are_enough_where_the_source_has_a_test_split(fraction: float) -> None:
    found = drawn({"a": 2})
    assert {split_of(cut_all(found, 0.0, fraction), example) for example in found} == {"train", "validation"}


def test_the_order_of_the_source_does_not_matter() -> None:
    found = drawn({"a": 50, "b": 70})
    assert cut_all(found) == cut_all(random.Random(1).sample(found, len(found)))


def test_nothing_but_the_content_decides() -> None:
    found = drawn({"a": 50, "b": 70})
    renamed = [Example(f"other {example.name}", example.label, example.content) for example in found]
    assert cut_all(found) == cut_all(renamed)


def test_an_image_keeps_its_split_when_images_are_appended() -> None:
    found = drawn({"a": 50, "b": 70})
    cuts = cut_all(found)
    # Appending takes the cuts over; classes that are new get their own.
    more = drawn({"a": 500, "c": 30}, seed=1)
    appended = Cuts(cuts.test, cuts.validation, cut_all(more).by_class | cuts.by_class)
    assert [split_of(cuts, example) for example in found] == [split_of(appended, example) for example in found]
    result = counts(appended, more, lambda example: example.label)
    assert (result["c", "test"], result["c", "validation"]) == (3, 6)


def test_twins_are_never_torn_apart() -> None:
    kinds = random.Random(0)
    found = [Example(str(number), "a", bytes([kinds.randrange(16)])) for number in range(200)]
    cuts = cut_all(found, 0.2, 0.2)
    splits = {
        content: {split_of(cuts, e) for e in found if e.content == content} for content in {e.content for e in found}
    }
    assert all(len(each) == 1 for each in splits.values())
    assert Counter(next(iter(each)) for each in splits.values()) == {"test": 3, "validation": 3, "train": 10}


@given(
    st.lists(st.floats(0, 1, width=32), max_size=30),
    st.floats(0.01, 0.49),
    st.floats(0.01, 0.49),
)
def test_every_split_gets_its_share_of_any_places(places: list[float], test: float, validation: float) -> None:
    low, high = cut(places, test, validation)
    distinct = set(places)
    tested, validated = (sum(p < low for p in distinct), sum(low <= p < high for p in distinct))
    assert 0 <= low <= high <= 1
    if len(distinct) >= 3:
        assert 1 <= tested <= max(1, round(len(distinct) * test))
        assert 1 <= validated <= max(1, round(len(distinct) * validation))
        assert tested + validated < len(distinct)


def test_groups_are_cut_as_a_whole_whatever_their_classes() -> None:
    found = [
        Example(e.name, e.label, e.content, group=f"patient {number % 10}")
        for number, e in enumerate(drawn({"a": 100, "b": 100}))
    ]
    cuts = cut_all(found, 0.2, 0.2)
    result = counts(cuts, found, lambda example: example.group)
    assert len(result) == 10
    assert Counter(split for _, split in result) == {"test": 2, "validation": 2, "train": 6}


def test_images_without_a_group_are_cut_by_class_beside_the_groups() -> None:
    grouped = [Example(e.name, e.label, e.content, group="one") for e in drawn({"a": 10})]
    single = drawn({"a": 40}, seed=1)
    result = counts(cut_all(grouped + single), single, lambda example: example.label)
    assert (result["a", "test"], result["a", "validation"]) == (4, 8)


def test_what_the_source_has_put_into_a_split_is_not_counted() -> None:
    found = drawn({"a": 40})
    given = [Example(e.name, e.label, e.content, split="test") for e in drawn({"a": 40, "b": 5}, seed=1)]
    rejected = Rejected("name", "empty", "has no bytes")
    assert survey([*found, *given, rejected]) == survey(found)
