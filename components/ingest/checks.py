"""What is checked before a dataset is published: each check measures a fault and compares it with its limit."""

from collections.abc import Mapping
from dataclasses import dataclass

from components.dataset.manifest import SPLITS
from components.ingest.census import Census
from components.ingest.intake import Intake
from components.ingest.likeness import Likeness
from components.ingest.limits import LIMITS

NAMED = 3
"""Classes that a sentence names."""


@dataclass(frozen=True)
class Check:
    """A fault, how much of it there is, and how much there may be."""

    name: str
    """One of LIMITS."""
    measured: float
    limit: float
    passed: bool
    """Whether the limit is kept."""
    sentence: str
    """What was found, for people; no full stop."""


@dataclass(frozen=True)
class Balance:
    """Images by class."""

    counts: Mapping[str, Mapping[str, int]]
    """Of the dataset, by split."""
    appended: Mapping[str, int]
    """Of those of them that the parent does not have."""
    parent: Mapping[str, int]
    """Of the parent, with the classes that it lacks; empty without one."""

    @property
    def images(self) -> int:
        return sum(self.split(name) for name in SPLITS)

    @property
    def judged(self) -> int:
        """Images for validation and test."""
        return self.images - self.split("train")

    def split(self, name: str) -> int:
        return sum(self.counts[name].values())

    @property
    def drift(self) -> float:
        """Total variation distance, 0 to 1, of the class shares of what was appended from those of the parent."""
        return sum(abs(moved) for moved in self.moves.values()) / 2

    @property
    def moves(self) -> dict[str, float]:
        """By how much each class's share of what was appended differs from its share of the parent's."""
        new, old = sum(self.appended.values()), sum(self.parent.values())
        if not new or not old:
            return {}
        return {name: self.appended[name] / new - self.parent[name] / old for name in self.parent}


def check(
    limits: Mapping[str, float], intake: Intake, census: Census, likeness: Likeness, balance: Balance
) -> list[Check]:
    """Every check, in the order of LIMITS."""
    quarantined, images, judged = intake.rejected.total(), balance.images, balance.judged
    found = {
        "damaged": _share(quarantined, intake.entries, "entries were quarantined"),
        "conflicts": _share(census.conflicts, census.rows, "images have two labels and were excluded"),
        "leaks": _share(census.leaks, judged, "validation and test images were in another split, too"),
        "near_leaks": _share(likeness.near_leaks, judged, "validation and test images look like one of another split"),
        "torn_groups": _share(census.torn_groups, census.groups, "groups have images in more than one split"),
        "duplicates": _share(census.duplicates, images, "images are copies of others of their split"),
        "near_duplicates": _share(likeness.near_duplicates, images, "images look like others of their split"),
        "drift": (balance.drift, _moved(balance)),
        "min_images": _least(balance, limits["min_images"]),
    }
    return [_check(name, *found[name], limits[name]) for name in LIMITS]


def _check(name: str, measured: float, sentence: str, limit: float) -> Check:
    passed = measured >= limit if LIMITS[name].whole else measured <= limit
    return Check(name, measured, limit, passed, sentence)


def _share(count: int, of: int, what: str) -> tuple[float, str]:
    share = count / of if of else 0.0
    return share, f"{count:,} of {of:,} {what}" + (f" ({percent(share)})" if count else "")


def _moved(balance: Balance) -> str:
    if not balance.parent:
        return "no parent to compare with"
    most = sorted(balance.moves.items(), key=lambda move: (-abs(move[1]), move[0]))[:NAMED]
    moved = [f"{name!r} by {100 * move:+.3g} points" for name, move in most if move]
    distance = f"the class shares of what was appended are {balance.drift:.3g} from the parent's"
    return f"{distance}; most moved {', '.join(moved)}" if moved else distance


def _least(balance: Balance, limit: float) -> tuple[float, str]:
    cells = [(count, name, split) for split in SPLITS for name, count in balance.counts[split].items()]
    if not cells:
        return 0, "there is no image"
    few = [cell for cell in sorted(cells, key=lambda cell: cell[0]) if cell[0] < limit] or [min(cells)]
    named = [f"class {name!r} has {count:,} in {split}" for count, name, split in few[:NAMED]]
    more = f" and {len(few) - NAMED:,} more" if len(few) > NAMED else ""
    return min(cells)[0], f"images of a class in a split: {', '.join(named)}{more}"


def percent(share: float) -> str:
    """A share as people write it."""
    return f"{100 * share:.3g} %"


def refusal(checks: list[Check]) -> str:
    """Each limit that is passed and what was found, as a part of a sentence; empty where all are kept."""
    return "; ".join(
        f"{check.sentence}, and {check.name} {'asks for' if LIMITS[check.name].whole else 'allows'} {bound(check)}"
        for check in checks
        if not check.passed
    )


def bound(check: Check) -> str:
    """A check's limit as people write it."""
    return f"{check.limit:,.0f}" if LIMITS[check.name].whole else percent(check.limit)
