"""Images of a split, read ahead from the store and decoded in threads.

Threads suffice beside a processor that computes: what decodes and resizes gives Python's lock back meanwhile. Beside a
GPU all of this runs in another process (apart.py).
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.dataset.images import BadImage
from components.dataset.manifest import Manifest, Shard
from components.dataset.shards import files, pixels
from components.loader.cache import Cache
from components.loader.machine import cores
from components.loader.order import Order, Window
from components.step import StepError
from components.storage import Store

READERS = 4
"""Shards that are fetched and verified at the same time."""
SLICE = 16
"""Images that a thread decodes before it takes others."""
AHEAD = 4
"""Batches that are being decoded."""
SMALL = 2**16
"""Bytes of an image file, in the mean, below which no more threads decode than these:"""
FEW = 8
"""More wait for Python's lock, of which a small image takes as much as a large one: on 16 cores beside an H200, 16
threads made 5,001 crops of 224x224 a second, 11 made 7,319, 8 made 8,298 and 5 made 9,682. Decoding needs more of them
than what is kept decoded, as it was there."""

Shape = tuple[int, int, int]
"""Height, width and channels of what the network takes."""
Batch = tuple[Tensor, Tensor]
"""Images, uint8 [N, H, W, C], and their labels, int64 [N]."""
Take = Callable[[int], Tensor]
"""Gives memory for so many images: uint8 [N, H, W, C]."""
Decode = Callable[[Any, NDArray[np.uint8], Any, int], None]
"""Decodes an image, as `Content` has it, into uint8 [H, W, C]; then comes what was drawn for it, and its number."""
Draw = Callable[[int, int], Sequence[Any]]
"""What is left to chance of a batch: by its number and that of its images, something for each of them."""


class Content(NamedTuple):
    """The images of a shard."""

    images: Any
    """Image files, a list of N, or raw pixels, uint8 [N, H, W, C]."""
    labels: NDArray[np.int64]


class Loaded(NamedTuple):
    """A window and its shards, by number."""

    window: Window
    shards: dict[int, Content]


class Part(NamedTuple):
    """Images of a batch that are in the same window."""

    images: list[Any]
    labels: list[Any]
    numbers: list[int]
    """In the order of the manifest."""


class Stream:
    """The images of some shards, decoded to a shape."""

    def __init__(self, store: Store, manifest: Manifest, shards: Sequence[Shard], shape: Shape) -> None:
        self.store, self.manifest, self.shards, self.shape = store, manifest, shards, shape
        self.first = np.cumsum([0, *(shard.images for shard in shards)])
        """The number of each shard's first image."""
        self.workers = decoding_threads(manifest)
        self.take: Take = lambda count: torch.empty((count, *shape), dtype=torch.uint8)
        """Where batches come to lie."""

    def batches(self, order: Order, decode: Decode, draw: Draw, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from the one with the number `start` on.

        Raises StepError, which names the shard, for one that is gone, is damaged or holds what cannot be decoded.
        """
        cache = Cache(self.store)
        readers, pool = Readers(READERS), _threads(self.workers)
        decoding: deque[tuple[Batch, list[Future[None]]]] = deque()
        try:
            cache.require(_needed(self.shards, order, self.manifest))
            for number, part in self._parts(self._load(cache, readers, order, epoch, start), order, start):
                decoding.append(self._begin(pool, decode, draw, number, part))
                del part  # or its shards would stay in use while the next are waited for
                if len(decoding) == AHEAD:
                    yield _finish(*decoding.popleft())
            while decoding:
                yield _finish(*decoding.popleft())
        finally:
            cache.close()
            readers.close()
            pool.shutdown(cancel_futures=True)

    def _load(self, cache: Cache, readers: "Readers", order: Order, epoch: int, start: int) -> Iterator[Loaded]:
        """The windows of an epoch; the next is loading while one is in use."""
        windows = order.windows(epoch, order.start(start))

        def begin() -> tuple[Window, dict[int, Future[Content]]] | None:
            if (window := next(windows, None)) is None:
                return None
            numbers = np.unique(window.shards).tolist()
            return window, {number: readers.submit(self._read, cache, number) for number in numbers}

        loading = begin()
        while loading:
            loaded = Loaded(loading[0], {number: content.result() for number, content in loading[1].items()})
            loading = begin()  # after this one, so that it takes no room in the cache from it
            yield loaded
            del loaded

    def _read(self, cache: Cache, number: int) -> Content:
        shard = self.shards[number]
        if self.manifest.encoding == "raw":
            return Content(*pixels(cache.map(shard), shard, self.manifest))
        return Content(*files(cache.map(shard), shard, self.manifest))

    def _parts(self, loaded: Iterator[Loaded], order: Order, start: int) -> Iterator[tuple[int, Part]]:
        """Of each batch the number and the images as they are stored."""
        current: Loaded | None = None
        for number in range(start, order.batches):
            place, end = order.start(number), order.start(number + 1)
            part = Part([], [], [])
            while place < end:
                if current is None or place == current.window.start + len(current.window):
                    current = None
                    part.images[:] = [bytes(view) if isinstance(view, memoryview) else view for view in part.images]
                    current = next(loaded)  # now that nothing of the one before is in use
                place = self._collect(part, current, place, end)
            yield number, part
            del part

    def _collect(self, part: Part, loaded: Loaded, place: int, end: int) -> int:
        """Adds the images from one place of the epoch to another, as far as they are in a window; returns how far."""
        window, contents = loaded
        some = slice(place - window.start, end - window.start)
        numbers, rows = window.shards[some], window.rows[some]
        for number, row in zip(numbers.tolist(), rows.tolist(), strict=True):
            part.images.append(contents[number].images[row])
            part.labels.append(contents[number].labels[row])
        part.numbers.extend((self.first[numbers] + rows).tolist())
        return place + len(rows)

    def _begin(
        self, pool: ThreadPoolExecutor, decode: Decode, draw: Draw, number: int, part: Part
    ) -> tuple[Batch, list[Future[None]]]:
        """Has a batch decoded, some of its images in each task."""
        count = len(part.labels)
        images, drawn = self.take(count), draw(number, count)
        out = images.numpy()
        tasks = []
        for first in range(0, count, SLICE):
            some = slice(first, first + SLICE)
            each = part.images[some], out[some], drawn[some], part.numbers[some]
            tasks.append(pool.submit(self._decode, decode, *each))
        return (images, torch.from_numpy(np.array(part.labels, np.int64))), tasks

    def _decode(
        self, decode: Decode, images: list[Any], out: NDArray[np.uint8], drawn: Sequence[Any], numbers: list[int]
    ) -> None:
        for image, place, chance, number in zip(images, out, drawn, numbers, strict=True):
            try:
                decode(image, place, chance, number)
            except BadImage as error:
                shard = self.shards[int(np.searchsorted(self.first, number, side="right")) - 1]
                raise StepError(
                    f"an image in shard {shard.key} cannot be decoded ({error}); was it written by another version?"
                ) from None


def decoding_threads(manifest: Manifest) -> int:
    """How many threads decode a dataset's images here."""
    images, bytes = (sum(getattr(shard, name) for shard in manifest.shards) for name in ("images", "bytes"))
    return min(cores(), FEW) if bytes < SMALL * images else cores()


def _threads(count: int) -> ThreadPoolExecutor:
    """Threads of which each works alone.

    If the work in one of them were itself divided among threads, OpenMP would count more threads than there are cores,
    and no longer have those of the network wait for each other awake: a step then takes up to a quarter longer.
    """
    torch.get_num_threads()  # the caller keeps what it has: set_num_threads is also the default of threads to come
    return ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))


def _finish(batch: Batch, tasks: list[Future[None]]) -> Batch:
    for task in tasks:
        task.result()
    return batch


def _needed(shards: Sequence[Shard], order: Order, manifest: Manifest) -> int:
    """The bytes of shards that are in use at once, at most."""
    sizes = [shard.bytes for shard in shards]
    largest = max(sizes, default=0)
    if manifest.encoding == "raw":  # they are decoded as a whole, and then no longer needed
        return largest
    return min(sum(sizes), 2 * max(order.window, largest))


class Readers:
    """Threads for work that waits for the store. Nobody waits for them at the end: it may not answer for minutes."""

    def __init__(self, count: int) -> None:
        self._tasks: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._count = count
        for _ in range(count):
            threading.Thread(target=self._run, daemon=True, name="reader").start()

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._tasks.put((future, lambda: work(*arguments)))
        return future

    def close(self) -> None:
        """The threads end when they are done with what was submitted."""
        for _ in range(self._count):
            self._tasks.put(None)

    def _run(self) -> None:
        while task := self._tasks.get():
            future, work = task
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)
            del task, future, work  # or what was read stays in memory until there is something else to do
