"""What the images install is what pyproject.toml says the steps need."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def requirements(*extras: str, **variables: str) -> list[str]:
    command = [sys.executable, "docker/requirements.py", *extras]
    environment = {**os.environ, **variables}
    return subprocess.check_output(command, cwd=ROOT, env=environment, text=True).splitlines()


def names(lines: list[str]) -> set[str]:
    return {line.partition(">")[0].partition("=")[0] for line in lines}


def test_an_extra_brings_what_it_names_and_what_the_project_needs() -> None:
    assert names(requirements("ingest")) == {"click", "jinja2", "minio", "numpy", "pillow", "pyarrow", "simplejpeg"}


def test_an_extra_that_names_another_brings_both() -> None:
    assert names(requirements("export")) > names(requirements("train")) > {"minio", "pyarrow", "torch"}


def test_torch_can_be_another_than_the_pinned_one() -> None:
    pinned, other = requirements("train"), requirements("train", TORCH="torch==2.13.0+cpu")
    assert set(other) - set(pinned) == {"torch==2.13.0+cpu"}
    assert len(other) == len(pinned)
