"""Ingest: the commit, which makes one dataset of what the workers wrote, or refuses it."""

import math
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from components.code import code_digest
from components.dataset.manifest import SPLITS, Manifest, Shard, decode, encode, manifest_key, write_manifest
from components.dataset.plan import read_plan
from components.ingest.checks import refusal
from components.ingest.decision import decide
from components.ingest.findings import Findings, examine
from components.ingest.intake import Sums, add, lost
from components.ingest.interface import Ingest
from components.ingest.limits import read_limits
from components.ingest.report import render
from components.registry import champion
from components.step import Metadata, StepError, UserError
from components.storage import NotFound, Store, aside, open_store


def ingest(step: Ingest) -> Metadata:
    """Writes the manifest of the dataset, unless the store has it already, and a report about it."""
    start = time.monotonic()
    store = open_store(step.store)
    store.require_writable()
    findings = examine(store, read_plan(store, step.plan), read_limits(step.limits))

    refused = refusal(findings.checks) or unusable(findings)
    manifest = None if refused else find(store, findings.digest)
    reused = manifest is not None
    report = f"ingest/{step.plan}/report.html"
    publish(render(store, findings, refused, reused), step.report, store, report)
    if refused:
        source = f"source {findings.plan.source!r} is refused"
        raise StepError(f"{source}: {refused}; mend the source or set limits, see {report} in store {store.uri}")

    if manifest is None:
        manifest = draft(findings, round(time.monotonic() - start, 3))
        # Last, so that a dataset which can be found is whole; two at once write the same dataset.
        store.write(manifest_key(manifest.digest), encode(manifest))
    write_manifest(step.dataset, manifest)
    print(summary(manifest, findings, reused), flush=True)

    decision, reason = decide(step.condition, champion(store, step.model_name), manifest.digest, code_digest())
    with aside(step.decision) as file:
        file.write_text(decision)
    if step.condition != "always":
        print(reason, flush=True)

    seconds = round(time.monotonic() - start, 3)
    return {"dataset": facts(manifest) | {"reused": reused, "reason": reason, "seconds": seconds}}


def publish(page: str, path: Path, store: Store, key: str) -> None:
    """Writes the report to a file, and to the store: Kubeflow drops what a step that failed has written."""
    content = page.encode()
    with aside(path) as file:
        file.write_bytes(content)
    store.write(key, content)


def unusable(findings: Findings) -> str:
    """Why nothing could be trained, whatever the limits allow; empty where it could."""
    for split, use in (("train", "train on"), ("validation", "validate with"), ("test", "test with")):
        if not findings.balance.split(split):
            return f"no image is left to {use}"
    spreads = _spreads(total(findings), findings.census.channels)
    flat = [channel for channel, spread in enumerate(spreads) if spread == 0]
    return f"channel {flat[0]} has the same value in every pixel of every training image" if flat else ""


def find(store: Store, digest: str) -> Manifest | None:
    """The manifest of this dataset, if the store has it and all of its files."""
    try:
        manifest = decode(store.read(manifest_key(digest)), manifest_key(digest))
    except (NotFound, UserError):  # damaged is as good as absent: it is written anew
        return None
    return None if lost(store, [*manifest.shards, *manifest.facts]) else manifest


def draft(findings: Findings, seconds: float) -> Manifest:
    """The manifest of what was found."""
    plan, parent = findings.plan, findings.parent
    sums = total(findings)
    mean, std = channel_statistics(sums, findings.census.channels)
    shards = exclude(findings)
    return Manifest(
        classes=findings.classes,
        encoding=findings.encoding,
        shape=findings.shape,
        counts={split: dict(findings.balance.counts[split]) for split in SPLITS},
        mean=mean,
        std=std,
        split_digests=findings.census.split_digests,
        digest=findings.digest,
        shards=tuple(shards.values()),
        facts=tuple(dict.fromkeys(findings.ledger.origins[number] for number in shards)),
        cuts=plan.cuts,
        parent=parent.digest if parent else None,
        provenance={
            "source": plan.source,
            "kind": plan.kind,
            "plan": plan.digest,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": seconds,
            "quarantined": dict(sorted(findings.intake.rejected.items())),
            "excluded": findings.excluded,
            "checks": [asdict(check) for check in findings.checks],
            "sums": sums,
        },
    )


def total(findings: Findings) -> Sums:
    """The sums over the training images: the parent's, and those that were written for this dataset.

    Images that were excluded after they were written are in them.
    """
    return add(findings.parent.provenance["sums"], findings.intake.sums) if findings.parent else findings.intake.sums


def channel_statistics(sums: Sums, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, of pixels scaled to [0, 1]: from whole sums, the same everywhere."""
    (pixels,) = sums["pixels"]
    mean = tuple(value / (255 * pixels) for value in sums["sum"][:channels])
    std = tuple(math.sqrt(spread) / (255 * pixels) for spread in _spreads(sums, channels))
    return mean, std


def _spreads(sums: Sums, channels: int) -> list[int]:
    """n Σx² - (Σx)² of each channel, a whole number, too. Grey images may have been counted in three channels alike."""
    (pixels,) = sums["pixels"]
    both = zip(sums["sum"][:channels], sums["squares"][:channels], strict=True)
    return [pixels * squares - value * value for value, squares in both]


def exclude(findings: Findings) -> dict[int, Shard]:
    """The shards by their numbers, with what the census excluded; those of which nothing is left are dropped."""
    excluded = np.sort(np.concatenate([np.empty(0, np.int64), *findings.census.excluded]))
    bounds = np.searchsorted(excluded >> 32, np.arange(len(findings.ledger.shards) + 1))
    shards = {}
    for number, shard in enumerate(findings.ledger.shards):
        rows = excluded[bounds[number] : bounds[number + 1]] & (2**32 - 1)
        if len(rows):
            shard = replace(shard, excluded=tuple(sorted({*shard.excluded, *rows.tolist()})))
        if shard.images:
            shards[number] = shard
    return shards


def summary(manifest: Manifest, findings: Findings, reused: bool) -> str:
    """What is to be said in the log."""
    name = f"dataset {manifest.digest[:12]}"
    counts = ", ".join(f"{manifest.images(split):,} {split}" for split in SPLITS)
    first = f"{name} is already in the store; reused" if reused else ""
    lines = [first or f"{name}: {counts} images of {len(manifest.classes)} classes"]
    aside = {"quarantined": findings.intake.rejected, "excluded": findings.excluded}
    for what, reasons in aside.items():
        told = ", ".join(f"{count:,} {reason}" for reason, count in sorted(reasons.items()) if count)
        lines += [f"{what}: {told}"] if told else []
    return "\n".join(lines)


def facts(manifest: Manifest) -> dict[str, Any]:
    """What the UI shows of the dataset."""
    counts = {split: manifest.images(split) for split in SPLITS}
    return {"digest": manifest.digest, "classes": len(manifest.classes)} | counts
