"""Batches of images: in their order for evaluation, shuffled and changed at random for training."""

import time
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from components.dataset.images import fit
from components.dataset.manifest import Manifest
from components.loader import crops
from components.loader.apart import Apart, Read
from components.loader.machine import memory
from components.loader.order import CHANGES, CROPS, Order, random
from components.loader.stream import Batch, Decode, Shape, Stream, Take
from components.storage import DirectoryStore, Store, open_store

CPU = torch.device("cpu")
WINDOW = 2 * 2**30
"""Bytes of shards that are mapped, on all ranks together, and whose images are shuffled among each other."""
RAW_WINDOW = 2**28
"""The same of raw pixels, which are held in memory."""
IN_ORDER = 2**28
"""The same where nothing is shuffled."""
SHARE = 4
"""The part of a device's memory that images may take for good: one in so many bytes."""


class Augment(NamedTuple):
    """What changes images at random, a batch at a time."""

    draws: int
    """Random numbers that it takes for an image, D."""
    apply: Callable[[Tensor, Tensor], Tensor]
    """uint8 [N, H, W, C] and their numbers from 0 to 1, float32 [N, D], to images of the same shape and type."""


UNCHANGED = Augment(0, lambda images, drawn: images)

Policy = Callable[[Tensor, float], Tensor]
"""Changes an image, uint8 [H, W, C], by a number from 0 to 1, to one of the same shape and type; in any thread."""


def batches(
    store: Store, manifest: Manifest, split: str, shape: Shape, size: int = 64
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """The images of a split in their order, uint8 [N, H, W, C], and their labels, int64 [N], `size` at a time.

    No more than 64 at once, of which a network makes gigabytes already. Image files are fitted to the shape as
    `images.fit` does. Raises StepError, which names the shard, where one is gone or damaged.
    """
    stream = _open(store, manifest, split, shape)
    for found, labels in _in_order(stream, size):
        yield found.numpy(), labels.numpy()


class OrderedBatches:
    """The same on a device, as often as one likes; of several ranks each has a stretch of them, and none is twice.

    They stay there where they fit into a quarter of its memory; otherwise they are read anew each time.
    """

    def __init__(
        self,
        store: Store,
        manifest: Manifest,
        split: str,
        shape: Shape,
        size: int = 256,
        device: torch.device = CPU,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.stream, self.device = _open(store, manifest, split, shape), device
        if device.type == "cuda":
            self.stream.take = lambda count: torch.empty((count, *shape), dtype=torch.uint8, pin_memory=True)
        self.order = Order(self.stream.shards, IN_ORDER, size, rank=rank, ranks=ranks)
        self.images = len(self.order)
        self._kept = keep(self.stream, device) if fits(self.stream, device) else None

    def __len__(self) -> int:
        """How many batches there are."""
        return self.order.batches

    def __iter__(self) -> Iterator[Batch]:
        if self._kept:
            cuts = pairwise(self.order.first + self.order.start(number) for number in range(len(self) + 1))
            yield from ((self._kept[0][first:last], self._kept[1][first:last]) for first, last in cuts)
        else:
            yield from _moved(self.stream.batches(self.order, _fit(self.stream), _nothing), self.device)


class TrainingBatches:
    """The images of the training split in epochs, each of which is shuffled and changed at random in its own way.

    Images that have the network's shape are changed by `augment`, a batch at a time, and stay on the device where they
    fit into a quarter of its memory. Of others a random part is decoded, resized and perhaps mirrored (crops.py), and
    then changed by `policy`, in the threads that decode.

    What comes out depends on the data, the arguments and the number of the epoch alone: not on the machine. Of images
    that are kept, the ranks together have the batches that one alone would have; of those that are read again each
    time, every rank reads shards of its own.
    """

    def __init__(
        self,
        store: Store,
        manifest: Manifest,
        shape: Shape,
        batch_size: int,
        seed: int,
        augment: Augment,
        policy: Policy | None = None,
        rank: int = 0,
        ranks: int = 1,
        device: torch.device = CPU,
        everywhere: Callable[[bool], bool] = bool,
    ) -> None:
        """`batch_size` counts the images of all ranks; `everywhere` tells whether something is so on each of them."""
        self.seed, self.device, self.batch_size = seed, device, batch_size
        self.stream = _open(store, manifest, "train", shape)
        self.augment = augment if manifest.shape == shape else None
        self.policy = policy
        kept = self.augment is not None and everywhere(fits(self.stream, device))
        self.rank, self.ranks = (0, 1) if kept else (rank, ranks)
        self.part, self.parts = (rank, ranks) if kept else (0, 1)
        """Which part of a batch is this rank's."""
        weights, window = None, WINDOW
        if manifest.encoding == "raw":
            weights, window = [shard.rows * int(np.prod(shape)) for shard in self.stream.shards], RAW_WINDOW
        size = batch_size // self.ranks
        # Half a batch at least, so that each rank has a part of the last one: from a single image batch normalisation
        # learns nothing.
        order = self.stream.shards, window, size, seed, self.rank, self.ranks, weights
        self.order = Order(*order, least=size // 2)
        self.waited_seconds = 0.0
        """How long those who iterated over an epoch had to wait for batches, in all."""
        self._kept = keep(self.stream, device) if kept else None
        self._crops = crops.Crops(0 if self.augment else memory() // SHARE)
        make = partial(reader, store.uri, manifest, shape, batch_size, seed, policy, rank, ranks)
        # Not ahead of what has to fetch its shards: those of the validation split may need their room in the cache.
        ahead = isinstance(store, DirectoryStore)
        self._apart = Apart(make, size, shape, ahead) if device.type == "cuda" and not kept else None

    def __len__(self) -> int:
        """Batches an epoch; the same on every rank."""
        return self.order.batches

    @property
    def images(self) -> int:
        """Images an epoch on all ranks."""
        return self.order.total

    def count(self, number: int) -> int:
        """Images of a batch on all ranks."""
        return self.order.count(number)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """This rank's part of the batches of an epoch, from the one with the number `start` on.

        All but the last two have as many images. Raises StepError, which names the shard, where one is gone or damaged.
        """
        found = self._gather(number, start) if self._kept else self._stream(number, start)
        before = time.perf_counter()
        for batch in found:
            self.waited_seconds += time.perf_counter() - before
            yield batch
            before = time.perf_counter()

    def _stream(self, epoch: int, start: int) -> Iterator[Batch]:
        read = self._apart.epoch if self._apart else self.read
        found = _moved(read(epoch, start), self.device)
        return self._changed(self.augment, found, epoch, start) if self.augment else found

    def read(self, epoch: int, start: int) -> Iterator[Batch]:
        """What `epoch` gives as it comes from the store: in memory, and cropped, or not yet augmented."""
        if self.augment:
            return self.stream.batches(self.order, _fit(self.stream), _nothing, epoch, start)
        changes = self._draw(epoch, 1)

        def draw(number: int, count: int) -> list[tuple[list[float], float]]:
            cropped = crops.draw(random(self.seed, CROPS, epoch, self.rank, number), count)
            return list(zip(cropped, changes(number)[:, 0].tolist(), strict=True))

        return self.stream.batches(self.order, self._crop, draw, epoch, start)

    def _crop(self, content: memoryview, out: NDArray[np.uint8], drawn: tuple[list[float], float], number: int) -> None:
        self._crops.crop(content, out, drawn[0], number)
        if self.policy:
            image = torch.from_numpy(out)
            image.copy_(self.policy(image, drawn[1]))

    def _gather(self, epoch: int, start: int) -> Iterator[Batch]:
        """The same of the images that are on the device."""
        assert self._kept is not None
        assert self.augment is not None
        numbers = [self.stream.first[window.shards] + window.rows for window in self.order.windows(epoch)]
        picked = torch.from_numpy(np.concatenate([np.empty(0, np.int64), *numbers])).to(self.device)
        images, labels = self._kept
        # index_select: ten times as fast as the brackets.
        found = (
            (images.index_select(0, some), labels.index_select(0, some))
            for first, last in self._cuts(start)
            for some in [picked[first:last]]
        )
        return self._changed(self.augment, found, epoch, start)

    def _cuts(self, start: int) -> Iterator[tuple[int, int]]:
        """Where this rank's part of each batch begins and ends in the epoch."""
        for first, last in pairwise(map(self.order.start, range(start, len(self) + 1))):
            count = last - first
            yield first + self.part * count // self.parts, first + (self.part + 1) * count // self.parts

    def _changed(self, augment: Augment, found: Iterator[Batch], epoch: int, start: int) -> Iterator[Batch]:
        if not augment.draws:
            yield from found
            return
        draw = self._draw(epoch, augment.draws)
        for number, (images, labels) in enumerate(found, start):
            drawn = draw(number)
            some = slice(self.part * len(drawn) // self.parts, (self.part + 1) * len(drawn) // self.parts)
            yield augment.apply(images, drawn[some].to(self.device)), labels

    def _draw(self, epoch: int, draws: int) -> Callable[[int], Tensor]:
        """Draws for the images of a batch, by its number: from 0 to 1, float32 [N, draws]."""
        # One number a batch, drawn at once: to begin a generator costs as much as to gather a batch.
        seeds = random(self.seed, CHANGES, epoch, self.rank, 0).integers(2**63, size=len(self)).tolist()
        generator = Generator()

        def draw(number: int) -> Tensor:
            generator.manual_seed(seeds[number])
            count = self.order.start(number + 1) - self.order.start(number)
            return torch.rand(count, draws, generator=generator)

        return draw


def fits(stream: Stream, device: torch.device) -> bool:
    """Whether all images of a stream take no more than their share of a device's memory."""
    count = sum(shard.images for shard in stream.shards)
    room = memory() if device.type == "cpu" else torch.cuda.mem_get_info(device)[0]
    return count * int(np.prod(stream.shape)) <= room // SHARE


def keep(stream: Stream, device: torch.device) -> Batch:
    """All images of a stream in their order, on a device."""
    count = sum(shard.images for shard in stream.shards)
    images = torch.empty((count, *stream.shape), dtype=torch.uint8, device=device)
    labels = torch.empty(count, dtype=torch.int64, device=device)
    first = 0
    for found, numbers in _in_order(stream, 1024):
        some = slice(first, first := first + len(numbers))
        images[some], labels[some] = found, numbers
    return images, labels


def reader(
    uri: str,
    manifest: Manifest,
    shape: Shape,
    batch_size: int,
    seed: int,
    policy: Policy | None,
    rank: int,
    ranks: int,
    take: Take,
) -> Read:
    """Reads what the training batches of these arguments read, in another process."""
    here = rank, ranks, CPU, lambda fits: False  # for what is kept no process is asked
    batches = TrainingBatches(open_store(uri), manifest, shape, batch_size, seed, UNCHANGED, policy, *here)
    batches.stream.take = take
    return batches.read


def _open(store: Store, manifest: Manifest, split: str, shape: Shape) -> Stream:
    return Stream(store, manifest, [shard for shard in manifest.shards if shard.split == split], shape)


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
    """Brings batches to a device; to a GPU while it computes."""
    if device.type != "cuda":
        yield from ((images.to(device), labels.to(device)) for images, labels in found)
        return
    copying, computing = _copying(device), torch.cuda.current_stream(device)
    for batch in found:
        with torch.cuda.stream(copying):
            moved = tuple(each.to(device, non_blocking=True) for each in batch)
        computing.wait_stream(copying)
        for each in moved:
            each.record_stream(computing)
        yield moved[0], moved[1]
        copying.synchronize()  # whoever gave the batch may now use its memory again


@lru_cache  # PyTorch keeps memory for each stream that has had some
def _copying(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
