"""Trainings on tiny data of both kinds."""

from pathlib import Path

import pytest
import torch

from components.storage import DirectoryStore
from tests.components.train.runs import Make, maker
from tests.ingestion import make_dataset
from tests.samples import write_tree

collect_ignore = [] if torch.cuda.is_available() else ["test_gpu.py"]


@pytest.fixture
def of_pixels(tiny_dataset: Path, store: DirectoryStore, tmp_path: Path) -> Make:
    """Makes trainings on raw pixels, which are kept in memory and distorted."""
    return maker(tiny_dataset, store, tmp_path)


@pytest.fixture
def of_files(store: DirectoryStore, tmp_path: Path) -> Make:
    """Makes trainings on JPEG files, of which crops are decoded."""
    return maker(make_dataset(write_tree(tmp_path / "tree"), store.uri, tmp_path), store, tmp_path)
