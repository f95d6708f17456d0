"""The report about a dataset: one HTML page that needs neither network nor script, for a browser and for KFP's UI."""

import base64
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from PIL import Image

from components.dataset import images, quarantine
from components.dataset.ledger import Entry
from components.dataset.manifest import SPLITS, Shard
from components.ingest.checks import bound, percent
from components.ingest.findings import Findings
from components.ingest.limits import LIMITS
from components.page import template
from components.storage import NotFound, Store

PAGE = Path(__file__).with_name("report.html")

CLASSES = 60
"""Classes that are shown; of more, the largest and the smallest."""

REJECTED = 30
"""Entries in quarantine that are shown, as many of each reason as of any other."""

FAULTS = {
    "conflicts": "One image, two labels",
    "leaks": "One image, two splits",
    "near_leaks": "Alike, in two splits",
    "duplicates": "One image, twice in a split",
    "near_duplicates": "Alike, in one split",
}
"""The headings of the examples. Of the first, second and fourth the images are the same, so one picture is shown."""

PICTURES = {b"\xff\xd8": "image/jpeg", b"\x89PNG": "image/png"}
"""Types of pictures by their first bytes."""


@dataclass(frozen=True)
class Row:
    """A class in the table of the balance."""

    name: str
    counts: dict[str, int]
    shares: dict[str, float]
    """By split, of the largest class, in percent: the widths of its bars."""
    moved: float | None
    """By how many points its share of what was appended differs from that of the parent's; None without one."""


@dataclass(frozen=True)
class Figure:
    """An example of a fault."""

    pictures: list[str]
    """Data URIs."""
    entries: list[Entry]


@dataclass(frozen=True)
class Rejected:
    """An entry in quarantine."""

    entry: quarantine.Entry
    picture: str | None


def render(store: Store, findings: Findings, refused: str, reused: bool) -> str:
    """The page; `refused` says why there is no dataset. Whatever comes from outside, such as a name, is escaped."""
    balance = findings.balance
    return template(PAGE).render(
        outcome="refused" if refused else "reused" if reused else "published",
        refused=refused,
        findings=findings,
        figures=figures(findings),
        checks=[(check, bound(check), measured(check.name, check.measured)) for check in findings.checks],
        limits=LIMITS,
        splits=SPLITS,
        totals={split: balance.split(split) for split in SPLITS},
        rows=rows(findings),
        sizes=sizes(findings),
        reasons=reasons(findings),
        meanings=quarantine.REASONS,
        rejected=list(rejected(store, findings)),
        examples=examples(store, findings),
        facts=facts(store, findings),
        now=datetime.now(UTC),
    )


def figures(findings: Findings) -> dict[str, tuple[str, str]]:
    """The figures of the head of the page: {name: (value, what it counts)}."""
    balance, intake = findings.balance, findings.intake
    shown = {
        "Images": (balance.images, f"{sum(balance.appended.values()):,} of them new" if findings.parent else "in all"),
        "Classes": (len(findings.classes), "by name"),
        "Quarantined": (intake.rejected.total(), f"of {intake.entries:,} entries"),
        "Excluded": (sum(findings.excluded.values()) + intake.known, "after they were read"),
    }
    return {name: (f"{value:,}", unit) for name, (value, unit) in shown.items()}


def measured(name: str, value: float) -> str:
    """What a check measured as people write it."""
    return f"{value:,.0f}" if LIMITS[name].whole else percent(value)


def rows(findings: Findings) -> list[Row]:
    """The balance of the classes in their order; of very many, the largest and the smallest."""
    balance = findings.balance
    sizes = {name: sum(balance.counts[split][name] for split in SPLITS) for name in findings.classes}
    ranked = sorted(sizes, key=lambda name: -sizes[name])
    shown = {*ranked[: CLASSES // 2], *ranked[-CLASSES // 2 :]} if len(ranked) > CLASSES else {*ranked}
    most = max(sizes.values(), default=0) or 1
    return [
        Row(
            name,
            {split: balance.counts[split][name] for split in SPLITS},
            {split: round(100 * balance.counts[split][name] / most, 2) for split in SPLITS},
            100 * balance.moves[name] if balance.moves else None,
        )
        for name in findings.classes
        if name in shown
    ]


def sizes(findings: Findings) -> list[tuple[str, int, float]]:
    """How many images have a shorter side of how many pixels, and their share of the most of them, in percent."""
    counts = findings.census.sides
    found = np.flatnonzero(counts)
    most = max(int(counts.max()), 1)
    among = range(int(found.min()), int(found.max()) + 1) if len(found) else ()
    return [
        (f"{2**digits // 2} to {2**digits - 1}", int(counts[digits]), round(100 * int(counts[digits]) / most, 2))
        for digits in among
    ]


def reasons(findings: Findings) -> dict[str, int]:
    """Why entries of the source are no part of the dataset, and how many."""
    excluded = dict(findings.excluded)
    excluded["in the parent"] += findings.intake.known
    return {reason: count for reason, count in (findings.intake.rejected + Counter(excluded)).most_common() if count}


def rejected(store: Store, findings: Findings) -> Iterator[Rejected]:
    """Entries in quarantine, of every reason some; no more files are read than have what is wanted."""
    wanted = Counter(dict.fromkeys(findings.intake.rejected, 0))
    share = max(1, REJECTED // max(1, len(wanted)))
    for reason, count in findings.intake.rejected.items():
        wanted[reason] = min(share, count)
    for file in findings.intake.quarantine:
        if not wanted.total():
            return
        for entry in quarantine.read(store, file):
            if wanted[entry.reason] > 0:
                wanted[entry.reason] -= 1
                yield Rejected(entry, data_uri(entry.thumbnail))


def examples(store: Store, findings: Findings) -> dict[str, list[Figure]]:
    """Pairs of images for each fault, by heading."""
    pairs = {**findings.census.examples, **findings.likeness.examples}
    return {
        heading: [figure(store, findings, pair, fault.startswith("near")) for pair in pairs[fault]]
        for fault, heading in FAULTS.items()
        if pairs[fault]
    }


def figure(store: Store, findings: Findings, pair: Sequence[Any], both: bool) -> Figure:
    """An example with the pictures of both images, or of the first."""
    entries = [findings.ledger.entry(record) for record in pair]
    shown = entries if both else entries[:1]
    pictures = [data_uri(picture(store, findings, entry.shard, entry.row)) for entry in shown]
    return Figure([uri for uri in pictures if uri], entries)


def picture(store: Store, findings: Findings, shard: Shard, row: int) -> bytes | None:
    """A thumbnail of an image in a shard; None where it cannot be had."""
    try:
        with store.open(shard.key) as file:
            value = _value(parquet.ParquetFile(file), row)
    except (NotFound, pa.ArrowException, OSError):
        return None
    if findings.plan.shape is None:
        return images.thumbnail(value["bytes"], findings.plan.max_pixels)
    pixels = np.frombuffer(value, np.uint8).reshape(findings.plan.shape)
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _value(file: parquet.ParquetFile, row: int) -> Any:
    for group in range(file.num_row_groups):
        count = file.metadata.row_group(group).num_rows
        if row < count:
            return file.read_row_group(group, columns=["image"])["image"][row].as_py()
        row -= count
    raise pa.ArrowException(f"no row {row}")


def data_uri(content: bytes | None) -> str | None:
    """A picture in a data URI (RFC 2397); None where it is neither JPEG nor PNG."""
    for magic, kind in PICTURES.items():
        if content and content.startswith(magic):
            return f"data:{kind};base64,{base64.b64encode(content).decode()}"
    return None


def facts(store: Store, findings: Findings) -> dict[str, Mapping[str, str]]:
    """What is known of the dataset, its lineage and its source: {heading: {name: value}}."""
    census, plan, intake = findings.census, findings.plan, findings.intake
    any_image = findings.balance.images > 0
    dataset = {
        "digest": findings.digest[:12] + "…",
        "images": "raw pixels" if plan.shape else "image files",
        "channels": str(census.channels),
        "width": span(census.widths) if any_image else "none",
        "height": span(census.heights) if any_image else "none",
        "shards": f"{len(findings.ledger.shards):,}",
    }
    lineage = {
        "parent": plan.parent[:12] + "…" if plan.parent else "none",
        "in the parent": f"{sum(findings.balance.parent.values()):,} images",
        "appended": f"{sum(findings.balance.appended.values()):,} images",
        "known already": f"{intake.known + census.known:,} images",
    }
    source = {
        "source": plan.source,
        "layout": plan.kind,
        "read": f"{plan.bytes:,} bytes",
        "passed over": plan.passed_over or "nothing",
        "chunks": f"{plan.chunks:,}",
        "plan": plan.digest[:12] + "…",
        "store": store.uri,
    }
    return {"Dataset": dataset, "Lineage": lineage, "Provenance": source}


def span(bounds: tuple[int, int]) -> str:
    """The least and the greatest of something in pixels."""
    least, most = bounds
    return f"{least:,} pixels" if least == most else f"{least:,} to {most:,} pixels"
