"""What seems to be wrong with a training, and what to do about it: a sentence each."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

WAITING = 0.3
"""The share of time spent waiting for images from which on the loader is what limits."""

BUSY = 50
"""Percent of its time that a GPU should compute at least."""

RISING = 3
"""Epochs in a row."""

Row = Mapping[str, Any]


def at_chance(curve: Sequence[Row], validation: Mapping[str, int]) -> str | None:
    """Where a model has learnt nothing; `validation` counts its images by class.

    At chance means: within two standard errors of, or below, always answering with the most frequent class.
    """
    images = sum(validation.values())
    if len(validation) < 2 or not images or not curve:
        return None
    chance, accuracy = max(validation.values()) / images, curve[-1]["validation_accuracy"]
    if accuracy > chance + 2 * math.sqrt(chance * (1 - chance) / images):
        return None
    return (
        f"after epoch {curve[-1]['epoch']} the validation accuracy, {accuracy:.1%}, is no better than always answering "
        f"with one class, {chance:.1%}; try a smaller learning_rate (retrain lr-find suggests one) and check the labels"
    )


def waiting(share: float) -> str | None:
    """Where the images come too slowly; `share` of the time was spent waiting for them."""
    if share <= WAITING:
        return None
    return (
        f"{share:.0%} of the time is spent waiting for images; give the step more cores (cpu of [steps.train] in the "
        "settings; small files need no more than 8), or take a smaller image_size"
    )


def overfitting(curve: Sequence[Row]) -> str | None:
    """Where the validation loss has risen for several epochs while the training loss fell."""
    last = curve[-RISING - 1 :]
    steps = list(pairwise(last))
    if len(steps) < RISING or not all(
        after["validation_loss"] > before["validation_loss"] and after["train_loss"] < before["train_loss"]
        for before, after in steps
    ):
        return None
    return (
        f"since epoch {last[0]['epoch']} the validation loss rises while the training loss falls: the model learns the "
        "images by heart; have it end by itself (patience=3 in the recipe), or add mixup=0.2 or more weight_decay there"
    )


def idle(percents: Sequence[int]) -> str | None:
    """Where the GPU has little to do; `percents` are samples of the time that it computes."""
    if len(percents) < 6 or (mean := sum(percents) / len(percents)) >= BUSY:
        return None
    return f"the GPU computes only {mean:.0f} % of the time; try a larger batch_size, or fewer GPUs"


def of_curve(curve: Sequence[Row], validation: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """The hints that a learning curve gives, by name."""
    for name, hint in (("at chance", at_chance(curve, validation)), ("overfitting", overfitting(curve))):
        if hint:
            yield name, hint
