"""Records in files, by a key."""

from pathlib import Path

import numpy as np
import pytest

from components.dataset import buckets
from components.dataset.buckets import Buckets


@pytest.mark.parametrize("expected", [0, 1, 100, 101, 1000, 5000])
def test_every_record_comes_once_and_equal_keys_come_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: int
) -> None:
    monkeypatch.setattr(buckets, "RECORDS", 100)
    made = Buckets(tmp_path / "buckets", np.int64, expected)
    keys = np.random.default_rng(0).integers(0, 2**64, 1000, np.uint64) >> np.uint64(50) << np.uint64(50)
    values = np.arange(1000)
    made.add(values[:300], keys[:300])
    made.add(values[300:], keys[300:])
    found = list(made)
    assert sorted(np.concatenate(found).tolist()) == values.tolist()
    assert len(found) == max(1, 2 ** (max(0, expected - 1) // 100).bit_length())
    places = {key: number for number, bucket in enumerate(found) for key in keys[bucket].tolist()}
    assert all(places[key] == number for number, bucket in enumerate(found) for key in keys[bucket].tolist())
    assert [places[key] for key in sorted(places)] == sorted(places.values())


def test_buckets_may_be_empty_and_are_removed(tmp_path: Path) -> None:
    made = Buckets(tmp_path / "buckets", np.int64, 10**6)
    assert [len(bucket) for bucket in made] == [0] * len(list(made))
    made.remove()
    assert list(tmp_path.iterdir()) == []
