from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from components.dataset.manifest import read_manifest
from components.storage import DirectoryStore
from components.train.data import Epochs, Split, read

SPLIT = Split(torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1), torch.arange(10))


def unchanged(images: Tensor, generator: Generator) -> Tensor:
    return images


def labels(epochs: Epochs) -> list[list[int]]:
    return [labels.tolist() for _, labels in epochs]


def test_a_split_is_read_as_it_was_ingested(tiny_dataset: Path, store: DirectoryStore) -> None:
    manifest = read_manifest(tiny_dataset)
    split = read(store, manifest, "validation")
    assert split.images.shape == (manifest.images("validation"), 28, 28, 1)
    assert split.images.dtype == torch.uint8
    assert split.labels.bincount().tolist() == list(manifest.counts["validation"].values())


@pytest.mark.parametrize("size", [1, 3, 5, 10, 99])
def test_every_image_is_in_one_batch_of_an_epoch_with_its_label(size: int) -> None:
    epochs = Epochs(SPLIT, size, 0, unchanged)
    batches = list(epochs)
    assert len(batches) == len(epochs)
    assert all(len(labels) <= size for _, labels in batches)
    assert sorted(label for batch in labels(epochs) for label in batch) == list(range(10))
    assert all(torch.equal(images.flatten(), labels) for images, labels in batches)


def test_each_epoch_has_an_order_of_its_own_that_the_seed_decides() -> None:
    epochs, again, other = (Epochs(SPLIT, 4, seed, unchanged) for seed in (0, 0, 1))
    first, second = labels(epochs), labels(epochs)
    assert first != second
    assert [labels(again), labels(again)] == [first, second]
    assert labels(other) != first


def test_batches_without_shuffling_keep_the_order() -> None:
    assert [labels.tolist() for _, labels in SPLIT.batches(6)] == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9]]
