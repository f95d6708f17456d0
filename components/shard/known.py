"""Which images a data set has already: a sorted table of their hashes in temporary files, looked up by bisection."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.dataset.buckets import Buckets
from components.dataset.ledger import Ledger, Volume
from components.dataset.manifest import Manifest
from components.storage import Store

KEY = np.dtype([("first", np.uint64), ("second", np.uint64)])
"""Sixteen bytes of an image's SHA-256, the first eight of them mixed with its label: an image that the data set has
under another label is not known, so that the commit sees both."""


class Known:
    """The images of a data set by hash and label, in a folder of its own: in little memory, however many they are."""

    def __init__(self, folder: Path, store: Store, manifest: Manifest | None) -> None:
        folder.mkdir()
        self.first = self.second = np.empty(0, np.uint64)
        ledger = Ledger(store, [Volume(manifest.shards, manifest.facts)] if manifest else [])
        if ledger.rows:
            self._fill(folder, ledger)

    def _fill(self, folder: Path, ledger: Ledger) -> None:
        buckets = Buckets(folder / "buckets", KEY, ledger.rows)
        for batch in ledger.batches():
            mixed = np.array([_mix(label) for label in ledger.labels], np.uint64)
            keys = np.empty(len(batch), KEY)
            keys["first"] = batch["hash"][:, 0] ^ mixed[batch["label"]]
            keys["second"] = batch["hash"][:, 1]
            buckets.add(keys, keys["first"])
        paths = folder / "first", folder / "second"
        with paths[0].open("wb") as first, paths[1].open("wb") as second:
            for bucket in buckets:
                bucket.sort(order="first")
                bucket["first"].tofile(first)
                bucket["second"].tofile(second)
        buckets.remove()
        self.first, self.second = (np.memmap(path, np.uint64, "r") for path in paths)

    def among(self, hashes: Sequence[bytes], labels: Sequence[str]) -> NDArray[np.bool_]:
        """Which of these images the data set has, bool [N]."""
        if not len(self.first) or not hashes:
            return np.zeros(len(hashes), np.bool_)
        words = np.frombuffer(b"".join(hashes), ">u8").astype(np.uint64).reshape(-1, 4)
        mixed = {label: _mix(label) for label in set(labels)}
        first = words[:, 0] ^ np.array([mixed[label] for label in labels], np.uint64)
        places = np.minimum(np.searchsorted(self.first, first), len(self.first) - 1)
        # Two images with the same first eight bytes: as good as never, and the commit would find the second.
        same: NDArray[np.bool_] = (self.first[places] == first) & (self.second[places] == words[:, 1])
        return same


def _mix(label: str) -> int:
    return int.from_bytes(hashlib.sha256(label.encode()).digest()[:8], "big")
