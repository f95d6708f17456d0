"""What `retrain data` shows: tables for people, JSON for programs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from components.dataset.catalogue import digests, read
from components.dataset.manifest import SPLITS, Manifest
from components.step import UserError
from components.storage import Store
from pipelines.pages import table

if TYPE_CHECKING:
    from components.dataset.comparison import Comparison

SHORT = 12
"""Digits of a digest that people see."""


@dataclass(frozen=True)
class Listed:
    """A dataset, or why it cannot be read."""

    digest: str
    created: str
    images: int
    classes: int
    parent: str | None
    source: str
    unreadable: str = ""


def listed(store: Store) -> list[Listed]:
    """Every dataset of a store, the newest last."""
    return sorted(map(lambda digest: _listed(store, digest), digests(store)), key=lambda one: (one.created, one.digest))


def _listed(store: Store, digest: str) -> Listed:
    try:
        manifest = read(store, digest)
    except UserError as error:  # of an older version, perhaps; the others are shown all the same
        return Listed(digest, "", 0, 0, None, "", str(error))
    known = manifest.provenance
    images = sum(map(manifest.images, SPLITS))
    source = str(known.get("source", ""))
    return Listed(digest, str(known.get("created", "")), images, len(manifest.classes), manifest.parent, source)


def list_page(datasets: Sequence[Listed], uri: str) -> str:
    """The datasets for people."""
    if not datasets:
        return f"no datasets yet in {uri}; make one with `retrain run`"
    rows = [
        (
            one.digest[:SHORT],
            one.created,
            "" if one.unreadable else f"{one.images:,}",
            "" if one.unreadable else f"{one.classes:,}",
            (one.parent or "")[:SHORT],
            plain(one.unreadable or one.source),
        )
        for one in datasets
    ]
    return "\n".join(table(("DATASET", "CREATED", "IMAGES", "CLASSES", "PARENT", "SOURCE"), rows))


def list_facts(datasets: Sequence[Listed]) -> list[dict[str, Any]]:
    """The datasets for programs."""
    return [asdict(one) | {"unreadable": one.unreadable or None} for one in datasets]


def page(manifest: Manifest) -> str:
    """A dataset for people."""
    blocks = [
        [f"{name}: {value}" for name, value in facts(manifest)],
        table(
            ("CLASS", *(split.upper() for split in SPLITS)),
            [
                (plain(name), *(f"{manifest.counts[split].get(name, 0):,}" for split in SPLITS))
                for name in manifest.classes
            ],
        ),
        [f"{check['name']}: {check['sentence']}" for check in manifest.provenance.get("checks", ())],
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def facts(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """What is known of a dataset besides its classes and checks, as people write it."""
    known = manifest.provenance
    splits = ", ".join(f"{manifest.images(split):,} {split}" for split in SPLITS)
    height, width, channels = manifest.shape
    excluded = sum(len(shard.excluded) for shard in manifest.shards)
    yield "dataset", manifest.digest
    yield "images", f"{splits}; {len(manifest.classes):,} classes"
    yield "made of", plain(f"{known.get('source', 'unknown')} ({known.get('kind', 'unknown')})")
    yield "created", str(known.get("created", "unknown"))
    yield "parent", manifest.parent or "none"
    yield "encoding", f"{manifest.encoding}, {height or 'any'} x {width or 'any'} x {channels}"
    yield "mean", ", ".join(f"{value:.4f}" for value in manifest.mean)
    yield "standard deviation", ", ".join(f"{value:.4f}" for value in manifest.std)
    size = sum(shard.bytes for shard in manifest.shards) / 2**20
    yield "shards", f"{len(manifest.shards):,}, {size:,.1f} MiB; {excluded:,} of their rows are excluded"
    yield "quarantined", _counted(known.get("quarantined", {}))
    yield "excluded", _counted(known.get("excluded", {}))
    for split in SPLITS:
        yield f"{split} digest", manifest.split_digests[split]


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "nothing"


def comparison_page(old: Manifest, new: Manifest, found: "Comparison") -> str:
    """What became of one dataset in another, for people."""
    blocks = [
        [
            f"{old.digest[:SHORT]} → {new.digest[:SHORT]}"
            + (", which was appended to it" if new.parent == old.digest else ""),
            *(f"{name}: {count:,}" + _for_example(found, name) for name, count in comparison_counts(found).items()),
        ],
        _balance(old, new, found),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _for_example(found: "Comparison", kind: str) -> str:
    names = found.examples.get(kind)
    return f", for example {'; '.join(map(plain, names))}" if names else ""


def _balance(old: Manifest, new: Manifest, found: "Comparison") -> list[str]:
    """The classes with their shares in both, those that moved most first."""
    shares = [_shares(manifest) for manifest in (old, new)]
    names = dict.fromkeys((*old.classes, *new.classes))
    moves = {name: shares[1].get(name, 0.0) - shares[0].get(name, 0.0) for name in names}
    rows = [
        (
            plain(name),
            f"+{found.added[name]:,}",
            f"-{found.removed[name]:,}",
            *(f"{100 * share.get(name, 0.0):.2f} %" for share in shares),
            f"{100 * moves[name]:+.2f}",
        )
        for name in sorted(names, key=lambda name: -abs(moves[name]))
    ]
    return table(("CLASS", "ADDED", "REMOVED", "SHARE BEFORE", "AFTER", "POINTS"), rows)


def _shares(manifest: Manifest) -> dict[str, float]:
    counts = {name: sum(manifest.counts[split].get(name, 0) for split in SPLITS) for name in manifest.classes}
    total = sum(counts.values()) or 1
    return {name: count / total for name, count in counts.items()}


def comparison_counts(found: "Comparison") -> dict[str, int]:
    """The differences in numbers of images."""
    return {
        "added": found.added.total(),
        "removed": found.removed.total(),
        "relabelled": found.relabelled,
        "moved": found.moved,
        "same": found.same,
    }


def comparison_facts(old: Manifest, new: Manifest, found: "Comparison") -> dict[str, Any]:
    """What became of one dataset in another, for programs."""
    by_class = {"added_by_class": dict(found.added), "removed_by_class": dict(found.removed)}
    counts: dict[str, Any] = comparison_counts(found)
    return (
        {"old": old.digest, "new": new.digest, "parent": new.parent} | counts | by_class | {"examples": found.examples}
    )


def plain(text: str) -> str:
    """Text from outside without what a terminal would take for a command."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
