"""Everything that the commit found out about a dataset, before it is decided whether there will be one."""

import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.dataset.ledger import Ledger, Volume
from components.dataset.manifest import SPLITS, Manifest, content_digest
from components.dataset.plan import Plan, read_parent
from components.ingest.census import Census, take
from components.ingest.checks import Balance, Check, check
from components.ingest.intake import Intake, collect, lost
from components.ingest.likeness import Likeness
from components.step import StepError, UserError
from components.storage import Store


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What was found."""

    plan: Plan
    parent: Manifest | None
    intake: Intake
    ledger: Ledger
    census: Census
    likeness: Likeness
    classes: tuple[str, ...]
    balance: Balance
    checks: list[Check]

    @property
    def encoding(self) -> str:
        """As Manifest.encoding."""
        return "raw" if self.plan.shape else "encoded"

    @property
    def shape(self) -> tuple[int | None, int | None, int]:
        """As Manifest.shape."""
        sizes = self.census.heights, self.census.widths
        height, width = (least if least == most else None for least, most in sizes)
        return height, width, self.census.channels

    @property
    def digest(self) -> str:
        """As Manifest.digest."""
        return content_digest(self.classes, self.encoding, self.shape, self.census.split_digests)

    @property
    def excluded(self) -> dict[str, int]:
        """Images that were written and are no part of the dataset, by reason."""
        census = self.census
        return {"two labels": census.conflicts, "leaked": census.leaked, "in the parent": census.known}


def examine(store: Store, plan: Plan, limits: Mapping[str, float]) -> Findings:
    """Reads what the workers wrote, and the parent, and counts and checks it.

    Raises StepError where a part or a file is missing or damaged, UserError where the parent does not fit the source.
    """
    parent = read_parent(store, plan)
    if parent:
        require_fit(plan, parent)
    intake = collect(store, plan)
    require_files(store, intake, parent)
    volumes = [Volume(part.shards, part.facts) for part in (parent, intake) if part]
    ledger = Ledger(store, volumes)
    with tempfile.TemporaryDirectory() as folder:
        census, likeness = take(ledger, len(parent.shards) if parent else 0, Path(folder))
    classes = ordered({*ledger.labels, *(parent.classes if parent else ())})
    balance = weigh(classes, ledger.labels, census, parent)
    return Findings(
        plan=plan,
        parent=parent,
        intake=intake,
        ledger=ledger,
        census=census,
        likeness=likeness,
        classes=classes,
        balance=balance,
        checks=check(limits, intake, census, likeness, balance),
    )


def require_fit(plan: Plan, parent: Manifest) -> None:
    """Raises UserError unless what was read can stand beside the images of the parent."""
    fits = parent.shape == plan.shape if plan.shape else parent.encoding == "encoded"
    if not fits:
        raise UserError(
            f"parent {parent.digest[:12]} has {_kind(parent.encoding, parent.shape)} and source {plan.source!r} has "
            f"{_kind('raw' if plan.shape else 'encoded', plan.shape)}; append what is alike, or leave the parent out"
        )


def _kind(encoding: str, shape: tuple[int | None, ...] | None) -> str:
    return f"raw images of {'x'.join(map(str, shape or ()))}" if encoding == "raw" else "image files"


def require_files(store: Store, intake: Intake, parent: Manifest | None) -> None:
    """Raises StepError where the store lacks a file of the dataset that is to be."""
    if parent and (key := lost(store, [*parent.shards, *parent.facts])):
        raise StepError(f"{key} of parent {parent.digest[:12]} is gone from store {store.uri}; ingest its source again")
    if key := lost(store, [*intake.shards, *intake.facts, *intake.quarantine]):
        raise StepError(f"{key} is gone from store {store.uri}; run the pipeline again, it is written anew")


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Names of classes: first the numbers in the order of their values, then the others in that of their letters."""

    def key(name: str) -> tuple[bool, int, str]:
        # Without int, which refuses thousands of digits.
        digits = name.lstrip("0") if name.isascii() and name.isdecimal() else None
        return digits is None, len(digits or ""), digits or name

    return tuple(sorted(names, key=lambda name: (key(name), name)))


def weigh(classes: tuple[str, ...], labels: list[str], census: Census, parent: Manifest | None) -> Balance:
    """The census by the names of the classes."""

    def named(counts: NDArray[np.int64]) -> dict[str, int]:
        return dict.fromkeys(classes, 0) | dict(zip(labels, counts.tolist(), strict=True))

    before = Counter[str]()
    for split in parent.counts.values() if parent else ():
        before.update(split)
    return Balance(
        counts={
            split: {name: counts[name] for name in classes}
            for split, counts in zip(SPLITS, map(named, census.counts), strict=True)
        },
        appended=named(census.appended.sum(axis=0)),
        parent={name: before[name] for name in classes} if parent else {},
    )
