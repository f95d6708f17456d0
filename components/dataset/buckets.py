"""Records that no memory holds, in files by the leading bits of a key: those that belong together come together.

The partitioning of a Grace hash join (Kitsuregawa, Tanaka and Moto-Oka, 1983): every record is written once and read
once, however many there are, and only one bucket is in memory.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

RECORDS = 2**18
"""Records in a bucket, about, where keys are spread evenly."""


class Buckets:
    """Records of one dtype in a folder of their own, divided by a key; made for about `expected` of them."""

    def __init__(self, folder: Path, dtype: Any, expected: int) -> None:
        folder.mkdir()
        self.folder, self.dtype = folder, np.dtype(dtype)
        self.bits = min(16, (max(0, expected - 1) // RECORDS).bit_length())

    def add(self, records: NDArray[Any], keys: NDArray[np.uint64]) -> None:
        """Adds records [N] under their keys [N]; best many at once, as each bucket's file is opened for them."""
        # A shift by all 64 bits is undefined; numbers of 16 bits are sorted by their digits, in linear time.
        numbers = (keys >> np.uint64(64 - self.bits) if self.bits else np.zeros_like(keys)).astype(np.uint16)
        order = np.argsort(numbers, kind="stable")
        bounds = np.searchsorted(numbers[order], np.arange(2**self.bits + 1))
        records = records[order]
        for number in np.flatnonzero(np.diff(bounds)):
            with self._path(int(number)).open("ab") as file:
                records[bounds[number] : bounds[number + 1]].tofile(file)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """The records of one bucket after another, in ascending order of the keys' leading bits, unsorted in each."""
        for number in range(2**self.bits):
            path = self._path(number)
            yield np.fromfile(path, self.dtype) if path.exists() else np.empty(0, self.dtype)

    def remove(self) -> None:
        """Removes the files."""
        shutil.rmtree(self.folder)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}"
