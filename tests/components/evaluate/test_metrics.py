import numpy as np
import pytest
from numpy.typing import NDArray

from components.evaluate.metrics import Scores, confusion_matrix, score, worst_mistakes

# Two of the three cats are found, one is taken for a dog; the only dog is found; a bird is taken for a cat.
LABELS = np.array([0, 0, 0, 1, 2])
PREDICTED = np.array([0, 0, 1, 1, 0])


def scores_of(labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> Scores:
    return score(confusion_matrix(labels, predicted, classes))


def test_the_confusion_matrix_counts_by_true_class_then_predicted_class() -> None:
    assert confusion_matrix(LABELS, PREDICTED, 3).tolist() == [[2, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_the_confusion_matrix_has_a_row_and_a_column_for_a_class_that_never_occurs() -> None:
    assert confusion_matrix(LABELS, PREDICTED, 4).shape == (4, 4)


def test_the_scores_equal_those_computed_by_hand() -> None:
    scores = scores_of(LABELS, PREDICTED, 3)
    assert scores.accuracy == pytest.approx(3 / 5)
    assert scores.precision == pytest.approx([2 / 3, 1 / 2, 0])
    assert scores.recall == pytest.approx([2 / 3, 1, 0])
    assert scores.f1 == pytest.approx([2 / 3, 2 / 3, 0])
    assert scores.macro_precision == pytest.approx(7 / 18)
    assert scores.macro_recall == pytest.approx(5 / 9)
    assert scores.macro_f1 == pytest.approx(4 / 9)


def test_a_class_never_predicted_has_precision_zero_and_one_without_images_recall_zero() -> None:
    scores = scores_of(np.array([0, 1]), np.array([0, 2]), 4)
    assert scores.precision.tolist() == [1, 0, 0, 0]
    assert scores.recall.tolist() == [1, 0, 0, 0]
    assert scores.f1.tolist() == [1, 0, 0, 0]


def test_right_answers_alone_score_one() -> None:
    scores = scores_of(LABELS, LABELS, 3)
    assert scores.accuracy == scores.macro_precision == scores.macro_recall == scores.macro_f1 == 1


def test_wrong_answers_alone_score_zero() -> None:
    scores = scores_of(LABELS, (LABELS + 1) % 3, 3)
    assert scores.accuracy == scores.macro_precision == scores.macro_recall == scores.macro_f1 == 0


@pytest.mark.parametrize("seed", range(20))
def test_the_scores_obey_their_definitions_on_random_labels(seed: int) -> None:
    random = np.random.default_rng(seed)
    classes, images = int(random.integers(2, 12)), int(random.integers(1, 500))
    labels, predicted = random.integers(0, classes, (2, images))
    scores = scores_of(labels, predicted, classes)

    assert scores.confusion.sum() == images
    assert scores.accuracy == pytest.approx(np.mean(labels == predicted))
    for name in range(classes):
        found = np.sum((labels == name) & (predicted == name))
        precision = found / max(np.sum(predicted == name), 1)
        recall = found / max(np.sum(labels == name), 1)
        harmonic = 2 * precision * recall / (precision + recall) if precision + recall else 0
        row = scores.precision[name], scores.recall[name], scores.f1[name]
        assert row == pytest.approx((precision, recall, harmonic))


@pytest.mark.parametrize("seed", range(5))
def test_the_scores_do_not_depend_on_the_order_of_images_or_classes(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels, predicted = random.integers(0, 5, (2, 100))
    shuffled, renamed = random.permutation(100), random.permutation(5)
    one = scores_of(labels, predicted, 5)
    other = scores_of(renamed[labels[shuffled]], renamed[predicted[shuffled]], 5)
    assert other.f1[renamed] == pytest.approx(one.f1)
    assert (other.accuracy, other.macro_f1) == pytest.approx((one.accuracy, one.macro_f1))


def test_the_worst_mistakes_are_the_most_confident_wrong_answers() -> None:
    labels = np.array([0, 1, 0, 1, 0])
    certainty_of_1 = np.array([0.9, 0.2, 0.99, 0.4, 0.1])
    probabilities = np.stack([1 - certainty_of_1, certainty_of_1], axis=1).astype(np.float32)
    assert worst_mistakes(labels, probabilities, 32).tolist() == [2, 0, 1, 3]
    assert worst_mistakes(labels, probabilities, 2).tolist() == [2, 0]


def test_there_are_no_worst_mistakes_where_all_is_right() -> None:
    assert worst_mistakes(np.array([0, 1]), np.eye(2, dtype=np.float32), 32).tolist() == []
