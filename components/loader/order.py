"""The order in which images are read: of an epoch by its seed and number alone, whatever machine reads them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.dataset.manifest import Shard

Piece = tuple[int, int, int]
"""The number of a shard, the first of its images, and the one after the last."""

SHARDS, ROWS, CROPS, CHANGES = range(4)
"""What is drawn at random: each has numbers of its own."""


@dataclass(frozen=True)
class Window:
    """Images that are shuffled among each other: they are read from their shards at the same time."""

    start: int
    """How many images of the epoch come before."""
    shards: NDArray[np.int64]
    """Of each image, the number of its shard, [M]."""
    rows: NDArray[np.int64]
    """Of each image, its place among those of the shard, [M]."""

    def __len__(self) -> int:
        return len(self.rows)


class Order:
    """The images of some shards, dealt to `ranks`, in batches.

    Shards are shuffled, then laid end to end and cut into one stretch a rank: each rank reads shards of its own, and at
    the borders one more. A stretch is cut into windows, and within a window images are shuffled. The ranks' shares
    differ by one image at most, and the number of batches does not differ.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        window: int,
        batch_size: int,
        seed: int | None = None,
        rank: int = 0,
        ranks: int = 1,
        weights: Sequence[int] | None = None,
        least: int = 1,
    ) -> None:
        """Nothing is shuffled where `seed` is None. A window is at least a shard, and up to `window` of their weights.

        A shard weighs its bytes, unless `weights` are given. All ranks together read about a window at a time. The last
        batches have `least` images or more, where there are as many.
        """
        self.images = np.array([shard.images for shard in shards], np.int64)
        self.weights = np.array([shard.bytes for shard in shards] if weights is None else weights, np.int64)
        self.window = window // ranks
        self.batch_size, self.seed, self.rank, self.ranks = batch_size, seed, rank, ranks
        self.least = min(least, batch_size - 1)
        self.total = int(self.images.sum())
        self.first, self.last = rank * self.total // ranks, (rank + 1) * self.total // ranks
        largest = -(-self.total // ranks)
        self.batches = -(-largest // batch_size)

    def __len__(self) -> int:
        """How many images an epoch has for this rank."""
        return self.last - self.first

    def start(self, batch: int) -> int:
        """How many images of an epoch come before a batch.

        The last batch takes images from that before it, where it has fewer than `least`; where another rank has one
        image more and so one batch more, it is empty only where a batch is of one image, or where there are more ranks
        than images.
        """
        return self._start(batch, len(self))

    def count(self, batch: int) -> int:
        """Images of a batch on all ranks together; every rank knows it."""
        fewest, longer = divmod(self.total, self.ranks)  # so many have one image more
        shares = ((fewest, self.ranks - longer), (fewest + 1, longer))
        return sum(ranks * (self._start(batch + 1, share) - self._start(batch, share)) for share, ranks in shares)

    def _start(self, batch: int, share: int) -> int:
        """The same for a rank that has `share` images."""
        kept = self.least * (self.batches - batch)
        return max(0, min(batch * self.batch_size, share - kept))

    def windows(self, epoch: int, start: int = 0) -> Iterator[Window]:
        """The windows of an epoch that end after the first `start` images."""
        before = 0
        for number, pieces in enumerate(self._cut(self._pieces(epoch))):
            count = sum(last - first for _, first, last in pieces)
            if before + count > start:
                shards = np.repeat([shard for shard, _, _ in pieces], [last - first for _, first, last in pieces])
                rows = np.concatenate([np.arange(first, last) for _, first, last in pieces])
                if self.seed is not None:
                    mixed = random(self.seed, ROWS, epoch, self.rank, number).permutation(count)
                    shards, rows = shards[mixed], rows[mixed]
                yield Window(before, shards, rows)
            before += count

    def _pieces(self, epoch: int) -> Iterator[Piece]:
        """The stretch of this rank."""
        shards = np.arange(len(self.images))
        if self.seed is not None:
            shards = random(self.seed, SHARDS, epoch, 0, 0).permutation(len(shards))
        ends = self.images[shards].cumsum()
        begin, end = np.searchsorted(ends, (self.first, self.last), side="right")
        for place in range(begin, min(end + 1, len(shards))):
            shard = int(shards[place])
            before = int(ends[place] - self.images[shard])
            first, last = max(self.first - before, 0), min(self.last - before, int(self.images[shard]))
            if first < last:
                yield shard, first, last

    def _cut(self, pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
        """The pieces of each window."""
        window: list[Piece] = []
        weight = 0
        for piece in pieces:
            if window and weight + self.weights[piece[0]] > self.window:
                yield window
                window, weight = [], 0
            window.append(piece)
            weight += int(self.weights[piece[0]])
        if window:
            yield window


def random(seed: int, what: int, epoch: int, rank: int, number: int) -> np.random.Generator:
    """Random numbers that depend on these five alone."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(what, epoch, rank, number)))
