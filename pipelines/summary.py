"""A finished run on one screen: the verdict, each step with its time, where everything is, what to try next."""

import os
import shlex
from collections.abc import Sequence
from typing import Any

from components.dataset.manifest import SPLITS
from pipelines.local import Run


def screen(run: Run, flags: Sequence[str]) -> str:
    """The summary of a run that ended well; `flags` say where it was, for the command that asks its champion."""
    if run.steps[-1].name == "ingest":
        return f"\n{run.metadata('ingest', 'dataset')['reason']}"
    verdict = run.read("evaluate", "verdict")
    release = run.read("export", "release")
    notes = {
        "ingest": ingested(run.metadata("ingest", "dataset")),
        "train": trained(run.metadata("train", "metrics")),
        "evaluate": f"{verdict['test_images']:,} test images",
        "export": "ONNX differs from PyTorch by at most {max_difference:.0e} on {images:,} images".format(
            **release["parity"]
        ),
    }
    times = [f"  {name:<9}{seconds:6.1f} s   {notes.get(name, '')}".rstrip() for name, seconds in durations(run)]
    folder = release["onnx"].rpartition("/")[0]
    places = {"model": f"{folder}/weights.safetensors", "report": release["report"], "ONNX": release["onnx"]}
    return "\n".join(
        [
            "",
            headline(verdict, release),
            *(f"  {reason}" for reason in verdict["reasons"]),
            "",
            *times,
            "",
            *(f"  {name:<9}{shown(place)}" for name, place in places.items()),
            *advice(verdict, flags),
        ]
    )


def durations(run: Run) -> list[tuple[str, float]]:
    """How long everything took, in seconds, and the whole; to ingest are plan and shards, which run at once."""
    start, steps = run.steps[0].start, {step.name: step for step in run.steps}
    after = [(name, steps[name].seconds) for name in ("train", "evaluate", "export")]
    return [("ingest", steps["ingest"].end - start), *after, ("total", run.steps[-1].end - start)]


def headline(verdict: dict[str, Any], release: dict[str, Any]) -> str:
    """The outcome in one line: accuracy, against the champion, and what became of the model."""
    version = release["version"]
    champion = verdict["champion"]
    against = f" (champion: {champion['accuracy']:.2%})" if champion and champion["accuracy"] is not None else ""
    state = "accepted" if verdict["accepted"] else "REJECTED"
    rank = ", the champion" if release["champion"] else ""
    model = f"{version['name']} version {version['number']}{rank}"
    return f"{state}: {verdict['accuracy']:.2%} test accuracy{against}; {model}"


def ingested(metadata: dict[str, Any]) -> str:
    """Which dataset, how large, and whether it was there already."""
    state = "was in the store already, reused" if metadata["reused"] else "written to the store"
    images = sum(metadata[split] for split in SPLITS)
    return f"dataset {metadata['digest'][:12]}: {images:,} images of {metadata['classes']} classes, {state}"


def trained(metadata: dict[str, Any]) -> str:
    """How well and how fast."""
    return "{validation_accuracy:.2%} validation accuracy, {images_per_second:,.0f} images/s".format(**metadata)


def advice(verdict: dict[str, Any], flags: Sequence[str]) -> list[str]:
    """What to try next; nothing where no champion could be asked."""
    there = verdict["accepted"] or verdict["champion"]
    return ["", f"Try next: {shlex.join(['retrain', 'predict', 'IMAGE.png', *flags])}"] if there else []


def shown(place: str) -> str:
    """A path as it is shortest from where the user stands; a URI as it is."""
    return place if "://" in place else min(place, os.path.relpath(place), key=len)
