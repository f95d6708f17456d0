"""Training batches that a process of its own reads and decodes, for a loop that feeds a GPU.

A step on a GPU is hundreds of small calls, each of which takes Python's lock, and waits for it where a dozen threads
that decode want it too: with them in the loop's process, an H200 did two thirds of what it can do. The images come
through memory that both have mapped, and from which the GPU fetches them by itself.
"""

import mmap
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, Pipe

import numpy as np
import torch
from torch import Tensor

from components.loader.stream import AHEAD, Batch, Shape, Take
from components.step import StepError, UserError, die_with_parent

PLACES = AHEAD + 2
"""Batches in the memory: those that are being decoded, one that waits, and one that is in use."""

NOT_BEGUN = (-1, 0)
"""Where a process is that waits to be asked."""

Read = Callable[[int, int], Iterator[Batch]]
"""The batches of an epoch, by its number, from one on."""


class Apart:
    """The process, and the memory that is shared with it."""

    _told: bool  # whether it knows what to read
    _begun: tuple[int, int]  # the epoch that it is at, and from where on

    def __init__(self, make: Callable[[Take], Read], size: int, shape: Shape, ahead: bool) -> None:
        """What `make` makes there, which has to be pickled, is given memory for batches of up to `size` images.

        With `ahead` it goes from epoch to epoch unasked, so that the first batches are there when they are wanted.
        """
        self._make, self._shape, self._ahead = make, (PLACES, size, *shape), ahead
        self._memory = os.memfd_create("batches")  # not /dev/shm: a pod's has 64 MiB
        os.ftruncate(self._memory, int(np.prod(self._shape)))
        weakref.finalize(self, os.close, self._memory)
        self._places = _mapped(self._memory, self._shape)
        self._pin()
        self._begin()

    def epoch(self, number: int, start: int) -> Iterator[Batch]:
        """The batches of an epoch from one on, each of which may be looked at until the next is asked for.

        Raises what the process raises, and StepError where it ends.
        """
        if self._begun not in (NOT_BEGUN, (number, start)):
            self.close()
        if not self._end.alive:
            self._begin()
        try:
            if not self._told:  # not earlier: whoever begins would wait until somebody is there to hear it
                self._connection.send((self._shape, self._make, self._ahead))
                self._told = True
            if self._begun == NOT_BEGUN:
                self._connection.send((number, start))
            self._begun = number, -1  # whose rest nobody wants, if this is broken off
            while (found := self._connection.recv()) is not None:
                if isinstance(found, Exception):
                    raise found
                place, labels = found
                yield self._places[place, : len(labels)], torch.from_numpy(labels)
                self._connection.send(None)  # its place is free
        except (EOFError, ConnectionError):
            raise self._lost() from None
        self._begun = (number + 1, 0) if self._ahead else NOT_BEGUN

    def close(self) -> None:
        """Ends the process, whatever it is doing; another epoch has another one."""
        self._end()

    def _begin(self) -> None:
        self._connection, theirs = Pipe()
        handles = theirs.fileno(), self._memory
        command = [sys.executable, "-m", "components.loader.apart", *map(str, handles)]
        # In a session of its own: of a signal to all, such as Ctrl-C, the loop alone decides what becomes.
        self._process = subprocess.Popen(command, pass_fds=handles, start_new_session=True)
        theirs.close()
        self._end = weakref.finalize(self, _end, self._process, self._connection)
        self._told, self._begun = False, NOT_BEGUN

    def _pin(self) -> None:
        """Has the GPU fetch from the memory by itself."""
        if not torch.cuda.is_available():
            return
        runtime, where = torch.cuda.cudart(), self._places.data_ptr()  # type: ignore[no-untyped-call]
        if code := int(runtime.cudaHostRegister(where, self._places.numel(), 0)):
            with suppress(RuntimeError):  # or it would be the error of whatever comes next
                torch.zeros(1, device="cuda")
            print(
                f"warning: memory cannot be pinned (CUDA error {code}); copies to the GPU take longer", file=sys.stderr
            )
        else:
            weakref.finalize(self, runtime.cudaHostUnregister, where)

    def _lost(self) -> StepError:
        code = self._process.wait()
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        memory = "; perhaps the memory did not suffice" if code == -signal.SIGKILL else ""
        return StepError(f"the process that decodes images {how}{memory}")


def _end(process: "subprocess.Popen[bytes]", connection: Connection) -> None:
    connection.close()
    process.kill()
    process.wait()


def _mapped(memory: int, shape: tuple[int, ...]) -> Tensor:
    """The shared memory: uint8 [PLACES, N, H, W, C]."""
    return torch.frombuffer(mmap.mmap(memory, 0), dtype=torch.uint8).view(shape)


# In the process


class Loop:
    """What it hears of the loop."""

    def __init__(self, connection: Connection, places: Tensor) -> None:
        self.connection, self.places = connection, places
        self.taken = self.freed = 0

    def take(self, count: int) -> Tensor:
        """The next place, when it is free."""
        while self.taken - self.freed == PLACES:
            self._hear()
        self.taken += 1
        return self.places[(self.taken - 1) % PLACES, :count]

    def give(self, images: Tensor, labels: Tensor) -> None:
        """Hands over a batch in a place that was taken."""
        self.say((images.storage_offset() // self.places.stride(0), labels.numpy()))

    def say(self, what: object) -> None:
        with _as_long_as_it_is_there():
            self.connection.send(what)

    def wanted(self) -> tuple[int, int]:
        """The next epoch that is asked for, and from where on."""
        while not (said := self._hear()):
            pass
        return said

    def _hear(self) -> tuple[int, int] | None:
        with _as_long_as_it_is_there():
            said: tuple[int, int] | None = self.connection.recv()
        self.freed += said is None
        return said


@contextmanager
def _as_long_as_it_is_there() -> Iterator[None]:
    """Ends the process where the loop is no more."""
    try:
        yield
    except (EOFError, ConnectionError):
        sys.exit()


def work(loop: Loop, read: Read, ahead: bool) -> None:
    """Reads one epoch after the other."""
    epoch, start = loop.wanted()
    while True:
        for images, labels in read(epoch, start):
            loop.give(images, labels)
        loop.say(None)
        epoch, start = (epoch + 1, 0) if ahead else loop.wanted()


def main() -> None:
    """Works until the loop is no more."""
    die_with_parent()
    connection, memory = Connection(int(sys.argv[1])), int(sys.argv[2])
    with _as_long_as_it_is_there():
        shape, make, ahead = connection.recv()
    loop = Loop(connection, _mapped(memory, shape))
    try:
        work(loop, make(loop.take), ahead)
    except (UserError, StepError, OSError) as error:
        loop.say(error)


if __name__ == "__main__":
    main()
