"""Trainings as KFP starts them: processes of their own."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.models.artifact import read_curve
from components.storage import DirectoryStore
from components.train.interface import Train

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}

Make = Callable[..., Train]


def maker(dataset: Path, store: DirectoryStore, room: Path) -> Make:
    """Makes trainings on a dataset; the first argument names the folder that they write to."""

    def make(out: str, **options: Any) -> Train:
        outputs: dict[str, Any] = {name: room / out / name for name in ("model", "metrics", "curves")}
        return Train(dataset=dataset, store=store.uri, **outputs, **options)

    return make


def flags(step: Train) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}" for name, value in dataclasses.asdict(step).items()]


def start(step: Train, *starter: str) -> "subprocess.Popen[str]":
    """Starts a training: by `starter`, or as one process."""
    command = [sys.executable, *(starter or ("-m", "components.train")), *flags(step)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)


def finish(step: Train, *starter: str) -> str:
    """Runs a training to its end; returns what it printed."""
    told, errors = start(step, *starter).communicate(timeout=300)
    assert step.model.exists(), errors
    return told


def outcome(step: Train) -> tuple[bytes, list[Any]]:
    """Weights, and of the learning curve all but how long it took."""
    curve = read_curve(step.model)
    times = {"seconds", "data_wait"}
    rows = [{name: value for name, value in row.items() if name not in times} for row in curve]
    return (step.model / "weights.safetensors").read_bytes(), rows
