"""The images of a split, resident in memory as they are stored, and the batches that an epoch makes of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from components.dataset.manifest import Manifest
from components.dataset.shards import read_split
from components.storage import Store

CPU = torch.device("cpu")

Augment = Callable[[Tensor, Generator], Tensor]
"""Changes a batch of images at random: uint8 [N, H, W, C] to the same shape and type."""


@dataclass(frozen=True)
class Split:
    """Images, uint8 [N, H, W, C], and their labels, int64 [N].

    A byte a pixel: the whole of MNIST takes 55 MB, and a batch is one gather. Decoding, scaling and stacking images one
    by one is what the usual loop spends more than half of its time on.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels, `size` at a time, in their order."""
        return zip(torch.split(self.images, size), torch.split(self.labels, size), strict=True)


def read(store: Store, manifest: Manifest, name: str, device: torch.device = CPU) -> Split:
    """Reads a split of a dataset to a device. Raises StepError, naming the shard, where one is damaged or gone."""
    images, labels = read_split(store, manifest, name)
    return Split(torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device))


class Epochs:
    """Batches of a split, shuffled and augmented anew each time it is iterated over; the last one may be smaller."""

    def __init__(self, split: Split, batch_size: int, seed: int, augment: Augment) -> None:
        self.split, self.batch_size, self.augment = split, batch_size, augment
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        """Batches an epoch."""
        return -(-len(self.split) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.split), generator=self.generator)
        for picked in torch.split(order.to(self.split.labels.device), self.batch_size):
            # index_select: ten times as fast as the brackets.
            images, labels = self.split.images.index_select(0, picked), self.split.labels.index_select(0, picked)
            yield self.augment(images, self.generator), labels
