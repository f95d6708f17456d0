"""Batches that a process of its own reads and decodes, for a loop that feeds a GPU.

A step on a GPU is hundreds of small calls, each of which takes Python's lock, and waits for it where a dozen threads
that decode want it too: with them in its own process, the loop got two thirds out of an H200 of what it can do. The
images come through memory that both have mapped, and from which the GPU fetches them by itself.
"""

import itertools
import mmap
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, Pipe

import numpy as np
import torch
from torch import Tensor

from components.loader.stream import AHEAD, Batch, Shape, Take
from components.step import StepError

PLACES = AHEAD + 2
"""Batches in the memory: those that are being decoded, one that waits, and one that is in use."""

Read = Callable[[int, int], Iterator[Batch]]
"""The batches of an epoch, by its number, from one on."""


class Apart:
    """Another process, which goes from epoch to epoch, and the memory that both share."""

    def __init__(self, make: Callable[[Take], Read], size: int, shape: Shape) -> None:
        """What `make` makes there, which has to be pickled, is given memory for batches of up to `size` images."""
        self._make, self._shape = make, (PLACES, size, *shape)
        self._memory = os.memfd_create("batches")  # not /dev/shm: a pod's has 64 MiB
        os.ftruncate(self._memory, int(np.prod(self._shape)))
        weakref.finalize(self, os.close, self._memory)
        self._places = _places(self._memory, self._shape)
        self._pin()
        self._told, self._next = False, (0, 0)
        self._begin()

    def epoch(self, number: int, start: int) -> Iterator[Batch]:
        """The batches of an epoch from one on, each of which may be looked at until the next is asked for.

        The first ones are there already where it is the epoch that comes next. Raises StepError where the process does,
        and where it ends.
        """
        if self._told and (number, start) != self._next:
            self.close()
        if not self._end.alive:
            self._begin()
        self._next = (-1, 0)  # none, if this one is broken off
        try:
            if not self._told:  # not earlier: whoever begins would wait until somebody is there to hear it
                self._connection.send((self._shape, self._make, number, start))
                self._told = True
            while (found := self._connection.recv()) is not None:
                if isinstance(found, StepError):
                    raise found
                place, labels = found
                yield self._places[place, : len(labels)], torch.from_numpy(labels)
                self._connection.send(None)  # its place is free
        except (EOFError, ConnectionError):
            raise self._lost() from None
        self._next = (number + 1, 0)

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
        self._told = False

    def _pin(self) -> None:
        if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            return
        runtime, where = torch.cuda.cudart(), self._places.data_ptr()  # type: ignore[no-untyped-call]
        torch.cuda.check_error(runtime.cudaHostRegister(where, self._places.numel(), 0))
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


def _places(memory: int, shape: tuple[int, ...]) -> Tensor:
    """The shared memory as batches: uint8 [PLACES, N, H, W, C]."""
    return torch.frombuffer(mmap.mmap(memory, 0), dtype=torch.uint8).view(shape)


# The other process


class Places:
    """Gives the places one after the other, when they are free."""

    def __init__(self, connection: Connection, places: Tensor) -> None:
        self._connection, self._places = connection, places
        self._taken = self._freed = 0

    def take(self, count: int) -> Tensor:
        """Raises EOFError when the loop has hung up."""
        while self._taken - self._freed == PLACES:
            self._connection.recv()
            self._freed += 1
        self._taken += 1
        return self._places[(self._taken - 1) % PLACES, :count]


def main() -> None:
    """Reads one epoch after the other, until the loop hangs up."""
    connection = Connection(int(sys.argv[1]))
    try:
        shape, make, first, start = connection.recv()
        read = make(Places(connection, _places(int(sys.argv[2]), shape)).take)
        places = itertools.cycle(range(PLACES))
        for epoch in itertools.count(first):
            for _, labels in read(epoch, start if epoch == first else 0):
                connection.send((next(places), labels.numpy()))
            connection.send(None)
    except StepError as error:
        connection.send(error)
    except (EOFError, ConnectionError):
        pass


if __name__ == "__main__":
    main()
