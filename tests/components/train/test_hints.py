"""What seems to be wrong with a training."""

from collections.abc import Sequence

import pytest

from components.train import hints

BALANCED = {str(number): 100 for number in range(10)}


def curve(
    validation_loss: Sequence[float] = (1.0,), train_loss: Sequence[float] = (1.0,), accuracy: float = 0.9
) -> list[dict[str, float]]:
    return [
        {"epoch": epoch, "train_loss": train, "validation_loss": validation, "validation_accuracy": accuracy}
        for epoch, (train, validation) in enumerate(zip(train_loss, validation_loss, strict=True), 1)
    ]


@pytest.mark.parametrize("accuracy", [0.0, 0.08, 0.1, 0.118])
def test_a_model_that_guesses_is_noticed(accuracy: float) -> None:
    said = hints.at_chance(curve(accuracy=accuracy), BALANCED)
    assert said
    assert f"after epoch 1 the validation accuracy, {accuracy:.1%}, is no better" in said
    assert "10.0%; try a smaller learning_rate" in said


@pytest.mark.parametrize("accuracy", [0.12, 0.5, 1.0])
def test_a_model_that_has_learnt_something_is_left_alone(accuracy: float) -> None:
    assert hints.at_chance(curve(accuracy=accuracy), BALANCED) is None


def test_chance_is_the_share_of_the_most_frequent_class() -> None:
    counts = {"healthy": 950, "ill": 50}
    assert hints.at_chance(curve(accuracy=0.95), counts)
    assert hints.at_chance(curve(accuracy=0.97), counts) is None


def test_few_images_tell_little() -> None:
    assert hints.at_chance(curve(accuracy=0.6), {"a": 5, "b": 5})
    assert hints.at_chance(curve(accuracy=0.6), {"a": 500, "b": 500}) is None


@pytest.mark.parametrize("counts", [{}, {"only": 100}, {"a": 0, "b": 0}])
def test_where_there_is_nothing_to_tell_apart_nothing_is_said(counts: dict[str, int]) -> None:
    assert hints.at_chance(curve(accuracy=0.0), counts) is None


def test_who_waits_for_images_hears_it() -> None:
    assert hints.waiting(0.3) is None
    assert hints.waiting(0.312) == (
        "31% of the time is spent waiting for images; give the step more cores (cpu of [steps.train] in the settings; "
        "small files need no more than 8), or take a smaller image_size"
    )


def test_learning_by_heart_is_noticed() -> None:
    said = hints.overfitting(curve([3, 2, 2.1, 2.2, 2.3], [3, 2, 1, 0.5, 0.2]))
    assert said
    assert said.startswith("since epoch 2 the validation loss rises")


@pytest.mark.parametrize(
    ("validation", "train"),
    [
        ([2.1, 2.2, 2.3], [1, 0.5, 0.2]),  # for two epochs alone
        ([2, 2.1, 2.05, 2.2], [2, 1, 0.5, 0.2]),  # with a fall between
        ([2, 2.1, 2.2, 2.3], [1, 1.1, 1.2, 1.3]),  # the training diverges
        ([2, 2, 2, 2], [2, 1, 0.5, 0.2]),
        ([], []),
    ],
)
def test_what_is_no_learning_by_heart_is_left_alone(validation: list[float], train: list[float]) -> None:
    assert hints.overfitting(curve(validation, train)) is None


def test_an_idle_gpu_is_noticed_when_it_was_looked_at_often_enough() -> None:
    assert hints.idle([20] * 5) is None
    assert hints.idle([60] * 10) is None
    assert hints.idle([20] * 6) == ("the GPU computes only 20 % of the time; try a larger batch_size, or fewer GPUs")


def test_a_curve_gives_its_hints_by_name() -> None:
    rising = curve([2, 2.1, 2.2, 2.3], [2, 1, 0.5, 0.2], accuracy=0.1)
    assert [name for name, _ in hints.of_curve(rising, BALANCED)] == ["at chance", "overfitting"]
    assert list(hints.of_curve(curve(), BALANCED)) == []
    assert list(hints.of_curve([], BALANCED)) == []
