"""Accepts or rejects a model, and says why in sentences."""

import math
from dataclasses import dataclass

ROUNDING = 1e-9
"""Two accuracies nearer than this are the same: 0.99 - 0.98 is a little more than 0.01 to a computer."""


@dataclass(frozen=True)
class Rival:
    """The present champion, as far as it can be compared with a candidate on the candidate's test split."""

    version: int
    accuracy: float | None  # None: it cannot be compared,
    obstacle: str = ""  # for this reason, which follows on "because"


def judge(
    accuracy: float, images: int, rival: Rival | None, min_accuracy: float, max_drop: float
) -> tuple[bool, tuple[str, ...]]:
    """Whether a model with this accuracy on so many test images is accepted, and the reasons, one sentence each."""
    findings = [_against_minimum(accuracy, images, min_accuracy), _against_champion(accuracy, images, rival, max_drop)]
    return all(fine for fine, _ in findings), tuple(reason for _, reason in findings)


def _against_minimum(accuracy: float, images: int, least: float) -> tuple[bool, str]:
    fine = accuracy >= least
    how = "reaches" if fine else "is below"
    return fine, f"The test accuracy of {percent(accuracy, images)} {how} min_accuracy, {_limit(least)}."


def _against_champion(accuracy: float, images: int, rival: Rival | None, max_drop: float) -> tuple[bool, str]:
    if rival is None:
        return True, "There is no champion yet to compare it with."
    if rival.accuracy is None:
        return True, f"It is not compared with the champion, version {rival.version}, because {rival.obstacle}."
    lost = rival.accuracy - accuracy
    champion = f"the champion's {percent(rival.accuracy, images)} (version {rival.version})"
    if abs(lost) <= ROUNDING:
        return True, f"It equals {champion}."
    if lost < 0:
        return True, f"It beats {champion}."
    fine = lost <= max_drop + ROUNDING
    how = "within" if fine else "more than"
    points = percent(lost, images).replace("%", "points")
    return fine, f"It is {points} below {champion}, {how} max_drop, {_limit(max_drop)}."


def percent(share: float, images: int) -> str:
    """A share of so many images in percent, with as many digits as tell one image more or less: 0.9941 as '99.41 %'."""
    digits = max(0, math.ceil(math.log10(max(images, 1))) - 2)
    return f"{100 * share:.{digits}f} %"


def _limit(share: float) -> str:
    return f"{100 * share:.10g} %"
