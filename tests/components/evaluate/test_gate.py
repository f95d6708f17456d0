import pytest

from components.evaluate.gate import Rival, judge, percent


def test_the_first_model_is_accepted_when_it_is_good_enough() -> None:
    assert judge(0.9941, 10_000, None, min_accuracy=0.99, max_drop=0) == (
        True,
        ("The test accuracy of 99.41 % reaches min_accuracy, 99 %.", "There is no champion yet to compare it with."),
    )


def test_a_model_that_is_just_good_enough_is_accepted() -> None:
    assert judge(9000 / 10_000, 10_000, None, min_accuracy=0.9, max_drop=0)[0]


def test_a_model_below_the_least_accuracy_is_rejected_although_it_beats_the_champion() -> None:
    assert judge(0.88, 100, Rival(3, 0.87), min_accuracy=0.9, max_drop=0) == (
        False,
        ("The test accuracy of 88 % is below min_accuracy, 90 %.", "It beats the champion's 87 % (version 3)."),
    )


def test_a_model_better_than_the_champion_is_accepted() -> None:
    accepted, reasons = judge(0.9941, 10_000, Rival(3, 0.9932), min_accuracy=0.9, max_drop=0)
    assert accepted
    assert reasons[1] == "It beats the champion's 99.32 % (version 3)."


def test_a_model_as_good_as_the_champion_is_accepted() -> None:
    accepted, reasons = judge(0.9932, 10_000, Rival(3, 0.9932), min_accuracy=0.9, max_drop=0)
    assert accepted
    assert reasons[1] == "It equals the champion's 99.32 % (version 3)."


def test_a_model_worse_than_the_champion_is_rejected_by_a_single_image() -> None:
    accepted, reasons = judge(0.9931, 10_000, Rival(3, 0.9932), min_accuracy=0.9, max_drop=0)
    assert not accepted
    assert reasons[1] == "It is 0.01 points below the champion's 99.32 % (version 3), more than max_drop, 0 %."


@pytest.mark.parametrize(("champion", "candidate"), [(0.99, 0.98), (0.3, 0.29), (0.57, 0.56), (1.0, 0.99)])
def test_a_model_may_lose_exactly_max_drop_in_spite_of_binary_fractions(champion: float, candidate: float) -> None:
    accepted, reasons = judge(candidate, 100, Rival(1, champion), min_accuracy=0, max_drop=0.01)
    assert accepted
    assert reasons[1].endswith("(version 1), within max_drop, 1 %.")
    assert not judge(candidate - 0.01, 100, Rival(1, champion), min_accuracy=0, max_drop=0.01)[0]


def test_a_champion_that_cannot_be_compared_does_not_stand_in_the_way_and_the_reason_is_said() -> None:
    rival = Rival(3, None, "it does not know 'zebra'")
    accepted, reasons = judge(0.95, 100, rival, min_accuracy=0.9, max_drop=0)
    assert accepted
    assert reasons[1] == "It is not compared with the champion, version 3, because it does not know 'zebra'."
    assert not judge(0.89, 100, rival, min_accuracy=0.9, max_drop=0)[0]


@pytest.mark.parametrize(
    ("share", "images", "words"),
    [
        (0.9941, 10_000, "99.41 %"),
        (0.9941, 60_000, "99.410 %"),
        (0.5, 10, "50 %"),
        (2 / 3, 200, "66.7 %"),
        (1.0, 10_000, "100.00 %"),
        (0.0, 1, "0 %"),
    ],
)
def test_a_percentage_has_as_many_digits_as_one_image_makes_a_difference(share: float, images: int, words: str) -> None:
    assert percent(share, images) == words


def test_accuracies_one_image_apart_never_read_the_same() -> None:
    for images in (7, 100, 999, 10_000, 12_345):
        assert percent((images - 1) / images, images) != percent(1.0, images)
