"""Where the splits are cut: exactly, class by class, where the source is small enough to be looked at beforehand."""

import hashlib
from array import array
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from components.dataset.splits import Cuts, position
from components.source.example import Example, Rejected


@dataclass
class Survey:
    """The positions on the line (see splits.py) of what is cut there."""

    by_class: dict[str, "array[float]"] = field(default_factory=dict)
    """Of the images that have no group, by class; 8 bytes each."""
    groups: set[float] = field(default_factory=set)

    def add(self, found: Iterable[Example | Rejected]) -> None:
        """Takes note of the examples that the source has not put into a split of its own."""
        for example in found:
            if isinstance(example, Rejected) or example.split in ("validation", "test"):
                continue
            place = position(example, hashlib.sha256(example.content).digest())
            if example.group:
                self.groups.add(place)
            else:
                self.by_class.setdefault(example.label, array("d")).append(place)


def cut_exactly(survey: Survey, classes: Iterable[str], test: float, validation: float) -> Cuts:
    """The cuts that divide each of these classes, and the groups, as near to these fractions as can be.

    Whatever else will come, and the groups where there are none now, is cut at the fractions themselves.
    """
    by_class = {name: cut(survey.by_class[name], test, validation) for name in sorted(classes)}
    everywhere = cut(survey.groups, test, validation) if survey.groups else (test, test + validation)
    return Cuts(*everywhere, by_class)


def cut(places: Collection[float], test: float, validation: float) -> tuple[float, float]:
    """Where to cut the line so that these shares of the places lie in the test and the validation split.

    A share above 0 gets at least one place, and training keeps one; where there are too few for all, training comes
    first, then validation. Equal places, those of twins, count once: no cut comes between them.
    """
    line = np.unique(np.fromiter(places, np.float64, len(places)))
    tested = _count(len(line) * test, len(line) - 2 if validation else len(line) - 1)
    validated = _count(len(line) * validation, len(line) - tested - 1)
    return _before(line, tested), _before(line, tested + validated)


def _count(share: float, most: int) -> int:
    return max(0, min(max(1, round(share)), most)) if share else 0


def _before(line: NDArray[np.float64], count: int) -> float:
    """Halfway between the last of `count` places and the next."""
    return float(line[count - 1 : count + 1].mean()) if count else 0.0
