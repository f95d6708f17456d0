"""Batches of images: in their order for evaluation, shuffled and changed at random for training."""

import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from components.dataset.images import fit
from components.dataset.manifest import Manifest
from components.loader import crops
from components.loader.machine import memory
from components.loader.order import CHANGES, Order, random
from components.loader.stream import Batch, Decode, Stream
from components.storage import Store

CPU = torch.device("cpu")
WINDOW = 2 * 2**30
"""Bytes of shards that are mapped, on all ranks together, and whose images are shuffled among each other."""
RAW_WINDOW = 2**28
"""The same of raw pixels, which are held in memory."""
IN_ORDER = 2**28
"""The same where nothing is shuffled."""
SHARE = 4
"""The part of a device's memory that images may take for good: one in so many bytes."""

Shape = tuple[int, int, int]
"""Height, width and channels of what the network takes."""
Augment = Callable[[Tensor, Generator], Tensor]
"""Changes a batch of images at random: uint8 [N, H, W, C] to the same shape and type."""


def batches(
    store: Store, manifest: Manifest, split: str, shape: Shape, size: int = 256
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """The images of a split in their order, uint8 [N, H, W, C], and their labels, int64 [N], `size` at a time.

    Image files are fitted to the shape as `images.fit` does. Raises StepError, which names the shard, where one is gone
    or damaged.
    """
    stream = _open(store, manifest, split, shape)
    for found, labels in _in_order(stream, size):
        yield found.numpy(), labels.numpy()


class OrderedBatches:
    """The same on a device, as often as one likes.

    They stay there where they fit into a quarter of its memory; otherwise they are read anew each time.
    """

    def __init__(
        self, store: Store, manifest: Manifest, split: str, shape: Shape, size: int = 256, device: torch.device = CPU
    ) -> None:
        self.stream, self.size, self.device = _open(store, manifest, split, shape, device), size, device
        self.images = manifest.images(split)
        self._kept = keep(self.stream, device)

    def __len__(self) -> int:
        """How many batches there are."""
        return -(-self.images // self.size)

    def __iter__(self) -> Iterator[Batch]:
        if self._kept:
            yield from zip(*(torch.split(part, self.size) for part in self._kept), strict=True)
        else:
            yield from _moved(_in_order(self.stream, self.size), self.device)


class TrainingBatches:
    """The images of the training split in epochs, each of which is shuffled and changed at random in its own way.

    Images that have the network's shape are changed by `augment`, a batch at a time, and stay on the device where they
    fit into a quarter of its memory. Of others a random part is decoded, resized and perhaps mirrored (crops.py).

    What comes out depends on the data, the arguments and the number of the epoch alone: not on the machine.
    """

    def __init__(
        self,
        store: Store,
        manifest: Manifest,
        shape: Shape,
        batch_size: int,
        seed: int,
        augment: Augment,
        rank: int = 0,
        ranks: int = 1,
        device: torch.device = CPU,
    ) -> None:
        self.stream, self.seed, self.rank, self.device = (
            _open(store, manifest, "train", shape, device),
            seed,
            rank,
            device,
        )
        weights, window = None, WINDOW
        if manifest.encoding == "raw":
            weights, window = [shard.rows * int(np.prod(shape)) for shard in self.stream.shards], RAW_WINDOW
        self.order = Order(self.stream.shards, window, batch_size, seed, rank, ranks, weights)
        self.augment = augment if manifest.shape == shape else None
        self.waited_seconds = 0.0
        """How long those who iterated over an epoch had to wait for batches, in all."""
        self._kept = keep(self.stream, device) if self.augment else None
        self._crops = crops.Crops(0 if self.augment else memory() // SHARE)

    def __len__(self) -> int:
        """Batches an epoch; the same on every rank."""
        return self.order.batches

    @property
    def images(self) -> int:
        """Images an epoch on this rank; ranks differ by one at most."""
        return len(self.order)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from the one with the number `start` on, where one before was broken off.

        All but the last have `batch_size` images; where ranks differ, the last two may have one less. Raises StepError,
        which names the shard, where one is gone or damaged.
        """
        found = self._gather(number, start) if self._kept else self._stream(number, start)
        before = time.perf_counter()
        for batch in found:
            self.waited_seconds += time.perf_counter() - before
            yield batch
            before = time.perf_counter()

    def _stream(self, epoch: int, start: int) -> Iterator[Batch]:
        def draw(number: int, count: int) -> list[list[float]]:
            return crops.draw(self._random(epoch, number), count)

        if not self.augment:
            return _moved(self.stream.batches(self.order, self._crops.crop, draw, epoch, start), self.device)
        found = self.stream.batches(self.order, _fit(self.stream), _nothing, epoch, start)
        return self._augmented(_moved(found, self.device), epoch, start)

    def _gather(self, epoch: int, start: int) -> Iterator[Batch]:
        """The same of the images that are on the device."""
        assert self._kept is not None
        numbers = [self.stream.first[window.shards] + window.rows for window in self.order.windows(epoch)]
        places = np.concatenate([np.empty(0, np.int64), *numbers])
        cuts = [self.order.start(number) for number in range(start, len(self) + 1)]
        picked = torch.from_numpy(places).to(self.device)
        images, labels = self._kept
        batches = (picked[first:last] for first, last in pairwise(cuts))
        # index_select: ten times as fast as the brackets.
        found = ((images.index_select(0, some), labels.index_select(0, some)) for some in batches)
        return self._augmented(found, epoch, start)

    def _augmented(self, found: Iterator[Batch], epoch: int, start: int) -> Iterator[Batch]:
        assert self.augment is not None
        generator = Generator()
        for number, (batch, labels) in enumerate(found, start):
            generator.manual_seed(int(self._random(epoch, number).integers(2**63)))
            yield self.augment(batch, generator), labels

    def _random(self, epoch: int, batch: int) -> np.random.Generator:
        return random(self.seed, CHANGES, epoch, self.rank, batch)


def keep(stream: Stream, device: torch.device) -> Batch | None:
    """All images of a stream in their order, on a device; None where they take more than their share of its memory."""
    count = sum(shard.images for shard in stream.shards)
    room = memory() if device.type == "cpu" else torch.cuda.mem_get_info(device)[0]
    if count * int(np.prod(stream.shape)) > room // SHARE:
        return None
    images = torch.empty((count, *stream.shape), dtype=torch.uint8, device=device)
    labels = torch.empty(count, dtype=torch.int64, device=device)
    first = 0
    for found, numbers in _in_order(stream, 1024):
        some = slice(first, first := first + len(numbers))
        images[some], labels[some] = found, numbers
    return images, labels


def _open(store: Store, manifest: Manifest, split: str, shape: Shape, device: torch.device = CPU) -> Stream:
    stream = Stream(store, manifest, [shard for shard in manifest.shards if shard.split == split], shape)
    stream.pinned = device.type == "cuda"
    return stream


def _in_order(stream: Stream, size: int) -> Iterator[Batch]:
    return stream.batches(Order(stream.shards, IN_ORDER, size), _fit(stream), _nothing)


def _fit(stream: Stream) -> Decode:
    """What brings an image to the shape without chance."""
    return _copy if stream.manifest.encoding == "raw" else _decode


def _copy(pixels: NDArray[np.uint8], out: NDArray[np.uint8], drawn: None, number: int) -> None:
    out[:] = pixels


def _decode(content: memoryview, out: NDArray[np.uint8], drawn: None, number: int) -> None:
    height, width, channels = out.shape
    out[:] = fit(content, (height, width, channels))


def _nothing(number: int, count: int) -> list[None]:
    """Drawn where nothing is left to chance."""
    return [None] * count


def _moved(found: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    for batch, labels in found:
        yield batch.to(device, non_blocking=True), labels.to(device, non_blocking=True)
