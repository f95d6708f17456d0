"""Reading ahead: what is asked for next is on its way already, while what was asked for last is being worked on."""

import io
import resource
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from components.storage import Object, Seekable, Store

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

T = TypeVar("T")
R = TypeVar("R")

THREADS = 32
BYTES = 32 * 2**20
"""Of what has been read, or is being read, and was not asked for yet."""
PATIENCE = 0.02
"""Seconds that are waited in all before threads are thought of."""
BLOCK = 4 * 2**20
"""Bytes of a large object that are read at once."""
BLOCKS = 4
"""Read ahead of the one that is asked for."""


def ahead(work: Callable[[T], R], items: Iterable[T], weigh: Callable[[T], int]) -> Iterator[tuple[T, R]]:
    """The items with what `work` makes of them, in their order; `weigh` says how many bytes that is about.

    At most `BYTES` lie ready, or one item that is larger. What `work` raises is raised when it is the item's turn.

    Threads work ahead only where there is something to wait for. Small files that the machine has in memory cost up to
    four times as much with threads, which then do little but take the interpreter's lock from each other.
    """
    items = iter(items)
    yield from _alone(work, items)
    yield from _together(work, items, weigh)


def _alone(work: Callable[[T], R], items: Iterator[T]) -> Iterator[tuple[T, R]]:
    """The items until they were waited for longer than worked on."""
    waited = worked = 0.0
    for item in items:
        start, started, waits = time.perf_counter(), time.thread_time(), _waits()
        result = work(item)
        spent = time.thread_time() - started
        worked += spent
        if _waits() > waits:
            waited += time.perf_counter() - start - spent
        yield item, result
        if waited > max(PATIENCE, worked):
            return


def _waits() -> int:
    """How often this thread gave the processor away to wait for something; other processes may take it, too."""
    return resource.getrusage(getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)).ru_nvcsw


def _together(work: Callable[[T], R], items: Iterator[T], weigh: Callable[[T], int]) -> Iterator[tuple[T, R]]:
    """The items, on which threads work ahead."""
    waiting: deque[tuple[T, int, Future[R]]] = deque()
    weight = 0
    pool = ThreadPoolExecutor(THREADS)
    try:
        for item in items:
            size = weigh(item)
            while waiting and (weight + size > BYTES or len(waiting) >= 4 * THREADS):
                done, its, result = waiting.popleft()
                yield done, result.result()
                weight -= its
            waiting.append((item, size, pool.submit(work, item)))
            weight += size
        while waiting:
            done, _, result = waiting.popleft()
            yield done, result.result()
    finally:
        pool.shutdown(cancel_futures=True)


def growing(most: int) -> Iterator[int]:
    """Sizes of batches: 1, 2, 4 and so on, and then always `most`, so that it is soon known how long they take."""
    size = 1
    while True:
        yield min(size, most)
        size = min(2 * size, most)


def open_ahead(store: Store, found: Object) -> BinaryIO:
    """A seekable file over a large object, for reading that goes forward.

    Raises StepError, also while it is read, where the store fails or has no longer this version of it.
    """
    return io.BufferedReader(Blocks(store, found), 2**16)


class Blocks(Seekable):
    """The same without a buffer."""

    def __init__(self, store: Store, found: Object) -> None:
        super().__init__(found)
        self.store = store
        self.pool = ThreadPoolExecutor(1 + BLOCKS)
        self.blocks: dict[int, Future[bytes]] = {}

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        if self.position >= self.found.size:
            return 0
        view = memoryview(buffer).cast("B")
        start = self.position % BLOCK
        part = memoryview(self._block(self.position // BLOCK))[start : start + len(view)]
        view[: len(part)] = part
        self.position += len(part)
        return len(part)

    def _block(self, number: int) -> bytes:
        last = (self.found.size - 1) // BLOCK
        wanted = range(number, min(number + BLOCKS, last) + 1)
        self.blocks = {block: self.blocks.get(block) or self.pool.submit(self._read, block * BLOCK) for block in wanted}
        return self.blocks[number].result()

    def _read(self, start: int) -> bytes:
        return self.store.read(self.found.key, start, min(BLOCK, self.found.size - start), self.found.version)

    def close(self) -> None:
        self.pool.shutdown(cancel_futures=True)
        super().close()
