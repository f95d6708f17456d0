"""How well labels were predicted: the confusion matrix, and what follows from it.

Where a share would be a division by zero it is 0: the precision of a class that was never predicted, the recall of a
class without images, and the F1 of a class that is neither. scikit-learn calls this `zero_division=0`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Scores:
    """Figures between 0 and 1; the macro averages weigh every class the same."""

    confusion: NDArray[np.int64]  # [K, K], images by [true class, predicted class]
    accuracy: float
    precision: NDArray[np.float64]  # [K]
    recall: NDArray[np.float64]  # [K]
    f1: NDArray[np.float64]  # [K]
    macro_precision: float
    macro_recall: float
    macro_f1: float


def score(confusion: NDArray[np.int64]) -> Scores:
    """The scores that follow from a confusion matrix, int64 [K, K]."""
    right = np.diagonal(confusion)
    predicted, true = confusion.sum(axis=0), confusion.sum(axis=1)
    precision, recall = _share(right, predicted), _share(right, true)
    f1 = _share(2 * right, predicted + true)  # the harmonic mean of the two, without a second division
    return Scores(
        confusion=confusion,
        accuracy=float(_share(right.sum(), confusion.sum())),
        precision=precision,
        recall=recall,
        f1=f1,
        macro_precision=float(precision.mean()),
        macro_recall=float(recall.mean()),
        macro_f1=float(f1.mean()),
    )


def confusion_matrix(labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Counts the images by [true class, predicted class]: int64 [N] and [N] to [K, K]."""
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def worst_mistakes(labels: NDArray[np.int64], probabilities: NDArray[np.float32], limit: int) -> NDArray[np.int64]:
    """The images that were predicted wrongly, the most confident first, at most `limit`: int64 indices."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    confidence = probabilities[wrong].max(axis=1)
    return wrong[np.argsort(-confidence, kind="stable")][:limit]


def most_confused(confusion: NDArray[np.int64], limit: int) -> list[int]:
    """The classes with the most mistakes, as true class or as predicted, in their own order: at most `limit`."""
    wrong = confusion * (1 - np.eye(len(confusion), dtype=np.int64))
    return sorted(np.argsort(-(wrong.sum(axis=0) + wrong.sum(axis=1)), kind="stable")[:limit].tolist())


def _share(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros(np.shape(part)), where=np.asarray(whole) != 0)
