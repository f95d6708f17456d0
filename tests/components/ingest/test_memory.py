"""The commit's memory does not grow with the images."""

import subprocess
import sys
from pathlib import Path

import pytest

from components.dataset.manifest import SPLITS, read_manifest
from components.storage import DirectoryStore
from tests.components.ingest.synthetic import COMMIT, write_plan


def mebibytes(folder: Path, images: int) -> int:
    """The most that the commit of so many images took."""
    folder.mkdir()
    store = DirectoryStore(folder / "store")
    plan = write_plan(store, images, images_per_chunk=25_000)
    command = [sys.executable, "-c", COMMIT, plan, store.uri, str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert sum(map(read_manifest(folder / "dataset").images, SPLITS)) == images
    return int(ended.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_million_images_take_no_more_memory_than_a_few_hundred_thousand(tmp_path: Path) -> None:
    some, many = mebibytes(tmp_path / "some", 250_000), mebibytes(tmp_path / "many", 1_000_000)
    assert many < 512
    assert many - some < 64
