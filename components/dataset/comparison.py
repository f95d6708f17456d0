"""What became of one dataset in another: what was added, removed, relabelled, and how the balance of the classes moved.

Images are the same where their bytes are. As in the commit they are divided into buckets by their hashes, so that the
memory is that of one bucket.
"""

import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.dataset.buckets import Buckets
from components.dataset.ledger import RECORD, Ledger, Volume
from components.dataset.manifest import SPLITS, Manifest
from components.storage import Store

EXAMPLES = 5
"""Images of each kind that are named."""


KINDS = ("added", "removed", "relabelled", "moved")


@dataclass
class Comparison:
    """The differences. An image that a dataset has twice counts twice."""

    added: Counter[str] = field(default_factory=Counter)
    """Images by class."""
    removed: Counter[str] = field(default_factory=Counter)
    """Images by class."""
    relabelled: int = 0
    """Images that both have, under two labels."""
    moved: int = 0
    """Images that both have, in two splits; none where the new one was appended to the old one."""
    same: int = 0
    """Images that both have under one label in one split."""
    examples: dict[str, list[str]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    """Some images of each of KINDS, by name."""


def compare(store: Store, old: Manifest, new: Manifest) -> Comparison:
    """Compares two datasets of a store. Raises StepError where their facts are gone or damaged."""
    ledger = Ledger(store, [Volume(manifest.shards, manifest.facts) for manifest in (old, new)])
    comparison = Comparison()
    with tempfile.TemporaryDirectory() as folder:
        buckets = Buckets(Path(folder, "images"), RECORD, ledger.rows)
        for batch in ledger.batches():
            buckets.add(batch, batch["hash"][:, 0])
        for records in buckets:
            if len(records):
                _compare(records, len(old.shards), ledger, comparison)
    return comparison


def _compare(records: NDArray[Any], old_shards: int, ledger: Ledger, comparison: Comparison) -> None:
    """Compares a bucket: images of the old dataset are in its shards, which come first."""
    records = records[np.lexsort((records["row"], records["shard"], *records["hash"].T[::-1]))]
    differs = (records["hash"][1:] != records["hash"][:-1]).any(axis=1)
    firsts = np.flatnonzero(np.append(True, differs))
    lasts = np.append(firsts[1:], len(records)) - 1
    before = np.add.reduceat(records["shard"] < old_shards, firsts, dtype=np.int64)
    after = lasts - firsts + 1 - before

    common = np.minimum(before, after)
    # Within a dataset all copies of an image have one label and one split.
    relabelled = (common > 0) & (records["label"][firsts] != records["label"][lasts])
    moved = (common > 0) & (records["split"][firsts] != records["split"][lasts])
    comparison.relabelled += int(common[relabelled].sum())
    comparison.moved += int(common[moved].sum())
    comparison.same += int(common[~relabelled & ~moved].sum())
    _count(comparison.added, records["label"][lasts], after - common, ledger)
    _count(comparison.removed, records["label"][firsts], before - common, ledger)
    for kind, which in zip(KINDS, (after > before, before > after, relabelled, moved), strict=True):
        names = comparison.examples[kind]
        for group in np.flatnonzero(which)[: EXAMPLES - len(names)]:
            names.append(_said(kind, records[firsts[group]], records[lasts[group]], ledger))


def _count(counts: Counter[str], labels: NDArray[np.uint32], images: NDArray[np.int64], ledger: Ledger) -> None:
    totals = np.bincount(labels, images).astype(np.int64)
    counts.update({ledger.labels[label]: int(totals[label]) for label in np.flatnonzero(totals)})


def _said(kind: str, old: Any, new: Any, ledger: Ledger) -> str:
    """An image by name, and what became of it."""
    if kind == "relabelled":
        return f"{ledger.entry(new).name}: {ledger.labels[old['label']]} → {ledger.labels[new['label']]}"
    if kind == "moved":
        return f"{ledger.entry(new).name}: {SPLITS[old['split']]} → {SPLITS[new['split']]}"
    return ledger.entry(old if kind == "removed" else new).name
